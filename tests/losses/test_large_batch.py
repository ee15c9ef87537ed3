"""The chunked and the distributed losses against the plain ones, gradients too, in uneven cases."""

from pathlib import Path

import pytest
import torch

from losses.gloo_worker import CASES, model_and_batch
from losses.gradients import with_gradients
from sutura.losses.contrastive import Pairs, clip_loss, sigmoid_loss
from sutura.losses.large_batch import sigmoid_loss_chunked
from two_processes import run_two

ALL = slice(None)


def batch(size: int, seed: int = 0):
    draw = torch.Generator().manual_seed(seed)
    image, text = (torch.randn(size, 6, generator=draw, requires_grad=True) for _ in range(2))
    scale, bias = (torch.tensor(x, requires_grad=True) for x in (1.5, -4.0))
    words = torch.randint(0, 3, (size, 2), generator=draw)
    pictures = torch.randint(0, size, (size,), generator=draw)
    return [image, text, scale, bias], words, pictures


@pytest.mark.parametrize("chunk", [1, 3, 7, 50])
@pytest.mark.parametrize("labels", ["none", "mask", "pairs"])
def test_chunks_give_the_plain_loss_and_gradients(chunk, labels):
    inputs, words, pictures = batch(7)
    mask = Pairs(words, pictures).block(ALL, ALL)
    assert int(mask.sum()) > 7
    positives = {"none": None, "mask": mask, "pairs": Pairs(words, pictures)}[labels]
    plain = with_gradients(sigmoid_loss(*inputs, None if labels == "none" else mask), inputs)
    chunked = with_gradients(sigmoid_loss_chunked(*inputs, positives, chunk=chunk), inputs)
    torch.testing.assert_close(chunked, plain, atol=1e-5, rtol=1e-5)


def test_chunks_stay_in_float32_under_autocast_and_need_no_gradient():
    inputs, *_ = batch(7)
    plain = sigmoid_loss(*inputs)
    with torch.autocast("cpu", torch.bfloat16), torch.no_grad():
        torch.testing.assert_close(sigmoid_loss_chunked(*inputs, chunk=2), plain.detach())


def test_chunks_keep_no_matrix_of_the_whole_batch():
    """What autograd holds for backward grows with the batch, not with its square."""
    kept: dict[str, int] = {}
    for name, loss in (("plain", sigmoid_loss), ("chunked", lambda *x: sigmoid_loss_chunked(*x, chunk=16))):
        sizes: list[int] = []
        inputs, *_ = batch(256)
        with torch.autograd.graph.saved_tensors_hooks(
            lambda t, sizes=sizes: sizes.append(t.numel()) or t, lambda t: t
        ):
            loss(*inputs)
        kept[name] = max(sizes)
    assert kept["plain"] == 256 * 256
    assert kept["chunked"] == 256 * 6


def test_bad_chunks_and_one_pair_are_refused():
    inputs, *_ = batch(7)
    with pytest.raises(ValueError, match="chunk=0"):
        sigmoid_loss_chunked(*inputs, chunk=0)
    with pytest.raises(ValueError, match="at least two pairs"):
        sigmoid_loss_chunked(inputs[0][:1], inputs[1][:1], *inputs[2:])


@pytest.fixture(scope="module")
def processes(tmp_path_factory):
    """What two gloo processes computed, by case; each case splits one batch in its own way."""
    folder = tmp_path_factory.mktemp("gloo")
    return run_two(Path(__file__).with_name("gloo_worker.py"), folder)


@pytest.mark.parametrize(("kind", "first"), CASES)
def test_two_processes_give_the_loss_and_gradients_of_one(processes, kind, first):
    """Each holds `first` and 8 - `first` pairs: even, uneven, and a single pair against seven.

    Fault: gathered features without gradients; means of uneven batches.
    """
    model, pixels, texts, words, pictures = model_and_batch()
    image, text = model(pixels), model(texts)
    scale, bias = model.scale, model.shift
    if kind == "clip":
        loss = clip_loss(image, text, scale)
    else:
        positives = Pairs(words, pictures).block(ALL, ALL) if "duplicates" in kind else None
        loss = sigmoid_loss(image, text, scale, bias, positives)
    weights = [p for p in model.parameters() if kind != "clip" or p is not bias]
    gradients = torch.autograd.grad(loss, weights)
    found = [answers[f"{kind} {first}"] for answers in processes]
    torch.testing.assert_close(sum(x["loss"] for x in found) / 2, loss.detach(), atol=1e-5, rtol=1e-5)
    for answers in found:  # as DistributedDataParallel leaves them: averaged, the same everywhere
        torch.testing.assert_close(answers["gradients"], list(gradients), atol=1e-5, rtol=1e-5)


def test_rows_of_different_lengths_are_refused_in_every_process(processes):
    for answers in processes:
        assert "rows of different lengths, [3, 4]; pad them" in answers["refused"]
