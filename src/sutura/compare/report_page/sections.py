"""The parts of the page that hold results: verdict, accuracy, differences, families, learning, cost."""

from __future__ import annotations

from markupsafe import Markup

from sutura.compare.matching import not_matched, trains_encoder
from sutura.compare.report_page.bars import accuracy_bars
from sutura.compare.report_page.cost import cost_figures
from sutura.compare.report_page.curves import loss_figure
from sutura.compare.report_page.forest import forest
from sutura.compare.report_page.heat import heat
from sutura.compare.report_page.markup import Section, bullets, figure, folded, join, paragraph, table, tag
from sutura.compare.report_page.view import View
from sutura.compare.standing import Standing
from sutura.compare.summary import summary
from sutura.compare.tables import (
    accuracy_table,
    convergence_table,
    metrics_table,
    pairs_table,
    types_table,
)
from sutura.compare.verdict import listing, percent, verdict
from sutura.evals.benchmarks import BENCHMARKS
from sutura.evals.ledger import SCORES, of_benchmark

#: Benchmarks whose figures are all open at first.
OPEN = 3


def verdict_section(view: View) -> Section:
    """What came out, a card a benchmark; what else the controls say behind it."""
    cards = []
    for standing in view.standings:
        sentences, whole = summary(standing), verdict(standing)
        rest = [sentence for sentence in whole if sentence not in sentences]
        cards.append(
            tag(
                "div",
                tag("p", tag("small", standing.scores.benchmark)),
                paragraph(sentences[0], class_="lead"),
                *(paragraph(sentence) for sentence in sentences[1:]),
                folded("What the controls say", bullets(rest)) if rest else None,
                class_="card verdict",
            )
        )
    cautions: list[object] = []
    if any(s.startswith("Not matched") for s in not_matched(view.facts, view.compared)):
        cautions.append(
            join(
                [
                    "The encoders differ in more than their training: see ",
                    tag("a", "what is not matched", href="#matching"),
                    ".",
                ]
            )
        )
    if view.notes.get("broken_rules"):
        cautions.append(join(["This run breaks house rules: see ", tag("a", "which", href="#rules"), "."]))
    if names := trains_encoder(view.cells):
        cautions.append(
            f"{listing(names)}: trained along with the stitch, so these rows do not isolate the encoder."
        )
    cautions += [*view.left_out, *view.notes.get("remarks", ())]
    return Section("verdict", "Verdict", join([*cards, _cautions(cautions)]))


def _cautions(sentences: list[object]) -> Markup | None:
    if not sentences:
        return None
    return tag("div", tag("strong", "Read with it"), bullets(sentences), class_="caution")


def accuracy_section(view: View) -> Section:
    """Bars with floors and ceilings, benchmark by benchmark."""
    return Section("accuracy", "Accuracy", join(_accuracy(view, standing) for standing in view.standings))


def _accuracy(view: View, standing: Standing) -> Markup:
    name = standing.scores.benchmark
    notes = []
    if name in BENCHMARKS:
        row = BENCHMARKS.get(name)
        floors = [f"{floor.kind} {percent(floor.score)} ({floor.source})" for floor in row.floors]
        notes = [row.note, f"Published floors: {'; '.join(floors)}." if floors else ""]
    excluded = max(estimate.excluded for estimate in standing.estimates.values())
    text = f"{standing.scores.metric} score in %, best first; the line on a bar is the 95 % interval, clustered by "
    text += "picture and, with several seeds, over training seeds too."
    if excluded:
        text += f" {excluded} items to which the metric does not apply are left out."
    behind = table(accuracy_table(standing, view.facts), caption=f"Accuracy on {name}")
    star = paragraph("* p < 0.05 against every control, after Holm's correction.", class_="hint")
    said = " ".join(note for note in notes if note)
    return join(
        [
            tag("h3", name),
            paragraph(said, class_="hint") if said else None,
            figure(accuracy_bars(standing), title="Accuracy.", text=text, behind=[behind, star]),
        ]
    )


def differences_section(view: View) -> Section | None:
    """Forest of paired differences, and how encoders rank."""
    parts: list[Markup] = []
    for standing in view.standings:
        drawn = forest(standing)
        if not drawn:
            continue
        behind = [table(pairs_table(standing), caption="Encoder against encoder")] if standing.pairs else []
        text = "Paired over items and seeds, in points with 95 % intervals; a filled mark is p < 0.05 after Holm's "
        text += "correction within its group, a hollow one is no difference shown."
        shown = figure(drawn, title="Paired differences.", text=text, behind=behind)
        parts.append(_under(view, standing, shown))
    parts += view.extra("ranking")
    return Section("differences", "Differences", join(parts)) if parts else None


def families_section(view: View) -> Section | None:
    """Heat map of question families."""
    parts = []
    for standing in view.standings:
        if len(standing.scores.types) < 2:
            continue
        text = (
            "Accuracy in %; the columns to the right are floors and ceiling. Small families are noisy: the "
        )
        text += "intervals stand in the table behind."
        behind = table(types_table(standing), caption="With 95 % intervals", words=1)
        shown = figure(heat(standing), title="Question families.", text=text, behind=[behind])
        parts.append(_under(view, standing, shown))
    return Section("families", "Families", join(parts)) if parts else None


def _under(view: View, standing: Standing, shown: Markup) -> Markup:
    """A benchmark's figure under its name; where benchmarks are many, all but the first are folded away."""
    name = standing.scores.benchmark
    if len(view.standings) > OPEN and standing is not view.standings[0]:
        return folded(name, shown)
    return join([tag("h3", name), shown])


def curves_section(view: View) -> Section | None:
    """Learning curves."""
    if not view.cells and not view.extra("curves"):
        return None
    return Section(
        "curves", "Learning", join([loss_figure(view.curves, _order(view)), *view.extra("curves")])
    )


def _order(view: View) -> list[str]:
    """Names of stitches in the order of the first benchmark, so that a colour is one encoder in every figure."""
    first = view.standings[0]
    return [arm.label for arm in (*first.encoders, *first.untrained)]


def cost_section(view: View) -> Section | None:
    """Accuracy against cost, and the table of costs."""
    if not view.cells:
        return None
    parts: list[Markup] = []
    for standing in view.standings:
        if drawn := cost_figures(standing, view.cells):
            text = "Accuracy with its 95 % interval against what was paid for it, mean over seeds; hollow marks have "
            text += "random weights."
            shown = figure(drawn, title="What accuracy costs.", text=text)
            parts.append(_under(view, standing, shown))
    parts += view.extra("cost")
    note = "Final loss is the mean over the last steps ± their standard deviation, never the last step alone. Peak "
    note += "memory is what the cell's process held at most while at work on it; with ≤ it may be an earlier cell's."
    numbers = table(convergence_table(view.cells), caption="Convergence and cost of every stitch")
    parts.append(folded("Convergence and cost of every stitch", paragraph(note, class_="hint"), numbers))
    return Section("cost", "Cost", join(parts))


def metrics_section(view: View) -> Section:
    """Other metrics and the health of the answers."""
    parts = [
        paragraph(
            "Means in percent, without intervals. lenient counts a prediction that contains the reference; empty and "
            "unstopped are shares of answers without text and without a stop token.",
            class_="hint",
        )
    ]
    for standing in view.standings:
        name = standing.scores.benchmark
        here = of_benchmark(view.frame, name)
        metrics = [metric for metric in SCORES if here[metric].null_count() < len(here)]
        shown = table(metrics_table(view.frame, name, metrics), caption=f"Every metric on {name}")
        parts.append(folded(name, shown, open_=len(view.standings) == 1))
    return Section("metrics", "Other metrics", join([*parts, *view.extra("metrics")]), "Metrics")
