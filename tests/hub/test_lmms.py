"""lmms-eval drives a stitch, and ledgers in its sample format.

The stand-in has the parts of lmms-eval's interface that are used. With SUTURA_LMMS_PYTHON naming the Python of a
virtual environment where lmms-eval and sutura are installed, the slow ring runs the real one on a local task.
"""

from __future__ import annotations

import abc
import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import polars as pl
import pytest

from sutura.core.errors import UserError
from sutura.data.samples import BytesPicture, Sample
from sutura.evals.ledger import check_ledger, ledger_row
from sutura.hub import lmms_model
from sutura.hub.lmms_samples import lmms_samples, write_lmms_samples
from sutura.stitch.bundle import load_stitch
from tiny_models import naive_nats
from tiny_stitches import know_tiny_encoders, save_stitch, tiny_picture


@pytest.fixture
def lmms_eval(monkeypatch: pytest.MonkeyPatch) -> None:
    """The base class and the manifest, as lmms-eval 0.7.3 has them."""

    class Base(abc.ABC):
        def __init__(self) -> None:
            self._rank, self._world_size, self.task_dict = 0, 1, {}

        @abc.abstractmethod
        def loglikelihood(self, requests: Any) -> Any: ...

        @abc.abstractmethod
        def generate_until(self, requests: Any) -> Any: ...

        @abc.abstractmethod
        def generate_until_multi_round(self, requests: Any) -> Any: ...

    @dataclass(frozen=True)
    class ModelManifest:
        model_id: str
        simple_class_path: str | None = None

    parts = {
        "lmms_eval": {},
        "lmms_eval.api": {},
        "lmms_eval.api.model": {"lmms": Base},
        "lmms_eval.models": {},
        "lmms_eval.models.registry_v2": {"ModelManifest": ModelManifest},
    }
    for name, members in parts.items():
        module = ModuleType(name)
        vars(module).update(members)
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.delitem(vars(lmms_model), "LmmsStitch", raising=False)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    know_tiny_encoders(monkeypatch)
    return save_stitch(tmp_path / "stitch")


DOCS = [
    {"image": tiny_picture(i), "q": question}
    for i, question in enumerate(["How many?", "Is it red?", "What?"])
]


def request(doc_id: int, second: Any, prompt: str | None = None, visual: Any = None) -> SimpleNamespace:
    """As lmms-eval lays out a request's arguments."""
    see = visual or (lambda doc: [doc["image"]])
    return SimpleNamespace(args=(prompt or DOCS[doc_id]["q"], second, see, doc_id, "local", "test"))


def made(folder: Path, **told: Any) -> Any:
    model = lmms_model.LmmsStitch(pretrained=str(folder), device="cpu", **told)
    model.task_dict["local"] = {"test": DOCS}
    return model


def test_lmms_eval_finds_the_model_by_its_manifest(lmms_eval: None) -> None:
    found = lmms_model.manifest()
    assert (found.model_id, found.simple_class_path) == ("sutura", "sutura.hub.lmms_model.LmmsStitch")
    assert lmms_model.LmmsStitch is lmms_model.LmmsStitch
    assert lmms_model.LmmsStitch.is_simple
    from importlib.metadata import entry_points

    known = {point.name: point.value for point in entry_points(group="lmms_eval.models")}
    assert known.get("sutura", "sutura.hub.lmms_model:manifest") == "sutura.hub.lmms_model:manifest"


@pytest.mark.parametrize("batch_size", [1, "2", "auto"])
def test_answers_are_those_of_asking(lmms_eval: None, folder: Path, batch_size: int | str) -> None:
    """Whatever is answered together, and whatever lengths are asked for."""
    model, stitch = made(folder, batch_size=batch_size), load_stitch(folder, device="cpu")
    lengths = (3, 6, 3)
    requests = [request(i, {"max_new_tokens": n, "do_sample": False}) for i, n in enumerate(lengths)]
    assert model.generate_until(requests) == [
        stitch.ask(doc["image"], doc["q"], max_new_tokens=n).strip()
        for doc, n in zip(DOCS, lengths, strict=True)
    ]


def test_marks_for_pictures_are_left_out_and_until_cuts(lmms_eval: None, folder: Path) -> None:
    model = made(folder)
    (plain,) = model.generate_until([request(0, {"max_new_tokens": 8})])
    (marked,) = model.generate_until([request(0, {"max_new_tokens": 8}, "<image>\nHow many?")])
    assert marked == plain
    end = plain[len(plain) // 2]
    (cut,) = model.generate_until([request(0, {"max_new_tokens": 8, "until": [end]})])
    assert cut == plain.split(end)[0].strip() != plain


def test_continuations_are_scored_as_one_by_one(lmms_eval: None, folder: Path) -> None:
    model, stitch = made(folder), load_stitch(folder, device="cpu")
    for doc_id, said in ((0, "two"), (1, lambda doc: "a chair")):
        ((nats, greedy),) = model.loglikelihood([request(doc_id, said)])
        text = said if isinstance(said, str) else said(DOCS[doc_id])
        visual = stitch.model.project(stitch._patches([DOCS[doc_id]["image"]])).detach()[0]
        due = naive_nats(stitch.model, stitch.prompt.turn("", DOCS[doc_id]["q"], text), visual)
        assert nats == pytest.approx(float(due.detach().sum()), abs=1e-4)  # a loss: lmms-eval takes the least
        assert greedy is (stitch.ask(DOCS[doc_id]["image"], DOCS[doc_id]["q"]) == text)


def test_what_a_stitch_cannot_do_is_said(lmms_eval: None, folder: Path) -> None:
    with pytest.raises(UserError, match="pretrained=DIR"):
        lmms_model.LmmsStitch()
    with pytest.raises(UserError, match="takes no dtype"):
        lmms_model.LmmsStitch(pretrained=str(folder), dtype="bf16")
    model = made(folder)
    with pytest.raises(UserError, match="shows 2 pictures"):
        model.generate_until([request(0, {}, visual=lambda doc: [doc["image"]] * 2)])
    with pytest.raises(UserError, match="greedily"):
        model.generate_until([request(0, {"do_sample": True, "temperature": 0.7})])
    with pytest.raises(UserError, match="several rounds"):
        model.generate_until_multi_round([])


def test_without_lmms_eval_there_is_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "lmms_eval", None)
    monkeypatch.delitem(vars(lmms_model), "LmmsStitch", raising=False)
    with pytest.raises(UserError, match=r"pip install lmms-eval sutura"):
        _ = lmms_model.LmmsStitch
    with pytest.raises(AttributeError):
        _ = lmms_model.Other


# Samples.


def rows(encoder: str = "clip", condition: str = "picture") -> list[dict[str, Any]]:
    return [
        ledger_row(
            Sample(BytesPicture(b""), f"what is {i}?", answers, f"p{i}", f"i{i}", "what", choices),
            "red",
            run=encoder,
            encoder=encoder,
            seed=0,
            condition=condition,
            benchmark="world/test",
        )
        for i, (answers, choices) in enumerate([(("red",), ("red", "blue")), (("blue", "navy"), ())])
    ]


def test_samples_have_the_fields_that_lmms_eval_logs(tmp_path: Path) -> None:
    frame = check_ledger(pl.DataFrame([*rows(), *rows("none", "blind")]))
    first, second = lmms_samples(frame.filter(pl.col("encoder") == "clip"))
    assert (first["doc_id"], first["target"], first["filtered_resps"], first["input"]) == (
        0,
        "red",
        "red",
        "what is 0?",
    )
    assert (first["exact"], second["exact"], second["target"]) == (1.0, 0.0, "['blue', 'navy']")
    assert first["sutura"]["choices"] == ["red", "blue"]
    assert "choices" not in second["sutura"]
    assert "vqa" not in first, "a metric that does not apply is left out"
    assert len({first["doc_hash"], second["doc_hash"]}) == 2
    written = write_lmms_samples(frame, tmp_path / "out")
    assert [path.relative_to(tmp_path / "out").as_posix() for path in written] == [
        "clip__picture__seed0/sutura_samples_world_test.jsonl",
        "none__blind__seed0/sutura_samples_world_test.jsonl",
    ]
    lines = [json.loads(line) for line in written[0].read_text().splitlines()]
    assert lines == [first, second]
    with pytest.raises(UserError, match="exists already"):
        write_lmms_samples(frame, tmp_path / "out")


# The real lmms-eval.

TASK = """
task: sutura_local
dataset_path: parquet
dataset_kwargs:
  data_files: {{test: {data}}}
test_split: test
output_type: generate_until
doc_to_visual: !function see.pictures
doc_to_text: question
doc_to_target: answer
generation_kwargs: {{max_new_tokens: 6, do_sample: false}}
metric_list: [{{metric: exact_match, aggregation: mean, higher_is_better: true}}]
"""


@pytest.mark.slow
def test_the_real_lmms_eval_runs_a_local_task(tmp_path: Path, zoo_stitch: Callable[[Path], Any]) -> None:
    """Its answers are those of `ask`, and its log has the fields that ours has."""
    python = os.environ.get("SUTURA_LMMS_PYTHON")
    if not python:
        pytest.skip("SUTURA_LMMS_PYTHON names no Python with lmms-eval and sutura")
    from datasets import Dataset, Features, Image, Value

    stitch = zoo_stitch(tmp_path / "stitch")
    docs = [
        {"image": tiny_picture(40 * i), "question": q, "answer": "red"}
        for i, q in enumerate(["How many?", "What?"])
    ]
    kinds = Features({"image": Image(), "question": Value("string"), "answer": Value("string")})
    data = tmp_path / "test.parquet"
    Dataset.from_list(docs, features=kinds).to_parquet(str(data))
    task = tmp_path / "task"
    task.mkdir()
    (task / "local.yaml").write_text(TASK.format(data=data))
    (task / "see.py").write_text("def pictures(doc):\n    return [doc['image'].convert('RGB')]\n")
    command = [python, "-m", "lmms_eval", "--model", "sutura", "--tasks", "sutura_local", "--batch_size", "2"]
    command += ["--model_args", f"pretrained={tmp_path / 'stitch'},device=cpu", "--include_path", str(task)]
    command += ["--log_samples", "--output_path", str(tmp_path / "out")]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "hf")}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=280)
    logs = list((tmp_path / "out").rglob("*_samples_sutura_local.jsonl"))
    assert len(logs) == 1, done.stderr[-3000:]  # it exits with 0 when a task fails
    log = logs[0]
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    due = [stitch.ask(doc["image"], doc["question"], max_new_tokens=6).strip() for doc in docs]
    assert [line["filtered_resps"] for line in sorted(lines, key=lambda line: line["doc_id"])] in (
        due,
        [[d] for d in due],
    )
    ours = lmms_samples(check_ledger(pl.DataFrame(rows())))[0]
    missing = set(lines[0]) - set(ours) - {"exact_match", "resps", "input_media"}
    assert not missing


@pytest.fixture
def zoo_stitch() -> Callable[[Path], Any]:
    """A stitch on weights that come with sutura, so that another process can load it."""

    def make(folder: Path) -> Any:
        from sutura.encoders import load_encoder
        from sutura.encoders.config import EncoderConfig
        from sutura.stitch.bundle import StitchConfig, build_stitch
        from sutura.stitch.language import LlmConfig
        from tiny_models import awaken, save_language_model

        save_language_model(folder.parent / "lm")
        row = EncoderConfig(id="zoo:clip", tokens=16)
        config = StitchConfig(encoder=row, llm=LlmConfig(id=str(folder.parent / "lm"), rank=4))
        stitch = build_stitch(config, load_encoder(row).facts())
        awaken(stitch.model)
        stitch.save(folder)
        return load_stitch(folder, device="cpu")

    return make
