import math

import pytest
import torch
import torch.nn.functional as F

from sutura.losses.contrastive import clip_loss


def embeddings(batch: int, seed: int = 0):
    draw = torch.Generator().manual_seed(seed)
    return [torch.randn(batch, 6, generator=draw, requires_grad=True) for _ in range(2)]


def test_clip_loss_and_its_gradients_are_open_clips():
    from open_clip.loss import ClipLoss

    scale = torch.tensor(math.log(1 / 0.07), requires_grad=True)
    image, text = embeddings(5)
    inputs = [image, text, scale]
    ours = clip_loss(image, text, scale)
    theirs = ClipLoss()(F.normalize(image, dim=1), F.normalize(text, dim=1), scale.exp())
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=0)
    for mine, other in zip(
        torch.autograd.grad(ours, inputs), torch.autograd.grad(theirs, inputs), strict=True
    ):
        torch.testing.assert_close(mine, other, atol=1e-5, rtol=0)


def test_clip_loss_is_symmetric_ignores_length_and_order():
    image, text = (x.detach() for x in embeddings(4))
    scale = torch.tensor(2.0)
    loss = clip_loss(image, text, scale)
    torch.testing.assert_close(clip_loss(text, image, scale), loss)
    torch.testing.assert_close(clip_loss(image * 3, text * 0.5, scale), loss)
    order = torch.tensor([2, 0, 3, 1])
    torch.testing.assert_close(clip_loss(image[order], text[order], scale), loss)
    assert float(clip_loss(image, text[order], scale)) != pytest.approx(float(loss))


def test_embeddings_that_tell_nothing_cost_log_of_the_batch():
    same = torch.ones(8, 3)
    assert float(clip_loss(same, same, torch.tensor(3.0))) == pytest.approx(math.log(8))


def test_one_pair_is_refused():
    with pytest.raises(ValueError, match="at least two pairs"):
        clip_loss(torch.ones(1, 3), torch.ones(1, 3), torch.tensor(0.0))
