"""What an `align` run is set to, and what it starts from: told or refused before any work."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from sutura.core.checkpoint import save_tensors
from sutura.core.errors import UserError
from sutura.train.align_look import embed_pictures
from sutura.train.align_run import negatives, prepare
from sutura.train.align_saved import load_align


def test_negatives_are_told(align_toy):
    """Fault: accumulation is believed to add negatives."""
    assert "effective negatives of a picture: 5." in negatives(align_toy())
    told = negatives(align_toy("batch=12", "micro_batch=4"))
    assert "picture: 3 " in told
    assert "adds none" in told
    assert "picture: 11 (all of the batch" in negatives(
        align_toy("batch=12", "micro_batch=4", "negatives=cached")
    )
    queue = negatives(align_toy("loss.contrastive=infonce", "loss.queue=99", "average.decay=0.9"))
    assert "up to 99 of the queue" in queue


def test_settings_that_cannot_be_are_told_before_any_work(align_toy):
    for overrides, message in (
        (("batch=1",), "batch"),
        (("batch=4", "micro_batch=6"), "micro_batch=6 is more than batch=4"),
        (("loss.queue=9",), "loss.contrastive=infonce"),
        (("loss.contrastive=infonce", "loss.queue=9"), "average.decay"),
        (("phases=[{alhpa: 1}]",), "alpha"),
        (("phases=[{frozen: [vison]}]",), "vision"),
        (("average.wise=[1.5]",), "between 0 and 1"),
    ):
        with pytest.raises(UserError, match=message):
            align_toy(*overrides)
    for overrides, message in (
        (("batch=20",), "batch=20 is more than the 12 training pictures"),
        (("data.store=8",), "less than the 16 pixels"),
        (("start.text=hf:a/b",), "no picture tower beside it"),
        (("start.vit.patch_size=5",), "multiple"),
        (("start.words.heads=3",), "multiple"),
        (("predictor.heads=3",), "predictor.heads=3"),
        (("phases=[{vision_blocks: 3, frozen: [vision]}]",), "has 2 blocks"),
        (("phases=[{epochs: 9}]",), "The phases take 18 steps"),
        (("data.source.path=nowhere.jsonl",), "nowhere.jsonl"),
    ):
        with pytest.raises(UserError, match=message):
            prepare(align_toy(*overrides))


@pytest.fixture(scope="module")
def open_clip_start(tmp_path_factory):
    from encoders.tiny_starts import save_open_clip

    folder = tmp_path_factory.mktemp("start") / "clip"
    return str(folder), save_open_clip(folder, quick_gelu=True)


@torch.no_grad()
def test_the_start_of_a_run_is_open_clips_model_and_can_be_loaded_without_it(
    open_clip_start, align_toy, tmp_path
):
    """Fault: CLIP's own projections and pooling are never used."""
    from open_clip.tokenizer import SimpleTokenizer

    folder, theirs = open_clip_start
    clip = (f"start.vision={folder}", "dim=6", "image_head=clip", "text_head=clip", "phases=[{alpha: 0.1}]")
    ready = prepare(align_toy(*clip))
    ready.built.save(tmp_path / "run")
    save_tensors(tmp_path / "run" / "start.safetensors", ready.first)
    tower = load_align(tmp_path / "run", "start.safetensors")
    picture = Image.fromarray(np.asarray(ready.test.pixels[0]))
    texts = ["a red cube", "there is one sphere"]
    mine, want = tower.encode_text(texts), theirs.encode_text(SimpleTokenizer(context_length=12)(texts))
    assert torch.allclose(mine, want, atol=1e-5)
    pixels = tower.transform(picture)[None]
    assert torch.allclose(tower.encode_image([picture]), theirs.encode_image(pixels), atol=1e-5)
    batch = ready.train.pick([0])
    flat = embed_pictures(lambda given: given.flatten(1), batch, ready.built.mean, ready.built.std, "cpu")
    picture = Image.fromarray(np.asarray(batch.pixels[0]))
    assert torch.allclose(flat[0], tower.transform(picture).flatten(), atol=1e-5)  # the feed's pixels
    averaged = prepare(align_toy(*clip, "start.pooling=mean")).built
    ids = averaged.tokenizer(texts)
    assert not torch.allclose(averaged.training.model.encode_text(ids), want, atol=1e-2)
    residual = prepare(
        align_toy(*clip, "image_head=clip_residual", "text_head=clip_residual", "loss.calibrate=false")
    )
    residual = residual.built
    assert torch.allclose(residual.training.model.encode_text(ids), want, atol=1e-5)
    assert float(residual.training.model.log_scale) == pytest.approx(float(np.log(10)))
    infonce = prepare(align_toy(*clip, "loss.contrastive=infonce")).built
    assert float(infonce.training.model.log_scale) == pytest.approx(float(theirs.logit_scale))


def test_a_linear_head_needs_a_projection_of_its_dim(open_clip_start, align_toy):
    folder, _ = open_clip_start
    with pytest.raises(UserError, match=r"projects its images to 6.*Set dim=6, or image_head=mlp"):
        prepare(align_toy(f"start.vision={folder}", "image_head=clip"))
