"""Pictures of a report: accuracy against its floors, paired differences, question types, loss curves.

Each is written as PNG and, beside it, as SVG; colour-blind safe, and the same input gives the same bytes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float

from sutura.compare.scores import Arm
from sutura.compare.standing import Standing
from sutura.compare.tables import display, shown_arms, type_estimate, type_groups
from sutura.core.checkpoint import atomic_file
from sutura.core.log import read_metrics

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

#: Okabe and Ito's palette, told apart under the common colour-vision deficiencies; line styles repeat it.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
STYLES = ("-", "--", "-.", ":")
_CONTROL = {
    "blind": "#D55E00",
    "majority": "#E69F00",
    "majority-overall": "#999999",
    "text-ceiling": "#009E73",
}
#: Points a loss curve is drawn with at most, and the share of the run it is smoothed over.
POINTS = 200
SMOOTHED = 0.04


def plot_accuracy(standing: Standing, path: Path) -> None:
    """A dot and interval an encoder; floors and ceiling as bands, the wrong picture as a hollow dot."""
    arms = [*standing.encoders, *standing.untrained]
    figure, axes = new_axes(7.2, 1.6 + 0.42 * max(len(arms), 2))
    for arm in (*standing.floors, *([standing.ceiling] if standing.ceiling else [])):
        estimate, colour = standing.estimates[arm], _CONTROL[arm.condition]
        axes.axvline(100 * estimate.mean, color=colour, linestyle="--", linewidth=1.4, label=arm.label)
        if estimate.low is not None and estimate.high is not None:
            axes.axvspan(100 * estimate.low, 100 * estimate.high, color=colour, alpha=0.12, linewidth=0)
    for row, arm in enumerate(arms):
        _dot(axes, standing, arm, row, filled=arm in standing.encoders)
        wrong = standing.estimates.get(Arm(arm.encoder, "wrong-picture"))
        if wrong is not None:
            label = "wrong picture" if row == 0 else None
            axes.plot(
                100 * wrong.mean, row, "D", color="white", markeredgecolor="#555555", label=label, zorder=3
            )
    axes.set_yticks(range(len(arms)), [display(standing, arm) for arm in arms])
    axes.set_ylim(len(arms) - 0.4, -0.6)
    axes.set_xlabel(f"{standing.scores.metric} accuracy in %, with 95 % interval")
    axes.set_title(standing.scores.benchmark)
    axes.grid(axis="x", alpha=0.3)
    if axes.get_legend_handles_labels()[0]:
        axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.62 / figure.get_figheight() - 0.08), ncols=3)
    save_figure(figure, path)


def _dot(axes: Axes, standing: Standing, arm: Arm, row: int, *, filled: bool) -> None:
    estimate = standing.estimates[arm]
    if estimate.low is not None and estimate.high is not None:
        axes.plot(
            [100 * estimate.low, 100 * estimate.high], [row, row], color=COLOURS[0], linewidth=2, zorder=2
        )
    face = COLOURS[0] if filled else "white"
    axes.plot(100 * estimate.mean, row, "o", color=face, markeredgecolor=COLOURS[0], markersize=8, zorder=4)


def plot_types(standing: Standing, path: Path) -> None:
    """Accuracy per question type, as shades with the number written in."""
    arms = shown_arms(standing)
    groups = type_groups(standing.scores)
    shares = np.full((len(groups), len(arms)), np.nan)
    for i, types in enumerate(groups.values()):
        for j, arm in enumerate(arms):
            estimate = type_estimate(standing.scores, arm, types)
            shares[i, j] = np.nan if estimate is None else 100 * estimate.mean
    figure, axes = new_axes(2.6 + 0.85 * len(arms), 1.5 + 0.34 * len(groups))
    image = axes.imshow(shares, cmap="cividis", vmin=0, vmax=100, aspect="auto")
    for (i, j), value in np.ndenumerate(shares):
        if not np.isnan(value):
            ink = "black" if value > 55 else "white"
            axes.text(j, i, f"{value:.0f}", ha="center", va="center", color=ink, fontsize=8)
    axes.set_xticks(range(len(arms)), [arm.label for arm in arms], rotation=35, ha="right")
    axes.set_yticks(range(len(groups)), list(groups))
    axes.set_title(f"{standing.scores.benchmark}: {standing.scores.metric} accuracy in %")
    figure.colorbar(image, ax=axes, fraction=0.04, pad=0.02)
    save_figure(figure, path)


def plot_pairs(standing: Standing, path: Path) -> None:
    """A line an interval of each paired difference between encoders; hollow where no difference is shown."""
    gaps = list(standing.pairs.values())
    figure, axes = new_axes(7.2, 1.2 + 0.3 * len(gaps))
    for row, gap in enumerate(gaps):
        if gap.low is not None and gap.high is not None:
            axes.plot([100 * gap.low, 100 * gap.high], [row, row], color=COLOURS[0], linewidth=2, zorder=2)
        face = COLOURS[0] if gap.shown else "white"
        axes.plot(100 * gap.difference, row, "s", color=face, markeredgecolor=COLOURS[0], zorder=3)
    axes.axvline(0, color="black", linewidth=1)
    axes.set_yticks(range(len(gaps)), [f"{gap.a.label} − {gap.b.label}" for gap in gaps])
    axes.set_ylim(len(gaps) - 0.4, -0.6)
    axes.set_xlabel("difference in points, with 95 % interval; filled: p < 0.05 after Holm's correction")
    axes.set_title(standing.scores.benchmark)
    axes.grid(axis="x", alpha=0.3)
    save_figure(figure, path)


@dataclass(frozen=True, slots=True)
class Curve:
    """Smoothed training loss of one stitch.

    Args:
        label: the stitch.
        steps: optimizer steps.
        mean, low, high: over seeds, at those steps.
        seeds: how many.
    """

    label: str
    steps: Float[np.ndarray, "points"]
    mean: Float[np.ndarray, "points"]
    low: Float[np.ndarray, "points"]
    high: Float[np.ndarray, "points"]
    seeds: int


@dataclass(frozen=True, slots=True)
class Curves:
    """Loss curves of a comparison, and the stitches that left no metrics to draw one from."""

    curves: tuple[Curve, ...]
    missing: tuple[str, ...]


def loss_curves(cells: Sequence[Mapping[str, Any]]) -> Curves:
    """Read and smooth the training loss of every stitch, POINTS points each."""
    found: dict[str, list[tuple[Float[np.ndarray, "steps"], Float[np.ndarray, "steps"]]]] = {}
    missing = set()
    for cell in cells:
        label = Arm(str(cell.get("encoder")), str(cell.get("condition"))).label
        where = cell.get("metrics_path")
        curve = _curve(Path(where)) if where and Path(where).is_file() else None
        if curve is None:
            missing.add(label)
        else:
            found.setdefault(label, []).append(curve)
    curves = []
    for label, seeds in sorted(found.items()):
        last = min(steps[-1] for steps, _ in seeds)
        grid = np.linspace(min(steps[0] for steps, _ in seeds), last, POINTS)
        losses = np.stack([np.interp(grid, steps, loss) for steps, loss in seeds])
        curves.append(Curve(label, grid, losses.mean(0), losses.min(0), losses.max(0), len(seeds)))
    return Curves(tuple(curves), tuple(sorted(missing)))


def plot_losses(cells: Sequence[Mapping[str, Any]], path: Path, read: Curves | None = None) -> list[str]:
    """Smoothed training loss a stitch: mean over seeds, band from the lowest to the highest seed.

    Args:
        cells: what the cells left.
        path: of the PNG.
        read: the curves, where they were read before.

    Returns:
        Names of stitches without a readable metrics file, which are not in the picture. When that is all of
        them, no picture is written.
    """
    read = loss_curves(cells) if read is None else read
    if not read.curves:
        return list(read.missing)
    figure, axes = new_axes(7.2, 4.2)
    for number, curve in enumerate(read.curves):
        colour, style = COLOURS[number % len(COLOURS)], STYLES[number % len(STYLES)]
        label = f"{curve.label} ({curve.seeds} seeds)"
        axes.plot(curve.steps, curve.mean, style, color=colour, label=label)
        if curve.seeds > 1:
            axes.fill_between(curve.steps, curve.low, curve.high, color=colour, alpha=0.15, linewidth=0)
    axes.set_xlabel("optimizer step")
    axes.set_ylabel(f"training loss, mean over {SMOOTHED:.0%} of the run")
    axes.grid(alpha=0.3)
    axes.legend()
    save_figure(figure, path)
    return list(read.missing)


def smooth(values: Float[np.ndarray, "steps"], window: int) -> Float[np.ndarray, "steps"]:
    """Centred moving average; windows at the ends hold only what there is."""
    total = np.concatenate([[0.0], np.cumsum(values)])
    middle = np.arange(len(values))
    low = np.maximum(middle - window // 2, 0)
    high = np.minimum(middle + window // 2 + 1, len(values))
    return (total[high] - total[low]) / (high - low)


def _curve(path: Path) -> tuple[Float[np.ndarray, "steps"], Float[np.ndarray, "steps"]] | None:
    rows = [(row["step"], row["loss"]) for row in read_metrics(path) if row.get("loss") is not None]
    rows = [(step, loss) for step, loss in rows if np.isfinite(loss)]
    if len(rows) < 2:
        return None
    steps, losses = np.array(rows, dtype=np.float64).T
    return steps, smooth(losses, max(1, round(SMOOTHED * len(losses))))


def new_axes(width: float, height: float) -> tuple[Figure, Axes]:
    """A figure without a window, in inches, and its axes."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=110)
    FigureCanvasAgg(figure)
    return figure, figure.add_subplot()


def save_figure(figure: Figure, path: Path) -> None:
    """As PNG under the path given and as SVG beside it; neither holds a date or a number drawn at random."""
    import matplotlib

    with atomic_file(path) as temporary:
        figure.savefig(temporary, bbox_inches="tight", metadata={"Software": None})
    drawing = path.with_suffix(".svg")
    with (
        matplotlib.rc_context({"svg.hashsalt": "sutura", "svg.fonttype": "none"}),
        atomic_file(drawing) as temporary,
    ):
        figure.savefig(temporary, format="svg", bbox_inches="tight", metadata={"Date": None, "Creator": None})
