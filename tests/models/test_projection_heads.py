import pytest
import torch
import torch.nn.functional as F

from sutura.models.projection_heads import HEADS, ClipHead, ClipResidualHead, mlp_head


def seeds():
    draw = torch.Generator().manual_seed(0)
    return (
        torch.randn(5, 8, generator=draw),
        torch.randn(5, generator=draw),
        torch.randn(3, 8, generator=draw),
    )


def test_a_seeded_head_is_the_projection_it_was_seeded_with():
    matrix, shift, x = seeds()
    for name in ("clip", "clip_residual"):
        torch.testing.assert_close(HEADS[name](8, 5, matrix, None)(x), x @ matrix.T)
        torch.testing.assert_close(HEADS[name](8, 5, matrix, shift)(x), x @ matrix.T + shift)
    assert ClipHead(8, 5, matrix).bias is None


def test_the_residual_learns_although_it_starts_at_zero():
    matrix, _, x = seeds()
    head = ClipResidualHead(8, 5, matrix)
    optimizer = torch.optim.SGD(head.residual.parameters(), lr=0.5)
    for _ in range(3):
        optimizer.zero_grad()
        F.mse_loss(head(x), torch.ones(3, 5)).backward()
        optimizer.step()
    assert float((head(x) - x @ matrix.T).abs().max()) > 0.01
    assert all(p.grad is not None and float(p.grad.abs().max()) > 0 for p in head.residual.parameters())


def test_the_mlp_head_written_out():
    _, _, x = seeds()
    head = mlp_head(8, 5)
    first, second = head[1], head[3]
    expected = F.gelu(F.layer_norm(x, (8,)) @ first.weight.T + first.bias) @ second.weight.T + second.bias
    torch.testing.assert_close(head(x), expected)
    assert isinstance(HEADS["mlp"](8, 5, torch.ones(2, 2), None), torch.nn.Sequential)


def test_a_projection_of_another_shape_is_refused():
    matrix, shift, _ = seeds()
    with pytest.raises(ValueError, match=r"matrix is \(5, 8\), the head's \(6, 8\)"):
        ClipHead(8, 6, matrix)
    with pytest.raises(ValueError, match=r"matrix is \(8, 5\), the head's \(5, 8\)"):
        ClipResidualHead(8, 5, matrix.T)
    with pytest.raises(ValueError, match=r"shift is \(5,\)"):
        ClipHead(8, 6, None, shift)
