"""SigLIP's scale and bias at a start that another loss aligned: fitted, and nothing else moves."""

from __future__ import annotations

import itertools
import math

import pytest
import torch

from sutura.core.runtime import generator
from sutura.losses.contrastive import sigmoid_loss
from sutura.train.align_calibrate import calibrated
from sutura.train.align_run import prepare
from tiny_align import toy_config


def cone(pairs: int = 48, dim: int = 16) -> tuple[torch.Tensor, torch.Tensor]:
    """Aligned embeddings in a cone: right pairs have a cosine of about 0.96, wrong ones of about 0.7."""
    draw = generator(0, "cone")
    axis, own = torch.randn(1, dim, generator=draw), 0.6 * torch.randn(pairs, dim, generator=draw)
    noise = 0.2 * torch.randn(2, pairs, dim, generator=draw)
    return axis + own + noise[0], axis + own + noise[1]


def loss_at(image, text, scale: float, bias: float, batch: int) -> float:
    parts = [slice(at, at + batch) for at in range(0, len(image), batch)]
    each = [sigmoid_loss(image[p], text[p], torch.tensor(scale), torch.tensor(bias)) for p in parts]
    return float(torch.stack(each).mean())


def test_it_is_the_least_loss_of_any_scale_and_bias():
    image, text = cone()
    batch = 12
    scale, bias = calibrated(image, text, torch.eye(len(image), dtype=torch.bool), batch, 2.3)
    found = loss_at(image, text, scale, bias, batch)
    grid = itertools.product(torch.linspace(0, 4.6, 24).tolist(), torch.linspace(-60, 0, 61).tolist())
    assert found <= min(loss_at(image, text, *one, batch) for one in grid) + 1e-4
    assert found < 0.5 * loss_at(image, text, 2.302585, -10.0, batch)


def test_a_rest_that_fills_no_batch_does_not_count():
    """Fault: three pairs, with two wrong ones each, weigh as much as a whole batch with eleven."""
    image, text = cone(15)
    right = torch.eye(15, dtype=torch.bool)
    assert calibrated(image, text, right, 12, 2.3) == calibrated(
        image[:12], text[:12], right[:12, :12], 12, 2.3
    )
    assert calibrated(image, text, right, 64, 2.3) == calibrated(image, text, right, 15, 2.3)


def test_rounding_does_not_move_it():
    """Fault: the run's name hangs on the last bits of a sum, and a resume on another machine finds no checkpoint."""
    image, text = cone()
    order = torch.cat([torch.arange(24).flip(0), torch.arange(24, 48).flip(0)])
    right = torch.eye(48, dtype=torch.bool)
    found = calibrated(image, text, right, 24, 2.3)
    assert calibrated(image[order], text[order], right, 24, 2.3) == found
    assert calibrated(image * (1 + 1e-6), text, right, 24, 2.3) == found


def test_a_scale_that_is_held_gets_the_bias_that_goes_with_it():
    """Fault: both are fitted, the scale is cut to 100, and the bias stays that of the scale before."""
    image, text = cone()
    scale, bias = calibrated(image, text, torch.eye(48, dtype=torch.bool), 24, 2.3)
    assert math.exp(scale) == pytest.approx(100, rel=1e-3)
    found = loss_at(image, text, scale, bias, 24)
    assert found < min(loss_at(image, text, scale, bias + off, 24) for off in (-2, -1, 1, 2))


@pytest.fixture(scope="module")
def start(tmp_path_factory) -> str:
    from encoders.tiny_starts import save_open_clip

    folder = tmp_path_factory.mktemp("start") / "clip"
    save_open_clip(folder, quick_gelu=True)
    return str(folder)


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


def test_a_clip_start_is_calibrated_and_its_embeddings_stay(start, cache, tmp_path, capsys):
    clip = (f"start.vision={start}", "dim=6", "image_head=clip", "text_head=clip", "phases=[{alpha: 0.0}]")
    fitted = prepare(toy_config(cache, tmp_path, *clip))
    assert "fitted to" in capsys.readouterr().err
    plain = prepare(toy_config(cache, tmp_path, *clip, "loss.calibrate=false"))
    assert "fitted to" not in capsys.readouterr().err
    changed = {name for name in plain.first if not torch.equal(plain.first[name], fitted.first[name])}
    assert changed == {"log_scale", "bias"}
    given = prepare(toy_config(cache, tmp_path, *clip, "loss.log_scale=1.5", "loss.bias=-2")).built
    assert float(given.training.model.log_scale.detach()) == pytest.approx(1.5)
    assert float(given.training.model.bias.detach()) == pytest.approx(-2)
    infonce = prepare(toy_config(cache, tmp_path, *clip, "loss.contrastive=infonce")).built
    assert not infonce.uncalibrated
    heads = ("image_head=mlp", "text_head=mlp")
    assert not prepare(toy_config(cache, tmp_path, *clip, *heads)).built.uncalibrated


def test_a_start_from_random_weights_keeps_the_papers_numbers(cache, tmp_path):
    model = prepare(toy_config(cache, tmp_path)).built.training.model
    assert float(model.bias.detach()) == pytest.approx(-3.0)  # of the toy's config
