"""The parts of the page that account for the run: what was left out, what was not matched, how to repeat it."""

from __future__ import annotations

import json
from typing import Any

from markupsafe import Markup

from sutura.compare.matching import CONFOUNDERS, not_matched, show_fact
from sutura.compare.report_page.markup import Section, bullets, folded, join, paragraph, table, tag
from sutura.compare.report_page.view import View
from sutura.compare.tables import Table
from sutura.core.hashing import fingerprint

#: Facts beside the confounders that stand in the table of encoders.
_ALSO = {"id": "id", "revision": "revision", "licence": "licence", "paper": "paper"}


def leakage_section(view: View, overlaps: dict[str, Any], aside: dict[str, dict[str, int]]) -> Section:
    """Overlap of training and test, and inputs that were set aside.

    Args:
        view: the results.
        overlaps: data → a sentence, or counts.
        aside: data → reason → count.
    """
    sentences = []
    for name, found in overlaps.items():
        words = found if isinstance(found, str) else json.dumps(found, sort_keys=True, ensure_ascii=False)
        sentences.append(join([tag("strong", name), ": ", words]))
    leaks = bullets(sentences) or paragraph("Overlap of training and test pictures: not checked.")
    if overlaps and "affected" not in view.notes and not view.extra("leakage"):
        leaks += paragraph(
            "Scores without the affected items were not computed for this report.", class_="hint"
        )
    rows = [
        (data, reason, f"{count:,}")
        for data, reasons in aside.items()
        for reason, count in sorted(reasons.items())
        if count
    ]
    clean = [data for data, reasons in aside.items() if not any(reasons.values())]
    parts: list[Markup] = [tag("h3", "Training pictures among the test pictures"), leaks]
    parts += view.extra("leakage")
    parts.append(tag("h3", "Inputs set aside"))
    if rows:
        content = Table(("data", "reason", "count"), tuple(rows))
        parts.append(table(content, caption="What was set aside or converted, and why", words=2))
    if clean:
        parts.append(folded(f"Nothing was set aside in {len(clean)} of {len(aside)} parts", bullets(clean)))
    return Section("leakage", "Leakage and inputs", join(parts), "Leakage")


def matching_section(view: View) -> Section | None:
    """What the compared encoders do not share."""
    compared = view.compared
    if len(compared) < 2:
        return None
    sentences = not_matched(view.facts, compared) or ["Nothing known differs but the weights."]
    unchecked = [
        f"Not checked by anybody – {name}: {', '.join(map(str, view.facts[name]['unchecked']))}."
        for name in compared
        if view.facts.get(name, {}).get("unchecked")
    ]
    between = [str(sentence) for sentence in view.notes.get("not_matched_runs") or ()]
    return Section(
        "matching",
        "What is not matched",
        join(
            [
                paragraph(
                    "A difference between two encoders can come from any of these as well as from what the encoder "
                    "learned."
                ),
                bullets([*between, *sentences, *unchecked]),
                _facts(view, compared, sentences),
            ]
        ),
        "Not matched",
    )


def _facts(view: View, compared: list[str], sentences: list[str]) -> Markup:
    """Facts down, encoders across; those that are not matched are marked."""
    rows = []
    for key, title in {**CONFOUNDERS, **_ALSO}.items():
        values = [show_fact(key, view.facts.get(name, {}).get(key)) for name in compared]
        if set(values) == {"–"}:
            continue
        differs = any(sentence.startswith(f"Not matched – {title}:") for sentence in sentences)
        cells = [tag("td", value, class_="w") for value in values]
        note = tag("small", "differs") if differs else None
        head = tag("th", title, " ", note, scope="row", class_="w")
        rows.append(tag("tr", head, *cells, class_="differs" if differs else None))
    heads = [tag("th", name, scope="col", class_="w") for name in ("", *compared)]
    body = tag(
        "table",
        tag("caption", "Facts of every encoder"),
        tag("thead", tag("tr", *heads)),
        tag("tbody", *rows),
        class_="facts",
    )
    return tag("div", body, class_="wide", tabindex="0", role="region", aria_label="Facts of every encoder")


def rules_section(view: View) -> Section | None:
    """House rules this run breaks, and learning rates that were chosen."""
    broken = list(view.notes.get("broken_rules") or ())
    rates = view.notes.get("rates") or {}
    parts: list[Markup] = []
    if broken:
        parts += [paragraph("Against the protocol, switch by switch."), bullets(broken)]
    if rates:
        tried = sorted({lr for found in rates.values() for lr in found["scores"]}, key=float)
        rows = [
            (
                "blind" if name == "none" else name,
                f"{found['chosen']:g}",
                *(f"{100 * found['scores'][lr]:.1f}" if lr in found["scores"] else "–" for lr in tried),
            )
            for name, found in rates.items()
        ]
        content = Table(("encoder", "chosen", *(f"lr {lr}" for lr in tried)), tuple(rows))
        parts += [
            tag("h3", "Learning rates"),
            paragraph("Chosen by strict accuracy (%) on the selection split, which no score above reads."),
            table(content, caption="Learning rates and what each scored"),
        ]
    if not parts:
        return None
    return Section("rules", "House rules broken" if broken else "Learning rates", join(parts))


def repeat_section(view: View) -> Section:
    """Command, config, seeds, versions, cells."""
    notes, cells = view.notes, view.cells
    facts: list[tuple[str, object]] = [("Config hash", tag("code", fingerprint(dict(view.config))))]
    if notes.get("machine"):
        facts.append(("Machine", str(notes["machine"])))
    if notes.get("versions"):
        facts.append(("Versions", ", ".join(f"{name} {v}" for name, v in notes["versions"].items())))
    if cells:
        facts.append(("Training seeds", ", ".join(map(str, sorted({int(cell["seed"]) for cell in cells})))))
        facts.append(("Cells", f"{len(cells)}"))
    described = [part for name, value in facts for part in (tag("dt", name), tag("dd", value))]
    parts: list[Markup] = []
    if notes.get("command"):
        parts += [
            paragraph("Run again, it computes only what is missing:"),
            tag("pre", tag("code", str(notes["command"])), tabindex="0"),
        ]
    parts.append(tag("dl", *described))
    if cells:
        rows = sorted(
            (str(c.get("condition")), str(c.get("encoder")), str(c.get("seed")), str(c.get("hash")))
            for c in cells
        )
        content = Table(("condition", "encoder", "seed", "hash"), tuple(rows))
        parts.append(folded("Cells", table(content, caption="Cells of this comparison", words=4)))
    text = json.dumps(dict(view.config), indent=1, sort_keys=True, ensure_ascii=False, default=str)
    parts.append(folded("Resolved config", tag("pre", tag("code", text), tabindex="0")))
    return Section("repeat", "How to repeat", join(parts), "Repeat")
