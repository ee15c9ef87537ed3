import torch
from torch import nn

from sutura.nn.attention import Attention, fused, written_out
from sutura.nn.block import Block, QuickGELU, initialise


def copied(attention: Attention, width: int, heads: int) -> nn.MultiheadAttention:
    theirs = nn.MultiheadAttention(width, heads, batch_first=True)
    with torch.no_grad():
        theirs.in_proj_weight.copy_(attention.qkv.weight)
        theirs.in_proj_bias.copy_(attention.qkv.bias)
        theirs.out_proj.weight.copy_(attention.out.weight)
        theirs.out_proj.bias.copy_(attention.out.bias)
    return theirs


def test_attention_is_torchs_multi_head_attention():
    torch.manual_seed(0)
    ours, x = Attention(12, 3), torch.randn(2, 5, 12)
    theirs = copied(ours, 12, 3)
    torch.testing.assert_close(ours(x), theirs(x, x, x, need_weights=False)[0], atol=1e-5, rtol=0)


def test_a_causal_token_does_not_see_what_comes_later():
    torch.manual_seed(0)
    attention, x = Attention(12, 3), torch.randn(1, 5, 12)
    changed = x.clone()
    changed[:, 3:] += 1
    assert torch.equal(attention(x, causal=True)[:, :3], attention(changed, causal=True)[:, :3])
    assert not torch.allclose(attention(x)[:, :3], attention(changed)[:, :3])


def test_attention_written_out_equals_the_fused_kernel_with_gradients():
    """The CPU's bfloat16 path against the kernel it replaces, at an uneven number of tokens."""
    for causal in (False, True):
        torch.manual_seed(0)
        qkv = [torch.randn(2, 3, 7, 4, dtype=torch.float64, requires_grad=True) for _ in range(3)]
        results = []
        for attend in (fused, written_out):
            out = attend(*qkv, causal)
            results.append((out, torch.autograd.grad(out.sin().sum(), qkv)))
        torch.testing.assert_close(results[0], results[1], atol=1e-5, rtol=0)  # the softmax is in float32


def test_bfloat16_on_the_cpu_takes_the_written_out_path(monkeypatch):
    calls = []
    monkeypatch.setattr(
        "sutura.nn.attention.written_out",
        lambda *given: calls.append(given[0].dtype) or written_out(*given),
    )
    attention, x = Attention(8, 2), torch.randn(1, 3, 8)
    attention(x)
    assert calls == []
    with torch.autocast("cpu", torch.bfloat16):
        attention(x)
    assert calls == [torch.bfloat16]


def test_quick_gelu_is_not_gelu():
    x = torch.linspace(-3, 3, 7)
    torch.testing.assert_close(QuickGELU()(x), x / (1 + torch.exp(-1.702 * x)))
    assert float((QuickGELU()(x) - nn.GELU()(x)).abs().max()) > 0.01


def test_initialise_is_a_function_of_the_generator_and_reaches_every_matrix():
    first, second, other = Block(8, 2), Block(8, 2), Block(8, 2)
    for block, seed in ((first, 1), (second, 1), (other, 2)):
        initialise(block, torch.Generator().manual_seed(seed))
    for (name, a), b, c in zip(
        first.named_parameters(), second.parameters(), other.parameters(), strict=True
    ):
        assert torch.equal(a, b), name
        assert torch.equal(a, c) == (a.ndim == 1), name
    assert torch.equal(first.norm_mlp.weight, torch.ones(8))
