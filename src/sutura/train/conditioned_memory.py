"""What a conditioned run takes of a GPU's memory, by arithmetic: shapes in, bytes out."""

from __future__ import annotations

from torch import nn

from sutura.models.vljepa_conditioned import VLJEPAConditioned

#: What the CUDA context, cuBLAS workspaces and the allocator's rounding take beside the tensors.
CONTEXT = 700e6


def planned_memory(
    model: VLJEPAConditioned, *, micro_batch: int, text_tokens: int, hidden: int, text_network: int = 0
) -> dict[str, float]:
    """Bytes of a training step at its peak, by what takes them.

    Args:
        model: as built; its weights lie in float32.
        micro_batch: pictures of one forward pass.
        text_tokens: of the longest caption.
        hidden: patches hidden of a picture.
        text_network: parameters of the text network. Its states are made before training and it is gone by then, so
            that the peak is the larger of the two.

    Returns:
        `weights`, `optimizer` (gradient and two moments of what trains), `activations`, `context`, `texts` (the pass
        that makes the text states), and `peak`.

    Source: of a block's activations: Korthikanti et al. 2022, arXiv:2205.05198, equation 1, with float32 in the place
        of 16 bits (twice its bytes) and attention that is not kept (its second term), as fused kernels do.
    """
    patches = model.online.grid[0] * model.online.grid[1]
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    weights = 4.0 * sum(p.numel() for p in model.parameters())
    tokens = patches + text_tokens
    width = model.predictor.positions.shape[2]
    acts = len(model.predictor.blocks) * _block(micro_batch, tokens, width)
    kept = patches - hidden + model.online.num_prefix_tokens
    learning = sum(any(p.requires_grad for p in block.parameters()) for block in model.online.blocks)
    acts += max(1, learning) * _block(micro_batch, kept, model.online.width)
    if model.target is not None:
        acts += _block(micro_batch, patches, model.online.width)
    step = weights + 12.0 * trained + acts
    texts = 4.0 * text_network * 1.25  # and a batch of captions on its way through
    return {
        "weights": weights,
        "optimizer": 12.0 * trained,
        "activations": acts,
        "context": CONTEXT,
        "texts": texts,
        "peak": max(step, texts) + CONTEXT,
    }


def _block(batch: int, tokens: int, width: int) -> float:
    return 68.0 * batch * tokens * width


def parameters(module: nn.Module) -> tuple[int, int]:
    """How many parameters there are, and how many of them train."""
    return sum(p.numel() for p in module.parameters()), sum(
        p.numel() for p in module.parameters() if p.requires_grad
    )
