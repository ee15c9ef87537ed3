"""Learning curves: accuracy against answers seen, how much of it lies under the curve, how soon a level is reached."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, pairwise
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float
from scipy.special import stdtrit

from sutura.compare.curve_log import CURVE, SELECTION, read_points
from sutura.compare.scores import Answers, Arm, Scores
from sutura.compare.statistics import CONFIDENCE, Difference, accuracy, holm, paired
from sutura.compare.tables import Table, gap_cell, score_cell
from sutura.core.errors import UserError

#: How far the best end must lie above the blind run's for a level between them to mean anything.
WORTH = 0.04


@dataclass(frozen=True, slots=True, eq=False)
class Curve:
    """One cell's curve.

    Args:
        answers: seen at each point, from 0.
        right: 1 where an item was answered exactly right.
        items: ids of the questions.
        pictures: that each of them is about.
    """

    arm: Arm
    seed: int
    answers: Float[np.ndarray, "points"]
    right: Float[np.ndarray, "points items"]
    items: tuple[str, ...]
    pictures: tuple[str, ...]

    @property
    def accuracy(self) -> Float[np.ndarray, "points"]:
        """Share of right answers at each point, 0 to 1."""
        return self.right.mean(1)


@dataclass(frozen=True, slots=True, eq=False)
class Curves:
    """The curves of a comparison, over the same questions and seeds for every arm.

    Args:
        of: arm → its curves, by seed.
        notes: what was left out, in sentences.
    """

    of: dict[Arm, tuple[Curve, ...]]
    notes: tuple[str, ...] = ()

    @property
    def seeds(self) -> tuple[int, ...]:
        """Training seeds, ascending."""
        return tuple(curve.seed for curve in next(iter(self.of.values()), ()))

    @property
    def encoders(self) -> tuple[Arm, ...]:
        """Arms that saw pictures, largest area first."""
        scores = area_scores(self)
        seen = [arm for arm in self.of if arm.condition == "picture"]
        return tuple(sorted(seen, key=lambda arm: (-float(scores.arms[arm].values.mean()), arm)))

    @property
    def end(self) -> float:
        """Answers seen where the shortest curve ends; areas reach that far."""
        return min(float(curve.answers[-1]) for curves in self.of.values() for curve in curves)


def read_curves(cells: Sequence[Mapping[str, Any]]) -> Curves:
    """The curves that lie beside cells' metrics; cells without one are passed over.

    Seeds that not every arm has, and questions that not every curve holds, are left out and said.
    """
    found: list[Curve] = []
    for cell in cells:
        where = cell.get("metrics_path")
        if where and (curve := read_curve(Path(where).with_name(CURVE), cell)) is not None:
            found.append(curve)
    if not found:
        return Curves({})
    notes = []
    shared = set.intersection(*(set(curve.items) for curve in found))
    most = max(len(curve.items) for curve in found)
    if not shared:
        return Curves({}, ("The learning curves of these cells have no question in common; none is shown.",))
    if len(shared) < most:
        notes.append(f"{most - len(shared)} of {most} questions are left out: not every curve holds them.")
    arms = sorted({curve.arm for curve in found})
    seeds = set.intersection(*({c.seed for c in found if c.arm == arm} for arm in arms))
    if not seeds:
        return Curves({}, ("No training seed has a learning curve of every stitch; none is shown.",))
    if gone := sorted({curve.seed for curve in found} - seeds):
        notes.append(f"Seeds {gone} are left out: not every stitch has a curve of them.")
    kept = [_only(curve, shared) for curve in sorted(found, key=lambda c: c.seed) if curve.seed in seeds]
    return Curves({arm: tuple(c for c in kept if c.arm == arm) for arm in arms}, tuple(notes))


def read_curve(path: Path, cell: Mapping[str, Any]) -> Curve | None:
    """One cell's curve; None where there is no file, or no point behind the first.

    Raises:
        UserError: points that are no curve's: other questions at one than at another, or answers that do not grow.
    """
    points = read_points(path)
    if len(points) < 2:
        return None
    try:
        answers = np.array([point["answers"] for point in points], dtype=np.float64)
        right = np.array([[float(digit) for digit in point["right"]] for point in points])
        items, pictures = tuple(points[0]["items"]), tuple(points[0]["pictures"])
        whole = len(items) == len(pictures) == len(set(items)) == right.shape[1] and answers[0] == 0
        if not whole or (np.diff(answers) <= 0).any():
            raise ValueError
    except (KeyError, TypeError, ValueError, IndexError):
        raise UserError(
            f"{path} is no learning curve as a cell writes it (at every point a digit for each of the same questions, "
            "answers growing from 0). It was changed by another hand; remove the folder and run the comparison again."
        ) from None
    return Curve(
        Arm(str(cell["encoder"]), str(cell["condition"])), int(cell["seed"]), answers, right, items, pictures
    )


def _only(curve: Curve, items: set[str]) -> Curve:
    """The curve over some of its questions, sorted by their ids."""
    order = sorted((name, place) for place, name in enumerate(curve.items) if name in items)
    places = [place for _, place in order]
    names = tuple(name for name, _ in order)
    pictures = tuple(curve.pictures[place] for place in places)
    return Curve(curve.arm, curve.seed, curve.answers, curve.right[:, places], names, pictures)


def area_weights(answers: Float[np.ndarray, "points"], end: float) -> Float[np.ndarray, "points"]:
    """What each point counts in the mean height of the curve between 0 and `end` answers; they add up to 1.

    The curve is straight between its points (the trapezoid rule), and cut at `end` where it goes on.
    """
    weights = np.zeros_like(answers)
    for k, (left, right) in enumerate(pairwise(answers)):
        if left >= end:
            break
        reach = (min(right, end) - left) / (right - left)  # share of this piece that lies before the end
        width = reach * (right - left)
        weights[k] += width * (1 - reach / 2)
        weights[k + 1] += width * reach / 2
    return weights / end


def area_scores(curves: Curves) -> Scores:
    """The area under each question's own curve, 0 to 1: what the statistics of any other score are computed on.

    The area is a weighted mean over points, so that of the accuracy is the mean of the questions'.
    """
    return _scores(curves, "area", lambda curve: area_weights(curve.answers, curves.end) @ curve.right)


def end_scores(curves: Curves) -> Scores:
    """Right answers at the last point."""
    return _scores(curves, "exact", lambda curve: curve.right[-1])


def _scores(curves: Curves, metric: str, value: Any) -> Scores:
    first = next(iter(curves.of.values()))[0]
    _, pictures = np.unique(first.pictures, return_inverse=True)
    places = np.arange(len(first.items))
    arms = {
        arm: Answers(curves.seeds, places, np.stack([value(curve) for curve in members]), 0)
        for arm, members in curves.of.items()
    }
    kinds = np.zeros(len(places), dtype=np.int64)
    return Scores(SELECTION, metric, arms, list(first.items), pictures.astype(np.int64), ("",), kinds)


def answers_to_reach(curve: Curve, level: float) -> float | None:
    """Answers seen when the curve first comes to a level and is there at the next point too; None if it never does.

    Between two points the curve is straight. At the last point there is no next one to ask. One lucky point does not
    count, yet with few questions a curve near the level still crosses it by chance.

    Args:
        level: accuracy, 0 to 1.
    """
    height = curve.accuracy
    above = height >= level - 1e-12
    for k in range(len(height)):
        if above[k] and above[min(k + 1, len(height) - 1)]:
            if k == 0:
                return float(curve.answers[0])
            share = (level - height[k - 1]) / (height[k] - height[k - 1]) if not above[k - 1] else 0.0
            return float(curve.answers[k - 1] + share * (curve.answers[k] - curve.answers[k - 1]))
    return None


def choose_level(curves: Curves) -> float | None:
    """Halfway between the blind run's end (else the start) and the best end, in whole percent; None if close."""
    ends = {arm: float(np.mean([c.accuracy[-1] for c in members])) for arm, members in curves.of.items()}
    starts = [c.accuracy[0] for members in curves.of.values() for c in members]
    blind = [end for arm, end in ends.items() if arm.condition == "blind"]  # a merged report renames it
    low = blind[0] if blind else float(np.mean(starts))
    seen = [end for arm, end in ends.items() if arm.condition == "picture"]
    if not seen or max(seen) - low < WORTH:
        return None
    return round((max(seen) + low) / 2, 2)


@dataclass(frozen=True, slots=True)
class Speed:
    """How many answers `a` needs for what `b` needs one.

    Args:
        ratio: geometric mean over the seeds in which both reach the level; None where there is none.
        low, high: at 95 %, from the seeds' spread (t on logarithms); None with fewer than two such seeds.
        seeds: in which both reached it.
        of: seeds in all.
    """

    ratio: float | None
    low: float | None
    high: float | None
    seeds: int
    of: int


def speed(a: Sequence[Curve], b: Sequence[Curve], level: float) -> Speed:
    """Convergence of two stitches, seed by seed; seeds in which one of them does not reach the level are counted."""
    pairs = [(answers_to_reach(x, level), answers_to_reach(y, level)) for x, y in zip(a, b, strict=True)]
    logs = np.array([np.log(x / y) for x, y in pairs if x and y])
    if not len(logs):
        return Speed(None, None, None, 0, len(pairs))
    ratio = float(np.exp(logs.mean()))
    if len(logs) < 2:
        return Speed(ratio, None, None, 1, len(pairs))
    half = float(stdtrit(len(logs) - 1, (1 + CONFIDENCE) / 2) * logs.std(ddof=1) / len(logs) ** 0.5)
    return Speed(ratio, ratio * float(np.exp(-half)), ratio * float(np.exp(half)), len(logs), len(pairs))


def levels_of(curves: Curves, given: Sequence[float] = ()) -> tuple[float, ...]:
    """The levels that tables tell of: those given, else one that is chosen."""
    chosen = choose_level(curves) if not given else None
    return tuple(given) or ((chosen,) if chosen is not None else ())


def curves_table(curves: Curves, levels: Sequence[float] = ()) -> Table:
    """A row a stitch: where it ends, the area under its curve, answers needed for each level (mean ± sd over seeds)."""
    ends, areas = end_scores(curves), area_scores(curves)
    rest = [arm for arm in curves.of if arm not in curves.encoders]
    rows = []
    for arm in (*curves.encoders, *rest):
        cells = [score_cell(accuracy(ends, arm)), score_cell(accuracy(areas, arm))]
        cells += [_reached(curves.of[arm], level) for level in levels]
        rows.append((arm.label, str(len(curves.of[arm])), *cells))
    told = (f"answers to reach {100 * level:.0f} %" for level in levels)
    return Table(("stitch", "seeds", "at the end % [95 %]", "area % [95 %]", *told), tuple(rows))


def _reached(members: Sequence[Curve], level: float) -> str:
    found = [n for curve in members if (n := answers_to_reach(curve, level)) is not None]
    if not found:
        return "not reached"
    text = f"{np.mean(found):,.0f}"
    if len(found) > 1:
        text += f" ± {np.std(found, ddof=1):,.0f}"
    return text if len(found) == len(members) else f"{text} ({len(found)} of {len(members)} seeds)"


def area_pairs(curves: Curves) -> dict[tuple[Arm, Arm], Difference]:
    """Differences of areas between encoders, the larger first; Holm-adjusted over all pairs."""
    scores = area_scores(curves)
    pairs = list(combinations(curves.encoders, 2))
    return dict(zip(pairs, holm([paired(scores, a, b) for a, b in pairs]), strict=True))


def speed_table(curves: Curves, levels: Sequence[float] = ()) -> Table:
    """A row a pair of encoders: difference of areas, and how many times the answers the first needs for each level."""
    rows = []
    for (a, b), gap in area_pairs(curves).items():
        p = (
            "–"
            if gap.p_adjusted is None
            else f"{gap.p_adjusted:.3f}"
            if gap.p_adjusted >= 0.001
            else "< 0.001"
        )
        ratios = [_ratio(speed(curves.of[a], curves.of[b], level)) for level in levels]
        rows.append((f"{a.label} − {b.label}", gap_cell(gap), p, *ratios))
    told = (f"answers to reach {100 * level:.0f} %, ratio [95 %]" for level in levels)
    return Table(("pair", "area, points [95 %]", "p (Holm)", *told), tuple(rows))


def _ratio(found: Speed) -> str:
    if found.ratio is None:
        return "not reached by both"
    text = f"{found.ratio:.2f}"
    if found.low is not None and found.high is not None:
        text += f" [{found.low:.2f}, {found.high:.2f}]"
    return text if found.seeds == found.of else f"{text} ({found.seeds} of {found.of} seeds)"


def plot_curves(curves: Curves, path: Path, levels: Sequence[float] = ()) -> None:
    """Accuracy against answers seen: mean over seeds, band from the lowest to the highest; levels as thin lines."""
    from sutura.compare.plots import COLOURS, STYLES, new_axes, save_figure

    figure, axes = new_axes(7.2, 4.2)
    rest = [arm for arm in curves.of if arm not in curves.encoders]
    for number, arm in enumerate((*curves.encoders, *rest)):
        members = curves.of[arm]
        grid = members[0].answers
        heights = 100 * np.stack([np.interp(grid, c.answers, c.accuracy) for c in members])
        colour, style = COLOURS[number % len(COLOURS)], STYLES[number % len(STYLES)]
        axes.plot(grid, heights.mean(0), style, marker="o", markersize=3, color=colour, label=arm.label)
        if len(members) > 1:
            axes.fill_between(grid, heights.min(0), heights.max(0), color=colour, alpha=0.15, linewidth=0)
    for level in levels:
        axes.axhline(100 * level, color="#555555", linewidth=0.8, linestyle=":")
    axes.set_xlabel("training answers seen")
    axes.set_ylabel("exact accuracy in %, selection split")
    axes.grid(alpha=0.3)
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=3)
    save_figure(figure, path)
