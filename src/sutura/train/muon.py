"""Two optimizers that the loop and its checkpoints see as one: Muon for matrices, AdamW for the rest."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor


class MuonAdamW:
    """Steps Muon and AdamW together.

    Muon moves a matrix by its momentum with all singular values brought to about one, so that a rare direction
    (two words that must meet in one attention head) moves as fast as a common one. Its step is scaled to the
    size of AdamW's, so that both take learning rates of the same order.

    Args:
        matrices: parameter groups of two-dimensional weights, none of them an embedding or a head.
        rest: parameter groups for AdamW.
        betas: AdamW's.
        fused: AdamW's.

    Source: Jordan et al. 2024, "Muon: An optimizer for hidden layers in neural networks"; the scaling: Liu et
        al. 2025, arXiv:2502.16982, section 2.2.
    """

    def __init__(
        self,
        matrices: Sequence[Mapping[str, Any]],
        rest: Sequence[Mapping[str, Any]],
        *,
        betas: tuple[float, float],
        fused: bool,
    ) -> None:
        muon = torch.optim.Muon([dict(g) for g in matrices], lr=0.0, adjust_lr_fn="match_rms_adamw")
        self.parts: list[torch.optim.Optimizer] = [muon]
        if rest:
            self.parts.append(torch.optim.AdamW([dict(g) for g in rest], lr=0.0, betas=betas, fused=fused))

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        """Groups of both, Muon's first."""
        return [group for part in self.parts for group in part.param_groups]

    @property
    def state(self) -> dict[Tensor, dict[str, Any]]:
        """State of every weight that has one."""
        return {weight: state for part in self.parts for weight, state in part.state.items()}

    def step(self) -> None:
        """Move all weights once."""
        for part in self.parts:
            part.step()

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Drop the gradients."""
        for part in self.parts:
            part.zero_grad(set_to_none=set_to_none)

    def state_dict(self) -> dict[str, Any]:
        """State by the weight's number, counted through all groups as one optimizer would."""
        state, first = {}, 0
        for part in self.parts:
            own = part.state_dict()
            state |= {first + number: values for number, values in own["state"].items()}
            first += sum(len(group["params"]) for group in part.param_groups)
        return {"state": state, "param_groups": self.param_groups}

    def load_state_dict(self, whole: Mapping[str, Any]) -> None:
        """Put the state back; the groups stay as they are built."""
        first = 0
        for part in self.parts:
            own = part.state_dict()
            count = sum(len(group["params"]) for group in part.param_groups)
            own["state"] = {n - first: s for n, s in whole["state"].items() if first <= n < first + count}
            part.load_state_dict(own)
            first += count
