import math

import pytest
import torch
import torch.nn.functional as F

from losses.gradients import with_gradients
from sutura.losses.contrastive import Negatives, Pairs, clip_loss, clip_loss_beyond, sigmoid_loss

ALL = slice(None)


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
    torch.testing.assert_close(
        with_gradients(ours, inputs), with_gradients(theirs, inputs), atol=1e-5, rtol=0
    )


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
    one, zero = torch.ones(1, 3), torch.tensor(0.0)
    for call in (lambda: clip_loss(one, one, zero), lambda: sigmoid_loss(one, one, zero, zero)):
        with pytest.raises(ValueError, match="at least two pairs"):
            call()


def test_sigmoid_loss_and_its_gradients_are_open_clips():
    """Fault: SigLIP without bias, fixed temperature, wrong normalisation."""
    from open_clip.loss import SigLipLoss

    scale, bias = (torch.tensor(x, requires_grad=True) for x in (math.log(10), -3.0))
    image, text = embeddings(5)
    inputs = [image, text, scale, bias]
    ours = sigmoid_loss(*inputs)
    theirs = SigLipLoss()(F.normalize(image, dim=1), F.normalize(text, dim=1), scale.exp(), bias)
    torch.testing.assert_close(
        with_gradients(ours, inputs), with_gradients(theirs, inputs), atol=1e-5, rtol=0
    )


def test_several_positives_written_out_pair_by_pair():
    image, text = (x.detach() for x in embeddings(4))
    scale, bias = torch.tensor(1.0), torch.tensor(-2.0)
    positives = torch.eye(4, dtype=torch.bool)
    positives[0, 2] = positives[3, 1] = True
    expected = 0.0
    for i in range(4):
        for j in range(4):
            logit = scale.exp() * F.cosine_similarity(image[i], text[j], dim=0) + bias
            sign = 1 if positives[i, j] else -1
            expected += math.log(1 + math.exp(-sign * float(logit))) / 4
    assert float(sigmoid_loss(image, text, scale, bias, positives)) == pytest.approx(expected, rel=1e-5)
    plain = sigmoid_loss(image, text, scale, bias)
    torch.testing.assert_close(sigmoid_loss(image, text, scale, bias, torch.eye(4, dtype=torch.bool)), plain)
    assert float(sigmoid_loss(image, text, scale, bias, positives)) != pytest.approx(float(plain))


def test_duplicate_captions_and_other_captions_of_a_picture_are_no_negatives():
    words = torch.tensor([[3, 1, 0], [4, 1, 0], [3, 1, 0], [5, 1, 0], [6, 1, 0], [4, 1, 0]])
    pictures = torch.tensor([70, 70, 71, 72, 73, 74])
    positives = Pairs(words, pictures).block(ALL, ALL)
    held = {70: {3, 4}, 71: {3}, 72: {5}, 73: {6}, 74: {4}}  # the captions the batch gives each picture
    for i in range(6):
        expected = [int(words[j, 0]) in held[int(pictures[i])] for j in range(6)]
        assert positives[i].tolist() == expected, i
    assert positives[0].tolist() == [True, True, True, False, False, True]
    assert positives[2].tolist() == [True, False, True, False, False, False]  # not symmetric: 71 is only a 3
    distinct = Pairs(torch.arange(5)[:, None], torch.arange(5)).block(ALL, ALL)
    assert torch.equal(distinct, torch.eye(5, dtype=torch.bool))


def test_a_part_of_the_labels_is_that_part_of_the_whole():
    draw = torch.Generator().manual_seed(0)
    words = torch.randint(0, 3, (11, 2), generator=draw)
    pictures = torch.randint(0, 6, (11,), generator=draw)
    pairs = Pairs(words, pictures)
    whole = pairs.block(ALL, ALL)
    assert 11 < int(whole.sum()) < 121
    for rows, columns in ((slice(0, 4), slice(3, 9)), (slice(8, 11), slice(10, 11))):
        assert torch.equal(pairs.block(rows, columns), whole[rows, columns])


def test_losses_stay_in_float32_under_autocast():
    """Fault: likenesses in bfloat16; at a scale of 100 a logit is then off by tenths."""
    image, text = (x.detach() for x in embeddings(6))
    scale, bias = torch.tensor(math.log(100)), torch.tensor(-10.0)
    plain = clip_loss(image, text, scale), sigmoid_loss(image, text, scale, bias)
    with torch.autocast("cpu", torch.bfloat16):
        cast = clip_loss(image, text, scale), sigmoid_loss(image, text, scale, bias)
    torch.testing.assert_close(cast, plain)


@pytest.mark.parametrize("kept", [0, 3])
def test_smoothing_is_torchs_in_both_directions_with_and_without_a_queue(kept):
    scale = torch.tensor(1.0, requires_grad=True)
    inputs = [*embeddings(4), scale]
    more = [torch.randn(kept, 6, generator=torch.Generator().manual_seed(i)) for i in (1, 2)]

    def loss(smoothing):
        if not kept:
            return clip_loss(*inputs, smoothing)
        return clip_loss_beyond(*inputs, Negatives(*more), smoothing)

    ours = loss(0.05)
    own, total = torch.arange(4), 0.0
    for mine, others, beyond in ((inputs[0], inputs[1], more[1]), (inputs[1], inputs[0], more[0])):
        everything = F.normalize(torch.cat([others, beyond]), dim=1)
        logits = scale.exp() * F.normalize(mine, dim=1) @ everything.T
        total = total + F.cross_entropy(logits, own, label_smoothing=0.05) / 2
    torch.testing.assert_close(
        with_gradients(ours, inputs), with_gradients(total, inputs), atol=1e-5, rtol=1e-5
    )
    assert float(ours.detach()) != pytest.approx(float(loss(0.0).detach()))


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_a_kept_pair_of_the_same_picture_is_no_negative(smoothing):
    image, text = embeddings(3)
    scale = torch.tensor(1.0)
    kept_images, kept_texts = torch.randn(4, 6), torch.randn(4, 6)
    same = torch.zeros(3, 4, dtype=torch.bool)
    same[:, 2:] = True
    value, *gradients = with_gradients(
        clip_loss_beyond(image, text, scale, Negatives(kept_images, kept_texts, same), smoothing),
        [image, text],
    )
    left = clip_loss_beyond(image, text, scale, Negatives(kept_images[:2], kept_texts[:2]), smoothing)
    torch.testing.assert_close([value, *gradients], with_gradients(left, [image, text]), atol=1e-5, rtol=1e-5)
    nothing = torch.ones(8, 6)
    told = clip_loss_beyond(nothing[:3], nothing[:3], scale, Negatives(nothing, nothing), smoothing)
    assert float(told) == pytest.approx(math.log(11), rel=1e-5)


def test_smoothing_of_the_sigmoid_loss_written_out():
    inputs = [*embeddings(4), torch.tensor(1.0, requires_grad=True), torch.tensor(-2.0, requires_grad=True)]
    image, text, scale, bias = inputs
    logits = scale.exp() * F.normalize(image, dim=1) @ F.normalize(text, dim=1).T + bias
    wanted = torch.eye(4) * 0.9 + 0.05
    expected = F.binary_cross_entropy_with_logits(logits, wanted, reduction="sum") / 4
    ours = sigmoid_loss(*inputs, smoothing=0.1)
    torch.testing.assert_close(
        with_gradients(ours, inputs), with_gradients(expected, inputs), atol=1e-5, rtol=1e-5
    )
    for bad in (-0.1, 1.0):
        with pytest.raises(ValueError, match="smoothing="):
            sigmoid_loss(*inputs, smoothing=bad)
        with pytest.raises(ValueError, match="smoothing="):
            clip_loss(image, text, scale, bad)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_two_rows_of_one_picture_are_not_each_others_negatives(smoothing):
    (image, text), (more, texts), scale = embeddings(4), embeddings(3, seed=1), torch.tensor(2.0)
    same = torch.eye(4, dtype=torch.bool)
    assert torch.allclose(
        clip_loss_beyond(image, text, scale, None, smoothing, same), clip_loss(image, text, scale, smoothing)
    )
    same[0, 2] = same[2, 0] = True
    queue = Negatives(more, texts, torch.tensor([[False, True, False]] * 4))
    for kept, others, beyond in ((None, text[:0], image[:0]), (queue, texts[[0, 2]], more[[0, 2]])):
        found = clip_loss_beyond(image, text, scale, kept, smoothing, same)
        losses = []
        for mine, theirs, added in ((image, text, others), (text, image, beyond)):
            for row in range(4):
                left = [other for other in range(4) if other == row or {other, row} != {0, 2}]
                candidates = F.normalize(torch.cat([theirs[left], added]), dim=1)
                logits = scale.exp() * F.normalize(mine[row], dim=0) @ candidates.T
                losses.append(
                    F.cross_entropy(logits[None], torch.tensor([left.index(row)]), label_smoothing=smoothing)
                )
        assert torch.allclose(found, torch.stack(losses).mean(), atol=1e-6)
