"""The zoo's results as one page: ledgers of a comparison, configs of its encoders, and figures of probes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from sutura.compare.config import CompareConfig
from sutura.compare.publish import Comparison
from sutura.compare.report import encoder_facts, standings_of
from sutura.compare.scores import Arm, common_items, common_seeds
from sutura.compare.skills import by_family, by_skill, families_table, skills_table
from sutura.compare.standing import Standing
from sutura.compare.tables import Table, display, score_cell
from sutura.compare.verdict import listing, percent, verdict
from sutura.core.checkpoint import read_json
from sutura.core.config import Section, parse
from sutura.core.errors import UserError
from sutura.encoders import load_encoder
from sutura.encoders.catalog import zoo_folder
from sutura.evals.ledger import read_ledgers
from sutura.models.zoo_format import read_zoo_config
from sutura.train.methods import METHODS
from sutura.train.pretrain_config import PretrainConfig

#: What stands above it in the page is written by hand and kept.
MARK = "<!-- From here on this page is written by benchmarks/zoo_results.py; words of your own go above. -->"
#: By how much an encoder should be above blind and above untrained, with intervals that do not touch.
BAR = 0.10
#: What encoders of one zoo have in common; where they have not, the page says so.
_SHARED = ("args", "transform", "data", "passes", "batch", "seed", "optim")


@dataclass(frozen=True)
class Member:
    """An encoder of the page.

    Args:
        name: as the ledgers call it.
        written: its zoo folder's config.
        teacher: that of its teacher, if it had one.
    """

    name: str
    written: Mapping[str, Any]
    teacher: Mapping[str, Any] | None = None

    @property
    def supervision(self) -> str:
        """What the objective takes beside pictures."""
        objective = self.written.get("objective")
        if isinstance(objective, str) and objective in METHODS:
            return METHODS.get(objective).supervision
        return "–"


def members(comparison: Comparison) -> list[Member]:
    """The compared encoders that have a zoo folder.

    Raises:
        UserError: an encoder was trained again since the comparison, or none is of the zoo's kind.
    """
    config = parse(CompareConfig, comparison.config, where="the comparison's config")
    facts = encoder_facts(comparison.trained)
    found = []
    for row in config.encoder_rows():
        folder = _folder(row.id)
        if row.untrained_seed is not None or folder is None:
            continue
        name, now = row.display_name(), load_encoder(row).fingerprint
        if (then := facts.get(name, {}).get("fingerprint")) != now:
            raise UserError(
                f"{name}: the weights in {folder} are not those that were compared (fingerprint {now}, compared "
                f"was {then}). Run the comparison again; only its stitches are computed anew."
            )
        written = read_zoo_config(folder)
        found.append(Member(name, written, _teacher(written)))
    if not found:
        raise UserError("The comparison holds no encoder of the zoo; there is no such page to write.")
    return found


def _folder(name: str) -> Path | None:
    folder = zoo_folder(name)
    return folder if (folder / "config.json").is_file() else None


def _teacher(written: Mapping[str, Any]) -> Mapping[str, Any] | None:
    eva = written.get("config", {}).get("methods", {}).get("eva", {})
    if written.get("objective") != "eva" or eva.get("target") != "clip":
        return None
    folder = _folder(str(eva["teacher"]))
    return read_zoo_config(folder) if folder else None


def zoo_page(comparison: Comparison, zoo: Sequence[Member], probes: Sequence[Path] = ()) -> str:
    """The page's text below its mark.

    Args:
        comparison: as `read_comparison` gives it.
        zoo: as `members` gives them.
        probes: results that `sutura probe --out` wrote.

    Raises:
        UserError: ledgers that cannot be compared, or a file that is no result of probes.
    """
    frame, left_out = common_seeds(read_ledgers(comparison.ledgers))
    frame, lost = common_items(frame)
    facts, notes = encoder_facts(comparison.trained), comparison.notes
    standings = standings_of(frame, facts, notes.get("metrics") or {})
    lines = ["## What each objective gave", "", objectives_table(standings, zoo).markdown(), ""]
    lines += _about_objectives(zoo)
    for standing in standings:
        lines += [f"**{standing.scores.benchmark}.** {bar_sentence(standing)}", ""]
        lines += [f"- {sentence}" for sentence in verdict(standing)]
        lines += [""]
    lines += [*(f"- {sentence}" for sentence in (*left_out, *lost)), ""]
    for standing in standings:
        lines += _skill_lines(frame, facts, standing)
    lines += ["## Who saw how many pictures", "", passes_table(zoo).markdown(), ""]
    for path in probes:
        lines += probe_lines(path)
    lines += _repeat_lines(comparison)
    return "\n".join(lines).rstrip() + "\n"


def write_page(path: Path, text: str, title: str = "# The zoo compared") -> None:
    """Put the text below the mark of a page, which is made where there is none; what is above stays."""
    above = path.read_text(encoding="utf-8") if path.is_file() else f"{title}\n\n{MARK}\n"
    head, mark, _ = above.partition(MARK)
    if not mark:
        raise UserError(f"{path.name} has no line {MARK!r}, so what is written by hand in it is not known.")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"{head}{MARK}\n\n{text}", encoding="utf-8")


def objectives_table(standings: Sequence[Standing], zoo: Sequence[Member]) -> Table:
    """Encoders, best first, with what was read off them, how stitches answered, and what they cost."""
    by_name = {member.name: member for member in zoo}
    first = standings[0]
    bare = [*first.untrained, *first.floors, *([first.ceiling] if first.ceiling else [])]
    rows = []
    for arm in (*first.encoders, *bare):
        scores = [score_cell(s.estimates[arm]) if arm in s.estimates else "–" for s in standings]
        member = by_name.get(arm.encoder) if arm in first.encoders else None
        if member is not None:
            before = _shown(member.teacher.get("operations"), 1e12) if member.teacher else "no teacher"
            told = (member.supervision, _probe(member.written.get("probe")), _rank(member.written))
            cost = (_shown(member.written.get("operations"), 1e12), before)
        else:
            blank = _probe(_untrained_probe(zoo)) if arm in first.untrained else "–"
            told, cost = ("–", blank, "–"), ("–", "–")
        name = display(first, arm)
        rows.append((name if arm.condition == "picture" else f"*{name}*", *told, *scores, *cost))
    columns = (
        "encoder",
        "needs",
        "linear probe, mAP % [95 %]",
        "effective rank",
        *(f"stitch on {standing.scores.benchmark}, % [95 %]" for standing in standings),
        "arithmetic, TFLOP",
        "its teacher's before",
    )
    return Table(columns, tuple(rows))


def _probe(facts: Mapping[str, Any] | None) -> str:
    if not facts:
        return "–"
    return f"{100 * facts['score']:.1f} [{100 * facts['low']:.1f}, {100 * facts['high']:.1f}]"


def _untrained_probe(zoo: Sequence[Member]) -> Mapping[str, Any] | None:
    """The probe before the first step: one for all, as they start from the same weights."""
    found = [member.written.get("untrained_probe") for member in zoo]
    return found[0] if found and all(one == found[0] for one in found) else None


def _rank(written: Mapping[str, Any]) -> str:
    value = (written.get("ranks") or {}).get("effective_rank")
    return "–" if value is None else f"{value:.1f}"


def _shown(value: float | None, unit: float) -> str:
    return "not recorded" if value is None else f"{value / unit:,.0f}"


def _about_objectives(zoo: Sequence[Member]) -> list[str]:
    """What the columns are; what encoders do not share although a comparison of objectives needs it."""
    probe = next((m.written["probe"] for m in zoo if m.written.get("probe")), None)
    lines = []
    if probe is not None:
        lines += [
            f"The probe is a linear one on averaged patches, fitted on {probe['fitted']:,} pictures that nobody "
            f"trained on and scored on {probe['scored']:,} others ({probe['labels']} labels of shape × colour; "
            f"constant features score {percent(probe['base_rate'])}), on one set of weights. Stitches are scored "
            "over training seeds and pictures. Arithmetic is that of pretraining, forward and backward, all parts "
            "of the method; the teacher's own training stands beside it.",
            "",
        ]
    unlike = [what for what in _SHARED if len({str(_setting(member, what)) for member in zoo}) > 1]
    if unlike:
        lines += [f"**The encoders differ in more than their objective: {listing(unlike)}.**", ""]
    return lines


def _setting(member: Member, what: str) -> Any:
    """What a card's config says; a setting that came later stands at its default."""
    found = member.written.get(what, member.written.get("config", {}).get(what))
    field = PretrainConfig.model_fields.get(what)
    kind = None if field is None else field.annotation
    if isinstance(found, Mapping) and isinstance(kind, type) and issubclass(kind, Section):
        return parse(kind, found, where=f"the config of {member.name}").resolved()
    return found


def bar_sentence(standing: Standing) -> str:
    """Whether an encoder is well above blind and untrained, with intervals that do not touch."""
    blind = [arm for arm in standing.floors if arm.condition == "blind"]
    below = [*blind[:1], *standing.untrained[:1]]
    if not standing.encoders or len(below) < 2:
        return "Blind and untrained runs do not both stand beside these scores."
    clear = [arm for arm in standing.encoders if all(_clear(standing, arm, other) for other in below)]
    points = f"{100 * BAR:.0f} points"
    shown = [score_cell(standing.estimates[arm]) for arm in below]
    what = f"above blind ({shown[0]}) and untrained ({shown[1]})"
    if clear:
        names = listing([arm.label for arm in clear])
        return f"At least {points} {what}, with intervals that do not touch: {names}."
    best = standing.encoders[0]
    gaps = [f"{100 * (standing.estimates[best].mean - standing.estimates[o].mean):+.1f}" for o in below]
    return (
        f"No encoder is {points} {what} with intervals that do not touch; the best, {best.label}, is "
        f"{gaps[0]} and {gaps[1]} away."
    )


def _clear(standing: Standing, arm: Arm, other: Arm) -> bool:
    high, low = standing.estimates[arm], standing.estimates[other]
    if high.low is None or low.high is None:
        return False
    return high.mean - low.mean >= BAR and high.low > low.high


def passes_table(zoo: Sequence[Member]) -> Table:
    """A row for everybody who saw pictures."""
    rows = []
    for member in zoo:
        seen = member.written.get("passes_by") or {"encoder": member.written.get("passes")}
        rows += [(member.name, who, "–" if n is None else f"{n:,}") for who, n in seen.items()]
    return Table(("encoder", "who", "passes"), tuple(rows))


def _skill_lines(
    frame: pl.DataFrame, facts: Mapping[str, Mapping[str, Any]], standing: Standing
) -> list[str]:
    name, metric = standing.scores.benchmark, standing.scores.metric
    skills = by_skill(frame, facts, name, metric)
    families = by_family(frame, facts, name, metric)
    return [
        f"## Which counts, which names, which places: {name}",
        "",
        skills_table(skills).markdown(),
        "",
        "Points are differences to the highest. A difference is *shown* when p < 0.05 after Holm's correction over "
        "the pairs of encoders within the skill; there is no further correction over the skills. *Above the floor* "
        "is the paired difference to the floor whose lower bound is lowest; * marks p < 0.05 against every floor.",
        "",
        families_table(families, standing).markdown(),
        "",
        "In bold: the highest of a family and those not shown to differ from it, as far as they are shown to be above "
        "blind and the most frequent answer; no bold where nobody is.",
        "",
    ]


def probe_lines(path: Path) -> list[str]:
    """Figures that `sutura probe --out` wrote, encoders × probes. Raises UserError for another file."""
    saved = read_json(path)
    if not isinstance(saved, dict) or not {"about", "rows"} <= set(saved) or not saved["rows"]:
        raise UserError(f"{path} is no result of probes; write one with sutura probe --out {path.name}.")
    rows, about = saved["rows"], saved["about"]
    kinds = list(dict.fromkeys(row["probe"] for row in rows))
    names = list(dict.fromkeys(row["encoder"] for row in rows))
    cells = {(row["encoder"], row["probe"]): _probe(row) for row in rows}
    table = Table(
        ("encoder", *kinds),
        tuple((name, *(cells.get((name, kind), "–") for kind in kinds)) for name in names),
    )
    first = rows[0]
    return [
        f"## Probes on {about['data']}",
        "",
        table.markdown(),
        "",
        f"{first['metric']} in percent with 95 % intervals on {first['n']:,} test pictures; {first['base_of']} scores "
        f"{percent(first['base'])}. One set of weights an encoder. {' '.join(about.get('notes') or ())}".strip(),
        "",
    ]


def _repeat_lines(comparison: Comparison) -> list[str]:
    notes = comparison.notes
    seeds = sorted({int(cell["seed"]) for cell in comparison.trained})
    lines = ["## Repeat", ""]
    if notes.get("command"):
        lines += ["```", str(notes["command"]), "```", ""]
    lines += [f"- Machine: {notes['machine']}"] if notes.get("machine") else []
    if notes.get("versions"):
        lines += ["- Versions: " + ", ".join(f"{k} {v}" for k, v in notes["versions"].items())]
    lines += [f"- Training seeds: {', '.join(map(str, seeds))}"]
    for name, found in dict(notes.get("overlap") or {}).items():
        lines += [f"- Overlap ({name}): {found}"]
    return [*lines, f"- {len(comparison.cells)} cells", ""]
