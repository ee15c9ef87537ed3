"""The report: a view of ledgers and of what the cells wrote down. Nothing in it comes from anywhere else."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import polars as pl
from markupsafe import Markup

from sutura.compare.aggregate import aggregate_table, aggregate_words
from sutura.compare.answer_tables import HEALTH_NOTE, YES_NO_NOTE
from sutura.compare.matching import not_matched, trains_encoder
from sutura.compare.plots import Curves, loss_curves, plot_accuracy, plot_losses, plot_pairs, plot_types
from sutura.compare.ranking import RANKING_WORDS
from sutura.compare.report_cost import budget_lines, curve_lines, pareto_lines, slug_of
from sutura.compare.report_page import Pictures, View, inputs_of, write_page
from sutura.compare.scores import common_items, common_seeds, unscored
from sutura.compare.shown import Shown, compute
from sutura.compare.standing import Standing, stand
from sutura.compare.tables import (
    Table,
    accuracy_table,
    convergence_table,
    metrics_table,
    pairs_table,
    results_table,
    types_table,
)
from sutura.compare.verdict import listing, percent, verdict
from sutura.compare.without import without_lines
from sutura.core.checkpoint import atomic_file
from sutura.core.hashing import fingerprint
from sutura.evals.benchmarks import BENCHMARKS
from sutura.evals.ledger import SCORES, of_benchmark, read_ledgers


def write_report(
    directory: Path,
    ledgers: pl.DataFrame | Sequence[Path],
    cells_meta: Sequence[Mapping[str, Any]],
    config_resolved: Mapping[str, Any],
    notes: Mapping[str, Any] | None = None,
    *,
    pictures: Pictures | None = None,
    extras: Mapping[str, Sequence[Markup]] | None = None,
) -> Path:
    """Write report.md with its plots and tables, and report.html; what was there before is replaced.

    The same input gives the same bytes.

    Args:
        directory: receives `report.md`, `report.html`, `plots/` and `tables/`.
        ledgers: paths, or a frame as `read_ledgers` gives it.
        cells_meta: what each cell left beside its ledger.
        config_resolved: of the comparison; its hash stands in the report.
        notes: what is worth saying besides. All keys optional: `name`, `command`, `machine`, `versions`
            (mapping), `overlap` (benchmark → sentence or counts), `set_aside` (data → reason → count),
            `remarks` (sentences), `metrics` (benchmark → headline column), `broken_rules` (sentences), `rates`
            (encoder → the learning rate chosen for it, and what each scored), `affected` (benchmark → ids of items
            whose pictures were trained on), `sheets` (benchmark → picture of the pairs), `not_matched_runs`
            (sentences on settings that merged comparisons do not share).
        pictures: finds the pictures of the items that report.html shows.
        extras: blocks that other computations add to sections of report.html, as `View` takes them.

    Returns:
        The path of report.md.

    Raises:
        UserError: ledgers that break a rule or cannot be compared.
    """
    notes = dict(notes or {})
    frame = ledgers if isinstance(ledgers, pl.DataFrame) else read_ledgers(list(ledgers))
    frame, left_out = common_seeds(frame)
    frame, items_left_out = common_items(frame)
    left_out += items_left_out
    facts = encoder_facts(cells_meta)
    standings = standings_of(frame, facts, notes.get("metrics") or {})
    curves = loss_curves(cells_meta)
    shown = compute(standings, frame, facts, cells_meta, notes.get("affected") or {})
    lines = [f"# {notes.get('name', 'Comparison')}", "", "## Verdict", ""]
    lines += _verdict_lines(standings, facts, cells_meta, left_out, notes)
    for standing in standings:
        lines += _benchmark_lines(directory, frame, standing, facts, shown)
    if shown.together:
        lines += ["## Over all benchmarks", "", aggregate_words(shown.together), ""]
        lines += [_table(directory, "all-benchmarks", aggregate_table(shown.together)), ""]
    lines += _rule_lines(notes)
    lines += _rate_lines(directory, notes)
    lines += curve_lines(
        directory, partial(_table, directory), shown.learning, config_resolved, notes.get("rates") or {}
    )
    lines += _cost_lines(directory, cells_meta, curves)
    lines += pareto_lines(directory, partial(_table, directory), cells_meta, standings)
    lines += _matching_lines(standings, facts, notes)
    lines += _input_lines(cells_meta, notes)
    lines += without_lines(shown.without)
    lines += _repeat_lines(cells_meta, config_resolved, notes)
    _write(directory / "tables" / "results.csv", results_table(standings).csv())
    view = View(
        standings,
        frame,
        facts,
        cells_meta,
        config_resolved,
        notes,
        left_out,
        curves,
        shown,
        dict(extras or {}),
    )
    write_page(directory / "report.html", view, pictures)
    path = directory / "report.md"
    _write(path, "\n".join(lines).rstrip() + "\n")
    return path


def encoder_facts(cells_meta: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Encoder name to its facts, from the cells that saw pictures."""
    return {
        str(cell["encoder"]): dict(cell.get("encoder_facts") or {})
        for cell in cells_meta
        if cell.get("condition") == "picture"
    }


def standings_of(
    frame: pl.DataFrame, facts: Mapping[str, Mapping[str, Any]], metrics: Mapping[str, str]
) -> list[Standing]:
    """One standing a benchmark, in the order the ledgers have them."""
    names = frame["benchmark"].unique(maintain_order=True).to_list()
    return [stand(frame, facts, name, headline(name, metrics)) for name in names]


def headline(benchmark: str, metrics: Mapping[str, str]) -> str:
    """The score column a benchmark is judged by: as given, else its row's, else exact match."""
    if benchmark in metrics:
        return metrics[benchmark]
    return BENCHMARKS.get(benchmark).metric if benchmark in BENCHMARKS else "exact"


def _verdict_lines(
    standings: Sequence[Standing],
    facts: Mapping[str, Mapping[str, Any]],
    cells: Sequence[Mapping[str, Any]],
    left_out: Sequence[str],
    notes: Mapping[str, Any],
) -> list[str]:
    lines = []
    for standing in standings:
        sentences = verdict(standing)
        lines += [f"**{sentences[0]}**", "", *(f"- {sentence}" for sentence in sentences[1:]), ""]
    compared = sorted({arm.encoder for standing in standings for arm in standing.encoders})
    limits = [s for s in not_matched(facts, compared) if s.startswith("Not matched")]
    if limits:
        lines += ["- The encoders differ in more than their training; see *What is not matched* below."]
    if names := trains_encoder(cells):
        lines += [
            f"- {listing(names)}: trained along with the stitch, so these rows do not isolate the encoder."
        ]
    lines += [f"- {sentence}" for sentence in (*left_out, *notes.get("remarks", ()))]
    return [*lines, ""]


def _benchmark_lines(
    directory: Path,
    frame: pl.DataFrame,
    standing: Standing,
    facts: Mapping[str, Mapping[str, Any]],
    shown: Shown,
) -> list[str]:
    name, metric = standing.scores.benchmark, standing.scores.metric
    slug = slug_of(name)
    lines = [f"## {name}", ""]
    if name in BENCHMARKS:
        row = BENCHMARKS.get(name)
        floors = [f"{floor.kind} {percent(floor.score)} ({floor.source})" for floor in row.floors]
        lines += [f"{row.note}{' Known floors: ' + '; '.join(floors) + '.' if floors else ''}".strip(), ""]
    bare = unscored(frame, standing.scores)
    excluded = max(estimate.excluded for estimate in standing.estimates.values())
    lines += [
        f"Headline metric: {metric}. Intervals are at 95 %, clustered by picture and, with several seeds, "
        "over training seeds too. *Above the floor* is the paired difference to the control whose lower bound is "
        "lowest; * marks p < 0.05 against every control, after Holm's correction."
        + (f" {excluded} items to which the metric does not apply are left out." if excluded else "")
        + (
            f" Without any {metric} score, so not compared: {listing([a.label for a in bare])}."
            if bare
            else ""
        ),
        "",
        _table(directory, f"{slug}-accuracy", accuracy_table(standing, facts)),
        "",
    ]
    plot_accuracy(standing, directory / "plots" / f"{slug}-accuracy.png")
    lines += [f"![Accuracy of every encoder on {name}, with floors](plots/{slug}-accuracy.png)", ""]
    if standing.pairs:
        lines += ["### Encoder against encoder", "", "Paired over items and seeds.", ""]
        lines += [_table(directory, f"{slug}-pairs", pairs_table(standing)), ""]
        plot_pairs(standing, directory / "plots" / f"{slug}-pairs.png")
        lines += [f"![Paired differences on {name}, with intervals](plots/{slug}-pairs.png)", ""]
        lines += ["### Ranks", "", RANKING_WORDS, ""]
        lines += [_table(directory, f"{slug}-ranks", shown.ranks[name]), ""]
    lines += budget_lines(directory, partial(_table, directory), standing, facts)
    if len(standing.scores.types) > 1:
        lines += ["### By question type", "", _table(directory, f"{slug}-types", types_table(standing)), ""]
        plot_types(standing, directory / "plots" / f"{slug}-types.png")
        lines += [f"![Accuracy on {name} by question type](plots/{slug}-types.png)", ""]
    here = of_benchmark(frame, name)
    metrics = [m for m in SCORES if here[m].null_count() < len(here)]
    lines += [
        "### Other metrics and the health of the answers",
        "",
        "Means in percent. *lenient* counts a prediction that contains the reference, as an earlier study "
        "did; *empty* and *unstopped* are shares of answers without text and without a stop token.",
        "",
        _table(directory, f"{slug}-metrics", metrics_table(frame, name, metrics)),
        "",
    ]
    lines += [HEALTH_NOTE, "", _table(directory, f"{slug}-health", shown.health[name]), ""]
    if (yes_no := shown.yes_no.get(name)) is not None:
        lines += ["### Yes and no", "", YES_NO_NOTE, "", _table(directory, f"{slug}-yes-no", yes_no), ""]
    return lines


def _rule_lines(notes: Mapping[str, Any]) -> list[str]:
    """What of this run goes against the protocol, switch by switch."""
    broken = list(notes.get("broken_rules") or ())
    return ["## House rules this run breaks", "", *(f"- {rule}" for rule in broken), ""] if broken else []


def _rate_lines(directory: Path, notes: Mapping[str, Any]) -> list[str]:
    """Learning rates that were chosen, and what they were chosen by."""
    rates: Mapping[str, Any] = notes.get("rates") or {}
    if not rates:
        return []
    tried = sorted({lr for found in rates.values() for lr in found["scores"]}, key=float)
    rows = tuple(
        (
            "blind" if name == "none" else name,
            f"{found['chosen']:g}",
            *(f"{100 * found['scores'][lr]:.1f}" if lr in found["scores"] else "–" for lr in tried),
        )
        for name, found in rates.items()
    )
    table = Table(("encoder", "chosen", *(f"lr {lr}" for lr in tried)), rows)
    return [
        "## Learning rates",
        "",
        "Chosen for each encoder by strict accuracy (percent) on the selection split, which no score of the tables "
        "above reads; one training seed.",
        "",
        _table(directory, "rates", table),
        "",
    ]


def _cost_lines(directory: Path, cells: Sequence[Mapping[str, Any]], curves: Curves) -> list[str]:
    if not cells:
        return []
    windows = sorted({str(c["loss"]["window"]) for c in cells if (c.get("loss") or {}).get("window")})
    over = f"the last {' or '.join(windows)} steps" if windows else "the last steps"
    lines = [
        "## Convergence and cost",
        "",
        f"Final loss is the mean over {over} ± their standard deviation, never the last step alone; the last step and "
        "the lowest one stand beside it for those who compare with tables that give them. Peak memory "
        "is what the cell's process held at most while at work on it; with ≤ it may be an earlier cell's.",
        "",
        _table(directory, "convergence", convergence_table(cells)),
        "",
    ]
    picture = directory / "plots" / "loss.png"
    missing = plot_losses(cells, picture, curves)
    if len(missing) < len({(c.get("encoder"), c.get("condition")) for c in cells}):
        lines += ["![Smoothed training loss of every stitch](plots/loss.png)", ""]
    if missing:
        lines += [f"No metrics file, so no loss curve: {', '.join(missing)}.", ""]
    return lines


def _matching_lines(
    standings: Sequence[Standing], facts: Mapping[str, Mapping[str, Any]], notes: Mapping[str, Any]
) -> list[str]:
    compared = sorted({arm.encoder for standing in standings for arm in standing.encoders})
    sentences = not_matched(facts, compared)
    if len(compared) < 2:
        return []
    lines = ["## What is not matched", "", *(f"- {one}" for one in notes.get("not_matched_runs") or ())]
    lines += [f"- {sentence}" for sentence in sentences] or ["- Nothing known differs but the weights."]
    unchecked = [
        f"- Not checked by anybody – {name}: {', '.join(map(str, facts[name]['unchecked']))}."
        for name in compared
        if facts.get(name, {}).get("unchecked")
    ]
    licences = [
        f"{name} {facts[name]['licence']}{' (non-commercial)' if facts[name].get('non_commercial') else ''}"
        for name in compared
        if facts.get(name, {}).get("licence")
    ]
    if licences:
        lines.append(f"- Licences of the weights: {', '.join(licences)}.")
    return [*lines, *unchecked, ""]


def _input_lines(cells: Sequence[Mapping[str, Any]], notes: Mapping[str, Any]) -> list[str]:
    lines = ["## Set aside and overlap", ""]
    overlaps, by_data = inputs_of(cells, notes)
    for data, reasons in by_data.items():
        shown = ", ".join(f"{reason}: {count}" for reason, count in sorted(reasons.items()) if count)
        lines.append(f"- Inputs set aside ({data}): {shown or 'none'}.")
    for name, overlap in overlaps.items():
        text = (
            overlap if isinstance(overlap, str) else json.dumps(overlap, sort_keys=True, ensure_ascii=False)
        )
        lines.append(f"- Overlap ({name}): {text}")
    if not overlaps:
        lines.append("- Overlap of training and test pictures: not checked.")
    for name, sheet in dict(notes.get("sheets") or {}).items():
        lines.append(
            f"- Pairs of {name} to be looked at, test picture left, training picture right: [{sheet}]({sheet})"
        )
    return [*lines, ""]


def _repeat_lines(
    cells: Sequence[Mapping[str, Any]], config: Mapping[str, Any], notes: Mapping[str, Any]
) -> list[str]:
    lines = ["## How to repeat", ""]
    if notes.get("command"):
        lines += ["```", str(notes["command"]), "```", ""]
    lines.append(f"- Config hash: `{fingerprint(dict(config))}`")
    if notes.get("machine"):
        lines.append(f"- Machine: {notes['machine']}")
    if notes.get("versions"):
        versions = ", ".join(f"{name} {version}" for name, version in notes["versions"].items())
        lines.append(f"- Versions: {versions}")
    if cells:
        seeds = sorted({int(cell["seed"]) for cell in cells})
        lines.append(f"- Training seeds: {', '.join(map(str, seeds))}")
        lines.append(f"- Cells: {', '.join(f'`{h}`' for h in sorted(str(c.get('hash')) for c in cells))}")
    config_text = json.dumps(dict(config), indent=2, sort_keys=True, ensure_ascii=False, default=str)
    return [
        *lines,
        "",
        "<details><summary>Resolved config</summary>",
        "",
        "```json",
        config_text,
        "```",
        "",
        "</details>",
        "",
    ]


def _table(directory: Path, name: str, table: Table) -> str:
    """Save as CSV and return as Markdown."""
    _write(directory / "tables" / f"{name}.csv", table.csv())
    return table.markdown()


def _write(path: Path, text: str) -> None:
    with atomic_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
