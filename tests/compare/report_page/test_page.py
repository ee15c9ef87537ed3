from __future__ import annotations

import base64
import hashlib
import os
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import polars as pl
import pytest

from sutura.compare.plots import loss_curves
from sutura.compare.publish import Comparison, read_comparison, report
from sutura.compare.report import encoder_facts, standings_of
from sutura.compare.report_page import LARGEST, Pictures, View
from sutura.compare.report_page.markup import tag
from sutura.compare.report_page.page import render
from sutura.compare.scores import Arm
from sutura.compare.shown import compute
from sutura.evals.ledger import read_ledgers

Make = Callable[..., Path]
HOSTILE = '<script>document.title="owned"</script>'


def view_of(found: Comparison, frame: pl.DataFrame | None = None) -> View:
    frame = read_ledgers(found.ledgers) if frame is None else frame
    facts = encoder_facts(found.trained)
    standings = standings_of(frame, facts, {})
    curves = loss_curves(found.trained)
    shown = compute(standings, frame, facts, found.trained, found.notes.get("affected") or {})
    return View(standings, frame, facts, found.trained, found.config, found.notes, [], curves, shown)


class Elements(HTMLParser):
    """Tags with their attributes, and every text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


def test_every_part_is_there_and_nothing_comes_from_elsewhere(tmp_path: Path, comparison: Make) -> None:
    path = report(comparison(tmp_path)).with_suffix(".html")
    text = path.read_text()
    assert path.stat().st_size <= LARGEST
    page = Elements(text)
    names = [attributes.get("id") for name, attributes in page.tags if name == "section"]
    assert names == [
        "verdict",
        "accuracy",
        "differences",
        "families",
        "curves",
        "cost",
        "items",
        "leakage",
        "matching",
        "rules",
        "metrics",
        "repeat",
    ]
    for part in (
        "No picture of it was trained on.",
        "broken",
        "seeds: two.",
        "Not matched – visual tokens given to the language model: clip 16, vit 49.",
        "sutura compare name=trial",
        "torch 2",
        "data:image/webp;base64,",
    ):
        assert part in text, part
    for name, attributes in page.tags:
        assert "style" not in attributes, f"{name} has a style of its own, which the content policy forbids"
        for key in ("src", "href", "data", "action", "srcset", "poster"):
            value = attributes.get(key)
            assert value is None or value.startswith(("#", "data:")), f"{name} {key}={value}"
        if name == "svg" and attributes.get("role") == "img":
            assert attributes.get("aria-label")
        if name == "img":
            assert attributes.get("alt")
    assert not re.search(r"url\(|@import|https?://", text.replace("http-equiv", ""))


def test_the_policy_allows_its_own_style_and_script_alone(tmp_path: Path, comparison: Make) -> None:
    text = report(comparison(tmp_path), pictures=False).with_suffix(".html").read_text()
    policy = next(
        a["content"]
        for n, a in Elements(text).tags
        if n == "meta" and "Content-Security-Policy" in a.values()
    )
    assert policy is not None
    assert policy.startswith("default-src 'none'; img-src data:;")
    for name, directive in (("style", "style-src"), ("script", "script-src")):
        (inside,) = re.findall(f"<{name}>(.*?)</{name}>", text, flags=re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(inside.encode()).digest()).decode()
        assert f"{directive} 'sha256-{digest}'" in policy


def test_what_a_model_or_a_person_wrote_is_text(tmp_path: Path, comparison: Make) -> None:
    skills = {"<b>clip": 0.9, "vit": 0.5}
    made = comparison(tmp_path, "<script>x", encoders=skills, wrong=HOSTILE, command=HOSTILE)
    found = read_comparison(made)
    frame = read_ledgers(found.ledgers).with_columns(
        pl.lit(f"is it? {HOSTILE}").alias("question"),
        (pl.col("question_type") + "<i>").alias("question_type"),
    )
    text = render(view_of(found, frame), Pictures.of(found.config))
    assert text.count("<script") == 1
    assert "<b>clip" not in text.replace("<b>clip</b>", "")
    assert "<i>" not in re.sub(r"<i>(right|wrong)</i>", "", text)
    shown = "".join(Elements(text).texts)
    assert f"is it? {HOSTILE}" in shown
    assert shown.count(HOSTILE) > 10


def test_marks_lie_where_the_ledger_says(tmp_path: Path, comparison: Make) -> None:
    found = read_comparison(comparison(tmp_path))
    view = view_of(found)
    text = render(view)
    standing = view.standings[0]
    bars = text[text.index('<ul class="rows bars">') :]
    for arm in standing.encoders:
        mean = standing.estimates[arm].mean
        assert f'width="{100 * mean:.2f}'.rstrip("0").rstrip(".") in bars
        low, high = standing.estimates[arm].low, standing.estimates[arm].high
        assert low is not None
        assert high is not None
        for end in (low, high):
            assert f'"{f"{100 * end:.2f}".rstrip("0").rstrip(".")}%"' in bars
    for arm, kind in ((Arm("none", "blind"), "blind"), (Arm("none", "majority"), "majority")):
        share = f"{100 * standing.estimates[arm].mean:.2f}".rstrip("0").rstrip(".")
        assert bars.count(f'<svg x="{share}%" class="at floor {kind}">') == len(standing.encoders)


def test_a_page_that_would_be_too_large_shows_fewer_items(tmp_path: Path, comparison: Make) -> None:
    found = read_comparison(comparison(tmp_path, pictures=20))
    view = view_of(found)
    whole = render(view, Pictures.of(found.config))
    limit = len(whole.encode()) * 2 // 3
    small = render(view, Pictures.of(found.config), limit)
    assert len(small.encode()) <= limit
    assert 0 < small.count('<article class="card item"') < whole.count('<article class="card item"')
    none = render(view, None, 1000)
    assert none.count("<article") == 0
    assert "No item is shown" in none


def test_without_pictures_the_page_says_so(tmp_path: Path, comparison: Make) -> None:
    text = report(comparison(tmp_path), pictures=False).with_suffix(".html").read_text()
    assert "Pictures were not looked for." in text
    assert "<img" not in text
    assert "no picture" in text


def test_others_add_blocks_to_a_section(tmp_path: Path, comparison: Make) -> None:
    view = view_of(read_comparison(comparison(tmp_path)))
    places = ("ranking", "leakage", "cost", "curves", "metrics")
    extras = {name: [tag("p", f"here is {name} & more")] for name in places}
    text = render(replace(view, extras=extras))
    for name in extras:
        assert f"<p>here is {name} &amp; more</p>" in text
    assert "Scores without the affected items were not computed" not in text


@pytest.mark.parametrize("seed", ["7"])
def test_other_place_time_and_hash_seed_give_the_same_bytes(
    tmp_path: Path, comparison: Make, seed: str
) -> None:
    made = comparison(tmp_path)
    report(made, into=tmp_path / "first")
    script = (
        "import sys, pathlib; from sutura.compare.publish import report; "
        "report(pathlib.Path(sys.argv[1]), into=pathlib.Path(sys.argv[2]))"
    )
    elsewhere = tmp_path / "elsewhere" / "deeper"
    elsewhere.mkdir(parents=True)
    subprocess.run(
        [sys.executable, "-c", script, str(made), str(elsewhere / "second")],
        cwd=elsewhere,
        env={**os.environ, "PYTHONHASHSEED": seed, "TZ": "Asia/Tokyo"},
        check=True,
    )
    files = sorted(p.relative_to(tmp_path / "first") for p in (tmp_path / "first").rglob("*") if p.is_file())
    assert {p.suffix for p in files} == {".md", ".html", ".csv", ".png", ".svg"}
    for name in files:
        assert (tmp_path / "first" / name).read_bytes() == (elsewhere / "second" / name).read_bytes(), name


def test_the_package_carries_what_the_page_is_made_of() -> None:
    from importlib.resources import files

    folder = files("sutura.compare.report_page")
    assert all((folder / name).is_file() for name in ("page.html.j2", "items.html.j2", "page.css", "page.js"))
    root = Path(__file__).parents[3]
    kept = subprocess.run(
        ["git", "check-ignore", "-q", "src/sutura/compare/report_page/page.css"], cwd=root, check=False
    )
    assert kept.returncode != 0, "an ignored file is left out of the wheel"
