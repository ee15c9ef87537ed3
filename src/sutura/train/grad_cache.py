"""Contrastive gradients of a batch that does not fit in memory: embeddings first, then a pass for their gradients."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from sutura.train.align import (
    AlignObjective,
    AlignTraining,
    Embedded,
    accounts,
    embed,
    norm,
    predict,
    scales,
    weighted,
)
from sutura.train.align_feed import AlignBatch
from sutura.train.align_texts import described
from sutura.train.objectives import Outcome

if TYPE_CHECKING:
    from accelerate import Accelerator


class RandomState(NamedTuple):
    """Where torch's global generators stand."""

    cpu: Tensor
    device: Tensor | None

    @classmethod
    def now(cls, device: torch.device) -> RandomState:
        """Of the CPU, and of a GPU that is computed on."""
        return cls(torch.get_rng_state(), torch.cuda.get_rng_state(device) if device.type == "cuda" else None)

    @contextmanager
    def again(self, device: torch.device) -> Iterator[None]:
        """Inside the block the same random numbers are drawn as were drawn after `now`."""
        with torch.random.fork_rng([device] if device.type == "cuda" else []):
            torch.set_rng_state(self.cpu)
            if self.device is not None:
                torch.cuda.set_rng_state(self.device, device)
            yield


class CachedStep:
    """`whole_step` of the loop: every pair of the step is compared with every other, micro-batch by micro-batch.

    The first pass embeds all micro-batches without a graph. The loss of all pairs gives the gradient of every
    embedding. The second pass embeds each micro-batch again, with its dropout drawn as before, and carries those
    gradients on into the weights; the prediction, which compares nothing, is added there. Each tower runs forward
    twice and backward once; memory is that of one micro-batch and of all embeddings.

    Args:
        objective: has the terms.

    Source: Gao et al. 2021, arXiv:2101.06983, section 3.
    """

    def __init__(self, objective: AlignObjective) -> None:
        self.objective = objective

    def __call__(
        self, training: AlignTraining, batches: Sequence[AlignBatch], step: int, accelerator: Accelerator
    ) -> Outcome:
        """Leaves the gradients of the whole step; loss and metrics as `AlignObjective`'s."""
        model, device = training.model, training.model.log_scale.device
        weights = self.objective.plan.at(step).weights()
        states, parts = [], []
        for batch in batches:
            states.append(RandomState.now(device))
            # A context of its own for each pass: autocast keeps the weights it has cast, here without a graph.
            with torch.no_grad(), accelerator.autocast():
                parts.append(embed(model, batch))
        leaves = _leaves(parts)
        own, text = (torch.cat([getattr(batch, name) for batch in batches]) for name in ("own", "text"))
        positives = described(own, text)
        ids = [i for batch in batches for i in batch.ids]
        with accelerator.autocast():
            terms = self.objective.compare(training, leaves, positives, ids, weights)
        measures = _Measured(training, terms, weights, leaves) if self.objective.measures(step) else None
        if any(term.requires_grad for term in terms.values()):
            accelerator.backward(weighted(terms, weights))
        sizes = [len(batch.ids) for batch in batches]
        pieces = [one.split(sizes) for one in _gradients(leaves)]
        told: dict[str, list[Tensor]] = {}
        for i, (batch, state) in enumerate(zip(batches, states, strict=True)):
            with state.again(device), accelerator.autocast():
                again = [one for one in embed(model, batch) if one is not None]
                surrogate = _inner(again, [piece[i] for piece in pieces])
                predicted = None
                if weights["prediction"]:
                    predicted, extra = predict(model, batch)
                    for name, value in {"prediction": predicted.detach(), **extra}.items():
                        told.setdefault(name, []).append(torch.as_tensor(value) * batch.share)
                    surrogate = surrogate + weights["prediction"] * batch.share * predicted
            if measures is not None:
                measures.add(again, sizes, i, None if predicted is None else batch.share * predicted)
            if surrogate.requires_grad:
                accelerator.backward(surrogate)
            self.objective.keys(training, batch)
        means = {name: torch.stack(values).sum() for name, values in told.items()}
        if "prediction" in means:
            terms["prediction"] = means.pop("prediction")
        metrics = means | accounts(terms, weights) | scales(model)
        return weighted(terms, weights).detach(), metrics | (measures.norms() if measures else {})


class _Measured:
    """Every term's gradient over the step, summed over its micro-batches."""

    def __init__(self, training: AlignTraining, terms, weights, leaves: Embedded) -> None:
        self.moving = [weight for weight in training.parameters() if weight.requires_grad]
        self.weights = weights
        inputs = [one for one in leaves if one is not None]
        self.at_leaves: dict[str, list[Tensor]] = {}
        self.sums: dict[str, list[Tensor | None]] = {}
        for name, term in terms.items():
            found = torch.autograd.grad(
                weights[name] * term, [*inputs, *self.moving], retain_graph=True, allow_unused=True
            )
            self.at_leaves[name] = [
                torch.zeros_like(leaf) if one is None else one
                for leaf, one in zip(inputs, found[: len(inputs)], strict=True)
            ]
            self.sums[name] = list(found[len(inputs) :])

    def add(self, again: Sequence[Tensor], sizes: Sequence[int], i: int, predicted: Tensor | None) -> None:
        """One micro-batch of the second pass."""
        surrogates = {
            name: _inner(again, [one.split(list(sizes))[i] for one in found])
            for name, found in self.at_leaves.items()
        }
        if predicted is not None:
            surrogates["prediction"] = self.weights["prediction"] * predicted
        for name, value in surrogates.items():
            if not value.requires_grad:
                continue
            found = torch.autograd.grad(value, self.moving, retain_graph=True, allow_unused=True)
            before = self.sums.get(name, [None] * len(found))
            self.sums[name] = [
                b if a is None else a if b is None else a + b for a, b in zip(found, before, strict=True)
            ]

    def norms(self) -> dict[str, Tensor]:
        """Of every term that has one."""
        return {f"{name}_gradient": norm(found) for name, found in self.sums.items()}


def _leaves(parts: Sequence[Embedded]) -> Embedded:
    """All micro-batches' embeddings as leaves of a graph that begins at them."""

    def joined(values: Sequence[Tensor]) -> Tensor:
        return torch.cat(list(values)).float().detach().requires_grad_()

    views = [part.views for part in parts if part.views is not None]
    return Embedded(
        joined([part.image for part in parts]),
        joined([part.text for part in parts]),
        joined(views) if views else None,
    )


def _gradients(leaves: Embedded) -> list[Tensor]:
    return [torch.zeros_like(leaf) if leaf.grad is None else leaf.grad for leaf in leaves if leaf is not None]


def _inner(values: Sequence[Tensor], gradients: Sequence[Tensor]) -> Tensor:
    """A number whose gradient at `values` is `gradients`."""
    return torch.stack([(v.float() * g).sum() for v, g in zip(values, gradients, strict=True)]).sum()
