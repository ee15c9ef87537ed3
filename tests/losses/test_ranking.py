import pytest
import torch
import torch.nn.functional as F

from losses.gradients import with_gradients
from sutura.losses.contrastive import Pairs
from sutura.losses.ranking import hardest_negative_loss


def naive(image, text, margin, positives):
    count, total = len(image), 0.0
    cosine = [[F.cosine_similarity(image[i], text[j], dim=0) for j in range(count)] for i in range(count)]
    for i in range(count):
        texts = [margin + cosine[i][j] - cosine[i][i] for j in range(count) if not positives[i, j]]
        images = [margin + cosine[j][i] - cosine[i][i] for j in range(count) if not positives[j, i]]
        for hinges in (texts, images):
            if hinges:
                total = total + torch.stack(hinges).max().clamp_min(0.0)
    return total / count


@pytest.mark.parametrize("margin", [0.2, 0.6])
def test_value_and_gradients_are_those_of_a_loop(margin):
    draw = torch.Generator().manual_seed(0)
    inputs = [torch.randn(5, 4, generator=draw, requires_grad=True) for _ in range(2)]
    own = torch.eye(5, dtype=torch.bool)
    several = own.clone()
    several[0, 1] = several[1, 0] = several[2, 4] = True
    for positives in (None, several):
        ours = hardest_negative_loss(*inputs, margin, positives)
        theirs = naive(*inputs, margin, own if positives is None else positives)
        torch.testing.assert_close(
            with_gradients(ours, inputs), with_gradients(theirs, inputs), atol=1e-6, rtol=1e-5
        )


def test_other_captions_and_other_rows_of_a_picture_are_no_mistakes():
    words, pictures = torch.tensor([[1], [2], [3]]), torch.tensor([7, 7, 8])
    image = F.normalize(torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]]), dim=1)
    pairs = Pairs(words, pictures).block(slice(None), slice(None))
    assert float(hardest_negative_loss(image, image.clone(), positives=pairs)) == 0.0
    assert (
        float(hardest_negative_loss(image, image.clone())) > 0.1
    )  # without the labels they count as mistakes


def test_only_the_hardest_counts_and_a_batch_without_mistakes_costs_nothing():
    image = torch.eye(3)
    text = torch.tensor([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]])
    assert float(hardest_negative_loss(image, text, margin=0.2)) == 0.0
    near = torch.tensor([[1.0, 0.0, 0.0], [0.9, 0.4359, 0.0], [0.0, 0.0, 1.0]])
    one = float(hardest_negative_loss(image, near, margin=0.2))
    assert one == pytest.approx((0.1 + 0.6641 + 0.0) / 3, abs=1e-3)
    same = torch.ones(3, 3, dtype=torch.bool)
    inputs = [image.clone().requires_grad_(True), near.clone().requires_grad_(True)]
    value, *gradients = with_gradients(hardest_negative_loss(*inputs, 0.2, same), inputs)
    assert float(value) == 0.0
    assert all(bool((g == 0).all()) for g in gradients)
    with pytest.raises(ValueError, match="at least two pairs"):
        hardest_negative_loss(image[:1], text[:1])
