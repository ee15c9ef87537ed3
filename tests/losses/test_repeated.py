"""InfoNCE where texts repeat: equal answers are one text, and never each other's negatives."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from sutura.core.runtime import generator
from sutura.losses.contrastive import clip_loss, sigmoid_loss
from sutura.losses.repeated import repeated_text_loss

SCALE = torch.tensor(math.log(8.0))
WHICH = torch.tensor([0, 1, 0, 2, 1, 0, 3])


def drawn(rows: int, texts: int) -> tuple[Tensor, Tensor]:
    draw = generator(3, "repeated")
    return (
        torch.randn(rows, 6, generator=draw).requires_grad_(),
        torch.randn(texts, 6, generator=draw).requires_grad_(),
    )


def naive(
    predicted: Tensor, text: Tensor, which: Tensor, log_scale: Tensor, right: Tensor | None = None
) -> Tensor:
    """One row and one direction after the other."""
    p, t, scale = F.normalize(predicted, dim=1), F.normalize(text, dim=1), log_scale.exp()
    terms = []
    for i, own in enumerate(which.tolist()):
        texts = [k for k in range(len(t)) if k == own or right is None or not right[i, k]]
        scores = torch.stack([scale * p[i] @ t[k] for k in texts])
        to_text = torch.logsumexp(scores, 0) - scores[texts.index(own)]
        rows = [j for j in range(len(p)) if which[j] != own and (right is None or not right[j, own])]
        others = [scale * p[j] @ t[own] for j in rows]
        mine = scale * p[i] @ t[own]
        terms.append((to_text + torch.logsumexp(torch.stack([mine, *others]), 0) - mine) / 2)
    return torch.stack(terms).mean()


def test_without_repetitions_it_is_clips_loss() -> None:
    predicted, text = drawn(5, 5)
    ours = repeated_text_loss(predicted, text, torch.arange(5), SCALE)
    theirs = clip_loss(predicted, text, SCALE)
    torch.testing.assert_close(ours, theirs)
    for a, b in zip(
        torch.autograd.grad(ours, (predicted, text)),
        torch.autograd.grad(theirs, (predicted, text)),
        strict=True,
    ):
        torch.testing.assert_close(a, b)


def test_it_is_the_sum_written_out_gradients_too() -> None:
    predicted, text = drawn(7, 4)
    ours = repeated_text_loss(predicted, text, WHICH, SCALE)
    slow = naive(predicted, text, WHICH, SCALE)
    torch.testing.assert_close(ours, slow)
    for a, b in zip(
        torch.autograd.grad(ours, (predicted, text)),
        torch.autograd.grad(slow, (predicted, text)),
        strict=True,
    ):
        torch.testing.assert_close(a, b)


def test_another_right_answer_is_no_negative() -> None:
    """Fault: two descriptions of one picture, both right, push each other's predictions away."""
    predicted, text = drawn(7, 4)
    right = F.one_hot(WHICH, 4).bool()
    right[3, 3] = right[6, 2] = True  # rows 3 and 6 ask the same of one picture
    ours = repeated_text_loss(predicted, text, WHICH, SCALE, right)
    slow = naive(predicted, text, WHICH, SCALE, right)
    torch.testing.assert_close(ours, slow)
    for a, b in zip(
        torch.autograd.grad(ours, (predicted, text)),
        torch.autograd.grad(slow, (predicted, text)),
        strict=True,
    ):
        torch.testing.assert_close(a, b)
    assert not torch.isclose(slow, naive(predicted, text, WHICH, SCALE))
    both = torch.eye(4)[WHICH].clone()
    both[3] = both[6] = F.normalize(torch.tensor([0.0, 0.0, 1.0, 1.0]), dim=0)  # near both descriptions
    sharp = torch.tensor(math.log(100.0))
    assert repeated_text_loss(both, torch.eye(4), WHICH, sharp, right) < 1e-6
    assert repeated_text_loss(both, torch.eye(4), WHICH, sharp) > 0.1  # the fault, planted


def test_equal_answers_do_not_repel_each_other() -> None:
    """Fault: row by row, "yes" is a negative of "yes": perfect predictions keep a loss of log 2 and more."""
    text = torch.eye(4)
    perfect = text[WHICH]
    sharp = torch.tensor(math.log(100.0))
    assert repeated_text_loss(perfect, text, WHICH, sharp) < 1e-6
    assert clip_loss(perfect, text[WHICH], sharp) > math.log(2) / 2  # the fault, planted
    noisy = perfect + 0.3 * torch.randn(7, 4, generator=generator(0, "noise"))
    noisy.requires_grad_()
    good = torch.autograd.grad(repeated_text_loss(noisy, text, WHICH, sharp), noisy)[0]
    # Row 0 and row 2 have one answer: what row 2 predicts must not move row 0.
    other = noisy.detach().clone()
    other[2] = -other[2]
    other.requires_grad_()
    again = torch.autograd.grad(repeated_text_loss(other, text, WHICH, sharp), other)[0]
    torch.testing.assert_close(good[0], again[0])


def test_a_row_of_another_answer_does_move_it() -> None:
    predicted, text = drawn(7, 4)
    before = torch.autograd.grad(repeated_text_loss(predicted, text, WHICH, SCALE), predicted)[0]
    other = predicted.detach().clone()
    other[3] = -other[3]  # answer 2
    other.requires_grad_()
    after = torch.autograd.grad(repeated_text_loss(other, text, WHICH, SCALE), other)[0]
    assert not torch.allclose(before[6], after[6])


def test_positives_of_the_sigmoid_loss_are_rows_of_one_answer() -> None:
    positives = F.one_hot(WHICH).bool()[:, WHICH]
    assert positives[0].tolist() == [True, False, True, False, False, True, False]
    text, bias = torch.eye(4), torch.tensor(-5.0)
    sharp = torch.tensor(math.log(10.0))
    with_all = sigmoid_loss(text[WHICH], text[WHICH], sharp, bias, positives)
    diagonal = sigmoid_loss(text[WHICH], text[WHICH], sharp, bias)
    assert with_all < 0.1 < diagonal


def test_one_text_has_nothing_to_be_told_from() -> None:
    with pytest.raises(ValueError, match="at least two different texts; the 3 rows of this batch have 1"):
        repeated_text_loss(torch.randn(3, 4), torch.randn(1, 4), torch.zeros(3, dtype=torch.long), SCALE)
