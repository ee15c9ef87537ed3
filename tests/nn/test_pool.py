import pytest
import torch

from sutura.nn.pool import AttentionPool, last_pool


def test_the_attention_pool_asks_all_tokens_whatever_their_order():
    torch.manual_seed(0)
    pool, tokens = AttentionPool(12, 3).eval(), torch.randn(2, 5, 12)
    pooled = pool(tokens)
    assert pooled.shape == (2, 12)
    torch.testing.assert_close(pool(tokens[:, [3, 0, 4, 1, 2]]), pooled)
    for place in range(5):
        changed = tokens.clone()
        changed[0, place] += 1
        assert float((pool(changed) - pooled)[0].detach().abs().max()) > 1e-4
        assert torch.equal(pool(changed)[1], pooled[1])


def test_the_probe_is_learned():
    pool = AttentionPool(12, 3)
    pool(torch.randn(2, 5, 12)).square().sum().backward()
    assert float(pool.probe.grad.abs().max()) > 0


def test_the_last_place_and_a_width_that_does_not_divide():
    tokens = torch.arange(12.0).view(2, 3, 2)
    assert torch.equal(last_pool(tokens), tokens[:, 2])
    with pytest.raises(ValueError, match="not a multiple of heads=5"):
        AttentionPool(12, 5)
