"""Training the conditioned form: targets, feeds, what learns and what does not."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch

from sutura.core.errors import UserError
from sutura.core.runtime import generator
from sutura.losses.prediction import cosine_by_token
from sutura.nn.masking import BlockMask, RandomMask, gather_patches
from sutura.train import conditioned
from sutura.train.conditioned import Prepared, build, objective, prepare
from sutura.train.conditioned_config import MaskConfig
from sutura.train.conditioned_data import ConditionedFeed, draw_masks
from tiny_conditioned import config, furnish, save_vit


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return furnish(tmp_path_factory.mktemp("conditioned"))


@pytest.fixture(scope="module")
def prepared(place: Path) -> Prepared:
    return prepare(config(place))


def feed_of(prepared: Prepared, **changes: Any) -> ConditionedFeed:
    changed = prepared.config.model_copy(update=changes)
    return ConditionedFeed(changed, prepared.train, prepared.grid, prepared.colours)


@pytest.mark.parametrize("kind", ["random", "rectangles"])
def test_the_mask_that_is_named_is_the_mask_that_runs(kind: str) -> None:
    grid = (8, 8)
    keep, asked = draw_masks(MaskConfig(kind=kind, ratio=0.6), grid, 50, generator(3, "m"))  # type: ignore[arg-type]
    assert asked.shape == (50, 38)  # round(0.6 * 64)
    assert (torch.cat([keep, asked], dim=1).sort(dim=1).values == torch.arange(64)).all()
    named = RandomMask if kind == "random" else BlockMask
    hidden: Any = named(grid, 0.6).sample(50, generator(3, "m"))
    hidden = hidden[1] if isinstance(hidden, tuple) else hidden
    assert torch.equal(hidden.nonzero()[:, 1].view(50, 38), asked)
    # And a rectangle is one: a hidden patch's right neighbour is hidden far more often than in a random mask.
    side = hidden.view(50, 8, 8)
    together = float((side[:, :, 1:] & side[:, :, :-1]).sum() / side[:, :, :-1].sum())
    assert (together > 0.75) == (kind == "rectangles")


def test_a_ratio_that_hides_nothing_is_refused() -> None:
    with pytest.raises(UserError, match=r"mask.ratio: ratio=0.01"):
        draw_masks(MaskConfig(ratio=0.01), (4, 4), 2, generator(0))


def test_batches_are_functions_of_seed_and_step(prepared: Prepared) -> None:
    one, two, other = feed_of(prepared), feed_of(prepared), feed_of(prepared, seed=1)
    two.micro_batches(0)
    (a,), (b,), (c,) = one.micro_batches(2), two.micro_batches(2), other.micro_batches(2)
    assert a.ids == b.ids
    assert torch.equal(a.asked, b.asked)
    assert torch.equal(a.text, b.text)  # type: ignore[arg-type]
    assert a.ids != c.ids or not torch.equal(a.asked, c.asked)
    every = [i for step in range(3) for i in one.indices(step)]
    assert sorted(every) == list(range(24))


def test_a_caption_belongs_to_its_picture_and_some_come_without(prepared: Prepared) -> None:
    text = prepared.config.text.model_copy(update={"drop": 0.3})
    feed = feed_of(prepared, text=text, passes=2400)
    missing = 0
    for step in range(feed.steps):
        rows = feed.indices(step)
        for row, caption in zip(rows, feed._captions(rows, step), strict=True):
            missing += caption is None
            assert caption is None or caption // 2 == row  # two captions each
    assert 0.25 < missing / 2400 < 0.35


def test_micro_batches_add_up_to_the_batch(prepared: Prepared) -> None:
    model = build(prepared)
    loss = objective(prepared.config)
    gradients = []
    for micro in (8, 2):
        model.zero_grad()
        total = torch.tensor(0.0)
        for batch in feed_of(prepared, micro_batch=micro).micro_batches(1):
            part, _ = loss(model, batch, 1)
            part.backward()
            total += part.detach()
        gradients.append(
            (total, [p.grad.clone() for p in model.predictor.parameters() if p.grad is not None])
        )
    assert torch.allclose(gradients[0][0], gradients[1][0], atol=1e-6)
    for a, b in zip(gradients[0][1], gradients[1][1], strict=True):
        assert torch.allclose(a, b, atol=1e-5)


@torch.no_grad()
def test_the_loss_counts_hidden_places_against_the_target_networks_own_features(prepared: Prepared) -> None:
    """Worked out again from the pictures: the target sees the whole picture, the loss the hidden places only."""
    from PIL import Image

    assert prepared.target is not None
    (batch,) = feed_of(prepared).micro_batches(0)
    model = build(prepared)
    pictures = [Image.fromarray(prepared.train.data.pixels[[i]][0]) for i in batch.ids]
    whole = prepared.target(torch.stack([prepared.target.transform(one) for one in pictures]))
    wanted = torch.nn.functional.layer_norm(whole, whole.shape[-1:])
    told = model(batch.pixels, batch.keep, batch.asked, batch.text, batch.padding)
    expected = cosine_by_token(told, gather_patches(wanted, batch.asked)).mean()
    found, metrics = objective(prepared.config)(model, batch, 0)
    assert float(found) == pytest.approx(float(expected), abs=1e-3)  # targets lie in float16
    assert metrics["hidden"] == 10


def test_only_the_predictor_trains_and_the_encoder_keeps_its_bits(place: Path, tmp_path: Path) -> None:
    ready = prepare(config(place, directory=str(tmp_path)))
    model = build(ready)
    before = copy.deepcopy(model.state_dict())
    names = {name for name, p in model.named_parameters() if p.requires_grad}
    assert all(name.startswith("predictor.") for name in names)
    assert "predictor.mask_token" in names
    conditioned.train(ready, model, tmp_path / "run")
    moved = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    assert names <= moved | {name for name in names if name.endswith("bias")}
    assert not any(name.startswith("online.") for name in moved)


def test_a_few_pictures_are_learned(place: Path, tmp_path: Path) -> None:
    small = config(place, passes=320, batch=4, micro_batch=4, pictures={"count": 4}, checkpoint_every=80)
    ready = prepare(small)
    done = conditioned.train(ready, build(ready), tmp_path / "run")
    assert done.loss.first > 0.8
    assert done.loss.final_mean < 0.35


def test_resumed_equals_uninterrupted_with_a_moving_target(place: Path, tmp_path: Path) -> None:
    moving = config(place, target={"kind": "ema", "encoder": None, "momentum": 0.9}, online={"train": "all"})
    ready = prepare(moving)
    whole = build(ready)
    conditioned.train(ready, whole, tmp_path / "whole")
    assert whole.target is not None
    first = prepare(moving).vit.state_dict()
    for part in (whole.online, whole.target):
        assert not torch.equal(part.state_dict()["blocks.0.mlp.up.weight"], first["blocks.0.mlp.up.weight"])
    feed = conditioned.ConditionedFeed

    class Cut(feed):  # type: ignore[valid-type, misc]
        def micro_batches(self, step: int) -> Any:
            if step == 2:
                raise KeyboardInterrupt
            return super().micro_batches(step)

    conditioned.ConditionedFeed = Cut  # type: ignore[misc]
    try:
        again = prepare(moving)
        with pytest.raises(KeyboardInterrupt):
            conditioned.train(again, build(again), tmp_path / "cut")
    finally:
        conditioned.ConditionedFeed = feed  # type: ignore[misc]
    again = prepare(moving)
    resumed = build(again)
    conditioned.train(again, resumed, tmp_path / "cut")
    for name, value in resumed.state_dict().items():
        assert torch.equal(value, whole.state_dict()[name]), name


def test_averaged_targets_stay_those_of_the_network_before_training(place: Path, tmp_path: Path) -> None:
    changes = {"target": {"kind": "average", "encoder": None, "blocks": 2}, "online": {"train": 1}}
    ready = prepare(config(place, **changes))
    assert ready.target is not None
    before = copy.deepcopy(ready.target.state_dict())
    model = build(ready)
    conditioned.train(ready, model, tmp_path / "run")
    assert all(torch.equal(v, before[k]) for k, v in ready.target.state_dict().items())
    moved = [p.requires_grad for p in model.online.blocks[1].parameters()]
    assert all(moved)
    assert not any(p.requires_grad for p in model.online.blocks[0].parameters())


def test_without_text_no_text_is_read(place: Path) -> None:
    ready = prepare(config(place, text={"use": False}))
    assert ready.train.text is None
    model = build(ready)
    (batch,) = ConditionedFeed(ready.config, ready.train, ready.grid, ready.colours).micro_batches(0)
    assert batch.text is None
    objective(ready.config)(model, batch, 0)[0].backward()
    assert all(p.grad is not None for p in model.parameters() if p.requires_grad)


def test_the_online_network_under_another_name_is_no_other_network(place: Path, tmp_path: Path) -> None:
    same = save_vit(tmp_path / "copy", 1)
    with pytest.raises(UserError, match="has the weights of the online encoder"):
        prepare(config(place, target={"encoder": {"id": same, "final_norm": True}}))


def test_a_target_of_another_grid_is_brought_to_the_online_one(place: Path, tmp_path: Path) -> None:
    finer = save_vit(tmp_path / "finer", 3, patch_size=4)
    ready = prepare(config(place, target={"encoder": {"id": finer, "final_norm": True}}))
    assert ready.target is not None
    assert ready.target.token_grid == (4, 4)


def test_the_runs_name_carries_config_seed_and_inputs(place: Path) -> None:
    names = {
        prepare(config(place, **changes)).run
        for changes in ({}, {"seed": 1}, {"mask": {"ratio": 0.5}}, {"pictures": {"seed": 3}})
    }
    assert len(names) == 4
