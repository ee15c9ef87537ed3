"""Puts the page together: sections, items, style and script in one file that asks nothing of any network."""

from __future__ import annotations

import base64
import hashlib
from collections import Counter
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from markupsafe import Markup

from sutura.compare.report_page.account import (
    leakage_section,
    matching_section,
    repeat_section,
    rules_section,
)
from sutura.compare.report_page.items import KIND_NOTES, KINDS, Item, choose
from sutura.compare.report_page.markup import Section
from sutura.compare.report_page.others import with_others
from sutura.compare.report_page.pictures import Pictures, thumbnails
from sutura.compare.report_page.sections import (
    accuracy_section,
    cost_section,
    curves_section,
    differences_section,
    families_section,
    metrics_section,
    verdict_section,
)
from sutura.compare.report_page.view import View
from sutura.core.checkpoint import atomic_file

#: Largest page, in bytes.
LARGEST = 2_000_000
#: Items shown, at most; fewer where the page would grow over LARGEST.
ITEMS = 240
#: Characters that pictures may take together.
PICTURE_BUDGET = 900_000

_HERE = Path(__file__).parent


def write_page(path: Path, view: View, pictures: Pictures | None = None) -> Path:
    """Write the page.

    Args:
        path: of the HTML file, replaced if it exists.
        view: the results.
        pictures: finds the items' pictures; without it the page says that there are none.
    """
    text = render(view, pictures)
    with atomic_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="\n")
    return path


def render(view: View, pictures: Pictures | None = None, largest: int = LARGEST) -> str:
    """The page as text, at most `largest` bytes as long as its sections without items are.

    Items are halved, then pictures, until it fits.
    """
    view = with_others(view)
    sections = list(_sections(view))
    items, budget = ITEMS, PICTURE_BUDGET
    while True:
        text = _assemble(view, sections, pictures, items, budget)
        if len(text.encode()) <= largest or items == 0:
            return text
        items, budget = items // 2, budget // 2


def _sections(view: View) -> list[Section]:
    """In the order of the page; a new part is one more line here, or blocks in `View.extras`."""
    overlaps, aside = inputs_of(view.cells, view.notes)
    found = (
        verdict_section(view),
        accuracy_section(view),
        differences_section(view),
        families_section(view),
        curves_section(view),
        cost_section(view),
        leakage_section(view, overlaps, aside),
        matching_section(view),
        rules_section(view),
        metrics_section(view),
        repeat_section(view),
    )
    return [section for section in found if section is not None]


def inputs_of(cells: Any, notes: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, dict[str, int]]]:
    """What is known of overlap (data → sentence or counts) and of inputs set aside (data → reason → count)."""
    aside = {str(data): dict(reasons) for data, reasons in (notes.get("set_aside") or {}).items()}
    if not aside:
        counts: Counter[str] = Counter()
        for cell in cells:
            for reason, count in (cell.get("set_aside") or {}).items():
                counts[reason] = max(counts[reason], int(count))
        aside = {"all data": dict(counts)}
    overlaps = dict(notes.get("overlap") or {})
    if not overlaps and cells and cells[0].get("overlap"):
        overlaps = {"training and test": cells[0]["overlap"]}
    return overlaps, aside


def _assemble(view: View, sections: list[Section], pictures: Pictures | None, size: int, budget: int) -> str:
    sample = choose(view.standings, view.frame, size)
    found, said = _thumbnails(sample.items, pictures, budget)
    style, script = _read("page.css"), _read("page.js")
    encoders = list(sample.encoders)
    cards = [
        {
            "item": item,
            "picture": found.get((item.benchmark, item.item_id)),
            "right": " ".join(
                str(encoders.index(a.name)) for a in item.answered if not a.control and a.right
            ),
        }
        for item in sample.items
    ]
    return _template("page.html.j2").render(
        view=view,
        sections=sections,
        facts=_headline(view),
        cards=cards,
        sample=sample,
        encoders=encoders,
        kinds=[(kind, KIND_NOTES[kind], sample.counts.get(kind, 0)) for kind in KINDS],
        families=sorted({item.family for item in sample.items}),
        benchmarks=list(dict.fromkeys(item.benchmark for item in sample.items)),
        missing=said,
        style=Markup(style),  # a file of this package
        script=Markup(script),
        style_hash=_csp_hash(style),
        script_hash=_csp_hash(script),
    )


def _thumbnails(
    items: tuple[Item, ...], pictures: Pictures | None, budget: int
) -> tuple[dict[tuple[str, str], str], list[str]]:
    """Data URIs by item, and sentences on pictures that are not shown."""
    if pictures is None:
        return {}, ["Pictures were not looked for."] if items else []
    found, said = {}, []
    for benchmark in dict.fromkeys(item.benchmark for item in items):
        here = [item for item in items if item.benchmark == benchmark]
        named, sentence = pictures.find(benchmark, here)
        found |= {(benchmark, name): named[name] for item in here if (name := item.item_id) in named}
        said += [sentence] if sentence else []
    small = thumbnails(found, budget)
    if lost := len(found) - len(small):
        said.append(f"{lost} pictures could not be read or had no room on this page.")
    return small, said


def _headline(view: View) -> list[tuple[str, str]]:
    """Numbers under the title."""
    items = sum(max(e.n_items for e in s.estimates.values()) for s in view.standings)
    seeds = sorted({e.n_seeds for s in view.standings for a in s.encoders for e in [s.estimates[a]]})
    configs = [view.config, *(cell.get("config") or {} for cell in view.cells)]
    models = dict.fromkeys(str(one["llm"]["id"]) for one in configs if (one.get("llm") or {}).get("id"))
    facts = [
        (str(len(view.compared)), "encoders" if len(view.compared) != 1 else "encoder"),
        ("–".join(map(str, dict.fromkeys(seeds[:1] + seeds[-1:]))) or "–", "training seeds"),
        (f"{items:,}", "questions"),
        (str(len(view.standings)), "benchmarks" if len(view.standings) != 1 else "benchmark"),
    ]
    return facts + ([(", ".join(models), "language model" + "s" * (len(models) > 1))] if models else [])


def _csp_hash(text: str) -> str:
    """What the content policy allows, and nothing else."""
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _read(name: str) -> str:
    return (_HERE / name).read_text(encoding="utf-8")


@cache
def _template(name: str) -> Any:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    places = FileSystemLoader(_HERE)
    environment = Environment(
        loader=places, autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=StrictUndefined
    )
    return environment.get_template(name)
