"""What encoders cost, and which of them are worth it: accuracy against each cost, with what the data show."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, stdev
from typing import Any, Literal

from sutura.compare.matching import CLOSE, count_words
from sutura.compare.scores import Arm
from sutura.compare.standing import Standing
from sutura.compare.statistics import Estimate
from sutura.compare.tables import Table, score_cell

Cell = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Cost:
    """One kind of cost, less is better.

    Args:
        title: for tables, with its unit.
        read: a cell → its value; None where the cell does not know it.
        show: the mean over a stitch's cells as text.
        measured: whether every cell times or weighs it, so that it has a spread.
    """

    title: str
    read: Callable[[Cell], float | None]
    show: Callable[[float], str]
    measured: bool = False

    @property
    def close(self) -> float:
        """Costs closer than this share of the larger count as equal."""
        return CLOSE_TIMES if self.measured else CLOSE


def _fact(name: str) -> Callable[[Cell], float | None]:
    return lambda cell: _number((cell.get("encoder_facts") or {}).get(name))


def _cost(*names: str) -> Callable[[Cell], float | None]:
    """The sum of some of a cell's costs; None where one of them is missing."""

    def read(cell: Cell) -> float | None:
        values = [_number((cell.get("cost") or {}).get(name)) for name in names]
        known = [value for value in values if value is not None]
        return sum(known) if len(known) == len(values) else None

    return read


def _number(value: Any) -> float | None:
    return None if value is None else float(value)


COSTS: dict[str, Cost] = {
    "params": Cost("encoder parameters", _fact("params"), lambda n: count_words(round(n))),
    "flops": Cost("GFLOP a picture", _cost("flops"), lambda n: f"{n / 1e9:.3g}"),
    "tokens": Cost("picture tokens", _fact("num_tokens"), lambda n: f"{n:.0f}"),
    "encode_ms": Cost("encode a picture, ms", _cost("encode_ms"), lambda n: f"{n:.1f}"),  # once an encoder
    "answer_ms": Cost("answer, ms", _cost("answer_ms"), lambda n: f"{n:.1f}", measured=True),
    "latency": Cost(
        "picture to answer, ms", _cost("encode_ms", "answer_ms"), lambda n: f"{n:.1f}", measured=True
    ),
    "memory": Cost(
        "peak MB", lambda cell: _number(cell.get("peak_memory_mb")), lambda n: f"{n:,.0f}", measured=True
    ),
    "training": Cost(
        "training, s",
        lambda cell: _number((cell.get("seconds") or {}).get("train")),
        lambda n: f"{n:,.0f}",
        measured=True,
    ),
    "gpu": Cost("GPU peak MB", _cost("gpu_peak_mb"), lambda n: f"{n:,.0f}", measured=True),
}
#: Times closer than this share are the same: cells share the machine with each other.
CLOSE_TIMES = 0.25
#: Costs that places are worked out for in a report. Times are not among them: the same work was measured at 14 and at
#: 33 ms in cells of one busy machine (docs/results/layers.md).
WEIGHED = ("flops", "params", "tokens")


def costs_of(cells: Sequence[Cell], kind: str) -> dict[str, float]:
    """Encoder → the mean of one kind of cost over its cells; those that do not know it are left out.

    Args:
        cells: what each left beside its ledger; only those that saw pictures count.
        kind: a key of COSTS.
    """
    values: dict[str, list[float]] = {}
    for cell in cells:
        value = COSTS[kind].read(cell) if cell.get("condition") == "picture" else None
        if value is not None:
            values.setdefault(str(cell["encoder"]), []).append(value)
    return {name: fmean(found) for name, found in values.items()}


def cost_table(cells: Sequence[Cell]) -> Table:
    """A row a stitch: size, arithmetic, tokens, speed and memory; times as mean ± standard deviation over its cells."""
    groups: dict[Arm, list[Cell]] = {}
    for cell in cells:
        groups.setdefault(Arm(str(cell.get("encoder")), str(cell.get("condition"))), []).append(cell)
    shown = [kind for kind in COSTS if any(COSTS[kind].read(cell) is not None for cell in cells)]
    rows = []
    for arm, members in sorted(groups.items(), key=lambda group: (group[0].condition == "blind", group[0])):
        blind = arm.condition == "blind"
        speed = [_number(cell.get("answers_per_second")) for cell in members]
        known = [value for value in speed if value is not None]
        cells_ = ["–" if blind and kind in ("params", "tokens") else _shown(members, kind) for kind in shown]
        rows.append((arm.label, *cells_, f"{fmean(known):,.0f}" if known else "–"))
    return Table(("stitch", *(COSTS[kind].title for kind in shown), "trained answers/s"), tuple(rows))


def _shown(members: Sequence[Cell], kind: str) -> str:
    cost = COSTS[kind]
    values = [value for cell in members if (value := cost.read(cell)) is not None]
    if not values:
        return "–"
    text = cost.show(fmean(values))
    if kind == "memory" and any(cell.get("peak_memory_of") != "cell" for cell in members):
        return f"≤ {text}"
    return (
        f"{text} ± {cost.show(stdev(values))}"
        if cost.measured and kind != "memory" and len(values) > 1
        else text
    )


@dataclass(frozen=True, slots=True)
class Place:
    """Where an encoder stands between accuracy and one cost.

    Args:
        cost: its own.
        state: `undominated`: each encoder that costs less is shown to be less accurate, and none that costs no more is
            shown to be more accurate. `dominated`: one that costs no more is shown to be more accurate. `open`:
            neither is shown.
        by: who dominates it, or from which cheaper ones it is not shown to differ.
    """

    arm: Arm
    cost: float
    estimate: Estimate
    state: Literal["undominated", "dominated", "open"]
    by: tuple[Arm, ...] = ()


def pareto(standing: Standing, costs: Mapping[str, float], *, close: float = CLOSE) -> list[Place]:
    """Every trained encoder's place, cheapest first. "Shown" is the paired difference after Holm's correction.

    Args:
        standing: of a benchmark.
        costs: encoder → cost; encoders without one are left out.
        close: costs closer than this share of the larger count as equal; pooling to fewer tokens takes a few
            operations of its own. Nothing is dominated by what takes over 5 % more, however wide this is.
    """

    def cheaper(a: Arm, b: Arm, by: float = close) -> bool:
        return costs[a.encoder] < (1 - by) * costs[b.encoder]

    arms = [arm for arm in standing.encoders if arm.encoder in costs]
    places = []
    for arm in sorted(arms, key=lambda arm: (costs[arm.encoder], standing.encoders.index(arm))):
        others = [other for other in arms if other != arm]
        better = tuple(
            o for o in others if not cheaper(arm, o, min(close, CLOSE)) and _shown_above(standing, o, arm)
        )
        unsure = tuple(o for o in others if cheaper(o, arm) and not _shown_above(standing, arm, o))
        state = "dominated" if better else "open" if unsure else "undominated"
        places.append(Place(arm, costs[arm.encoder], standing.estimates[arm], state, better or unsure))
    return places


def _shown_above(standing: Standing, a: Arm, b: Arm) -> bool:
    gap = standing.pairs.get((a, b))
    return gap is not None and gap.shown and gap.difference > 0


def varied_costs(cells: Sequence[Cell], encoders: Sequence[str]) -> dict[str, dict[str, float]]:
    """Kinds of cost that are known of all these encoders and not the same for all: kind → encoder → cost."""
    found = {}
    for kind in WEIGHED:
        costs = {name: cost for name, cost in costs_of(cells, kind).items() if name in encoders}
        near = COSTS[kind].close
        if len(costs) == len(encoders) > 1 and min(costs.values()) < (1 - near) * max(costs.values()):
            found[kind] = costs
    return found


def pareto_table(standing: Standing, costs: Mapping[str, Mapping[str, float]]) -> Table:
    """A row an encoder, a column a kind of cost: its cost, and whether it is undominated, dominated (by whom) or open.

    Args:
        standing: of a benchmark.
        costs: as `varied_costs` gives them.
    """
    places = {
        kind: {place.arm: place for place in pareto(standing, of, close=COSTS[kind].close)}
        for kind, of in costs.items()
    }
    rows = []
    for arm in standing.encoders:
        told = (_told(kind, of[arm]) if arm in of else "–" for kind, of in places.items())
        rows.append((arm.label, score_cell(standing.estimates[arm]), *told))
    return Table(("encoder", "accuracy % [95 %]", *(COSTS[kind].title for kind in costs)), tuple(rows))


def _told(kind: str, place: Place) -> str:
    by = ", ".join(arm.label for arm in place.by)
    state = {
        "undominated": "undominated",
        "dominated": f"dominated by {by}",
        "open": f"open: not shown above {by}",
    }
    return f"{COSTS[kind].show(place.cost)} ({state[place.state]})"


def plot_pareto(standing: Standing, costs: Mapping[str, float], kind: str, path: Path) -> None:
    """Accuracy with its interval against a cost: filled where undominated, hollow where open, a cross where dominated.

    Args:
        standing, costs: as for `pareto`.
        kind: of the cost, a key of COSTS.
    """
    from sutura.compare.plots import COLOURS, new_axes, save_figure

    figure, axes = new_axes(7.2, 4.2)
    marks = {"undominated": ("o", COLOURS[0]), "open": ("o", "white"), "dominated": ("X", COLOURS[1])}
    told: set[str] = set()
    for place in pareto(standing, costs, close=COSTS[kind].close):
        found = place.estimate
        mark, face = marks[place.state]
        edge = COLOURS[1] if place.state == "dominated" else COLOURS[0]
        if found.low is not None and found.high is not None:
            axes.plot([place.cost] * 2, [100 * found.low, 100 * found.high], color=edge, alpha=0.7, zorder=2)
        label = None if place.state in told else place.state
        told.add(place.state)
        look = {"color": face, "markeredgecolor": edge, "markersize": 8, "linestyle": "", "zorder": 3}
        axes.plot(place.cost, 100 * found.mean, mark, label=label, **look)
        axes.annotate(
            place.arm.label,
            (place.cost, 100 * found.mean),
            xytext=(7, 5),
            textcoords="offset points",
            fontsize=8,
        )
    values = list(costs.values())
    if min(values) > 0 and max(values) > 20 * min(values):
        axes.set_xscale("log")
    axes.set_xlabel(COSTS[kind].title)
    axes.set_ylabel(f"{standing.scores.metric} accuracy in %, with 95 % interval")
    axes.set_title(standing.scores.benchmark)
    axes.margins(x=0.12)
    axes.grid(alpha=0.3)
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=3)
    save_figure(figure, path)
