"""Someone's own encoder, data, benchmark and objective are found by entry point, without a fork."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

import sutura
from sutura.core.errors import UserError
from sutura.core.registry import Registry
from sutura.data.vqa import SOURCES, load_vqa
from sutura.encoders.loaders import PLUGINS
from sutura.evals.benchmarks import BENCHMARKS, get_benchmark
from sutura.train.methods import METHODS

ENTRY_POINTS = """\
[sutura.encoders]
colour-grid = plug_in:colour_grid

[sutura.data]
squares = plug_in:load_squares

[sutura.benchmarks]
squares = plug_in:SQUARES

[sutura.objectives]
brightness = plug_in_objective:BRIGHTNESS
"""
OBJECTIVE = """\
from sutura.train.methods import METHODS
from dataclasses import replace

BRIGHTNESS = replace(METHODS.get("supervised"), about="Brightness of the picture.")
"""
REGISTRIES: tuple[Registry, ...] = (PLUGINS, SOURCES, BENCHMARKS, METHODS)


@pytest.fixture
def installed(tmp_path: Path, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A package on the path as pip leaves it: modules, and a dist-info folder that lists its entry points."""
    site = tmp_path / "site"
    info = site / "sutura_squares-0.1.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: sutura-squares\nVersion: 0.1\n")
    (info / "entry_points.txt").write_text(ENTRY_POINTS)
    shutil.copy(root / "examples" / "plug_in.py", site)
    (site / "plug_in_objective.py").write_text(OBJECTIVE)
    for registry in REGISTRIES:
        monkeypatch.setattr(registry, "_plugins_read", False)
        monkeypatch.setattr(registry, "_items", dict(registry._items))
    monkeypatch.syspath_prepend(str(site))


def test_nothing_is_there_before_it_is_installed() -> None:
    with pytest.raises(UserError, match="no encoder 'colour-grid'"):
        sutura.load_encoder("colour-grid")
    with pytest.raises(UserError, match="no benchmark named 'squares'"):
        get_benchmark("squares")


@pytest.mark.usefixtures("installed")
def test_an_encoder_by_name() -> None:
    encoder = sutura.load_encoder("colour-grid", tokens=4)
    assert (encoder.width, encoder.grid, encoder.num_tokens) == (3, (4, 4), 4)
    assert not any(parameter.requires_grad for parameter in encoder.parameters())
    assert encoder.facts()["licence"] == "Apache-2.0"


@pytest.mark.usefixtures("installed")
def test_a_data_source_and_a_benchmark_by_name() -> None:
    data = load_vqa({"source": "squares", "limit": 8})
    assert (len(data.pictures), len(data)) == (8, 16)
    benchmark = get_benchmark("squares", {"limit": 4})
    assert len(load_vqa(benchmark.data)) == 8
    assert "squares" in BENCHMARKS.names()


@pytest.mark.usefixtures("installed")
def test_an_objective_by_name() -> None:
    assert METHODS.get("brightness").about == "Brightness of the picture."
    assert {"supervised", "clip", "ijepa"} < set(METHODS.names())


@pytest.mark.usefixtures("installed")
def test_a_name_that_is_taken_is_refused(tmp_path: Path) -> None:
    """A plug-in cannot stand in for a source of the project unnoticed."""
    entries = tmp_path / "site" / "sutura_squares-0.1.dist-info" / "entry_points.txt"
    entries.write_text("[sutura.data]\nworld = plug_in:load_squares\n")
    with pytest.raises(UserError, match="'world' is already registered"):
        SOURCES.names()


@pytest.mark.usefixtures("installed")
def test_a_comparison_of_nothing_but_plug_ins(tmp_path: Path) -> None:
    """Encoder, training data and benchmark of another package go through the whole corridor."""
    from tiny_models import save_language_model

    report = sutura.compare(
        {
            "name": "squares",
            "encoders": ["colour-grid"],
            "encoder": {"tokens": 4},
            "llm": {"id": save_language_model(tmp_path / "lm"), "rank": 2},
            "data": {"train": {"source": "squares", "limit": 8}, "test": ["squares"]},
            "feed": {"batch": 8, "micro_batch": 8},
            "optim": {"lr": 0.01},
            "evaluate": {"max_new_tokens": 2},
            "seeds": [0, 1],
            "engine": {"device": "cpu"},
            "runs": str(tmp_path / "runs"),
        }
    )
    text = report.read_text(encoding="utf-8")
    assert "colour-grid" in text
    assert "32 questions about 16 pictures" in text
