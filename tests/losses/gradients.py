"""A loss and its gradients, to be compared with another's."""

import torch
from torch import Tensor


def with_gradients(loss: Tensor, inputs: list[Tensor]) -> list[Tensor]:
    """The loss, then its gradient for each input."""
    return [loss, *torch.autograd.grad(loss, inputs)]
