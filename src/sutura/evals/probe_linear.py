"""The linear probe: logistic regression on averaged patches, its weight decay chosen on the selection part."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from sutura.data.classes import Labels
from sutura.evals.probe_scores import plain_score

#: Up to so many numbers the solver works in float64; beyond it memory counts for more than the last digits.
DOUBLE = 64_000_000
#: L-BFGS stops where no entry of the gradient (of a loss in nats) is larger.
GRADIENT = 1e-5


class Linear(NamedTuple):
    """A fitted probe: standardise, multiply, add.

    Args:
        gradient: largest entry at the solution; the optimum has none.
    """

    mean: Float[np.ndarray, " width"]
    scale: Float[np.ndarray, " width"]
    weight: Float[np.ndarray, "width classes"]
    bias: Float[np.ndarray, " classes"]
    penalty: float
    gradient: float

    def scores(self, features: Float[Tensor, "pictures width"]) -> Float[np.ndarray, "pictures classes"]:
        """Logits, higher is likelier."""
        x = (features.double().cpu().numpy() - self.mean) / self.scale
        return (x @ self.weight + self.bias).astype(np.float32)


def fit_linear(
    features: Float[Tensor, "pictures width"],
    labels: Labels,
    classes: int,
    penalty: float,
    *,
    steps: int = 500,
    start: Linear | None = None,
) -> Linear:
    """Minimise the mean loss of the pictures plus `penalty / 2` times the sum of squared weights.

    The loss is the cross entropy of one class a picture, or (multi-label) the sum over classes of the binary
    one. The problem is convex, so neither a learning rate nor a seed has a part in the answer.

    Args:
        features: standardised here, channel by channel; a channel that never changes becomes zero.
        labels: of the pictures.
        classes: how many there are, shown or not.
        penalty: weight decay; biases have none.
        steps: the most the solver takes.
        start: a solution for another penalty.
    """
    from scipy.optimize import minimize

    kind = np.float64 if features.numel() <= DOUBLE else np.float32
    x = features.float().cpu().numpy().astype(kind)
    mean, scale = x.mean(axis=0), x.std(axis=0)
    scale = np.where(scale > 1e-6 * (1 + np.abs(mean)), scale, np.inf)
    x = (x - mean) / scale
    several = labels.ndim == 2
    truth = labels.astype(kind) if several else np.eye(classes, dtype=kind)[labels]
    width = x.shape[1]

    def loss(flat: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        table = flat.reshape(width + 1, classes)
        weight = table[:-1]
        logits = x @ weight.astype(kind) + table[-1].astype(kind)
        if several:
            told = np.logaddexp(0, logits) - truth * logits
            guess = 1 / (1 + np.exp(-np.clip(logits, -80, 80)))
        else:
            top = logits - logits.max(axis=1, keepdims=True)
            total = np.exp(top).sum(axis=1, keepdims=True)
            told = truth * (np.log(total) - top)
            guess = np.exp(top) / total
        error = (guess - truth) / len(x)
        gradient = np.concatenate([x.T @ error + penalty * weight, error.sum(axis=0, keepdims=True)])
        value = told.sum() / len(x) + penalty / 2 * np.square(weight).sum()
        return float(value), gradient.astype(np.float64).ravel()

    first = np.zeros((width + 1, classes)) if start is None else np.vstack([start.weight, start.bias])
    options = {"maxiter": steps, "maxfun": 4 * steps, "gtol": GRADIENT, "ftol": 0.0, "maxcor": 20}
    done = minimize(loss, first.ravel(), jac=True, method="L-BFGS-B", options=options)
    table = done.x.reshape(width + 1, classes)
    return Linear(mean, scale, table[:-1], table[-1], penalty, float(np.abs(done.jac).max()))


def sweep(
    features: Float[Tensor, "pictures width"],
    labels: Labels,
    classes: int,
    penalties: Sequence[float],
    *,
    steps: int = 500,
) -> list[Linear]:
    """A fit for every penalty, the largest first; each begins where the one before it ended."""
    found: list[Linear] = []
    for penalty in sorted(set(penalties), reverse=True):
        last = found[-1] if found else None
        found.append(fit_linear(features, labels, classes, penalty, steps=steps, start=last))
    return found


def chosen(scores: Sequence[float]) -> int:
    """Place of the best; of equal ones the first, which is the most decayed."""
    return int(np.argmax(np.asarray(scores)))


def choose_penalty(
    fits: Sequence[Linear], features: Float[Tensor, "pictures width"], labels: Labels
) -> tuple[float, dict[float, float]]:
    """The penalty whose fit scores best on the selection part, and the score of each."""
    scores = [plain_score(one.scores(features), labels) for one in fits]
    return fits[chosen(scores)].penalty, {
        one.penalty: round(s, 4) for one, s in zip(fits, scores, strict=True)
    }
