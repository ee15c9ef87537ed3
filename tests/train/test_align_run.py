"""An `align` run as a whole: what it leaves, how it goes on, what it refuses."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from sutura.core.checkpoint import read_json
from sutura.core.config import parse
from sutura.core.errors import UserError
from sutura.core.log import read_metrics
from sutura.evals.jepa import train
from sutura.evals.jepa_align import scored, variants
from sutura.losses.collapse import effective_rank
from sutura.train.align_build import recompute
from sutura.train.align_config import AlignConfig, Phase
from sutura.train.align_look import embed_pictures, look
from sutura.train.align_run import feed_of, follow, prepare, run_align, watch
from sutura.train.align_saved import load_align
from tiny_align import TOY, bits


def test_from_preset_to_report(cache, tmp_path, capsys):
    preset = tmp_path / "toy.yaml"
    values = {
        **TOY,
        "form": "align",
        "directory": str(tmp_path / "runs"),
        "average": {"decay": 0.5, "wise": [0.5]},
    }
    values["data"] = {**values["data"], "cache": str(cache)}
    preset.write_text(yaml.safe_dump(values))
    out = tmp_path / "out.json"
    text = train(
        str(preset), (), fresh=False, resume=False, out=out, command="sutura jepa train --preset align_toy"
    )
    facts = read_json(out)
    assert "seed 0: one training run" in text
    assert "NCE@1 of 6 pictures" in text, "8 pictures in batches of 6"
    folder = tmp_path / "runs" / facts["run"]
    assert text.endswith(str(folder))
    assert list(facts["scores"]) == [
        "start (step 0)",
        "trained",
        "moving average (0.5)",
        "WiSE-FT (0.5 trained)",
    ]
    assert "*chance*" in text
    assert "No picture of world/test (8) is in world/pretrain (12)" in text
    assert facts["scores"]["trained"]["standard"]["texts"] == 16
    terms = facts["phases"][1]["terms"]
    shares = [term["share"] for term in terms.values() if term["share"] is not None]
    assert sum(shares) == pytest.approx(1.0, abs=1e-5)
    assert terms["prediction"]["weight"] == 0.2
    assert terms["prediction"]["gradient"] > 0
    assert facts["phases"][0]["terms"]["prediction"]["share"] is None
    rows = list(read_metrics(folder / "metrics.jsonl"))
    assert {"picture_effective_rank", "text_uniformity", "picture_to_text"} <= set(rows[3]["evaluation"])
    assert {"contrastive_gradient", "variance_share", "scale", "bias"} <= set(rows[0])
    assert read_json(folder / "config.json")["form"] == "align"
    before = bits(folder)
    capsys.readouterr()
    again = train(str(preset), (), fresh=True, resume=False, out=None, command="")
    assert again == text
    assert "nothing to do" in capsys.readouterr().err
    assert bits(folder) == before, "a finished run is never overwritten, --fresh or not"
    with pytest.raises(UserError, match="is finished"):
        run_align(prepare(parse(AlignConfig, facts["config"], where="the report")), fresh=True)
    assert bits(folder) == before


def test_what_is_saved_is_what_was_trained(align_toy):
    ready = prepare(align_toy(average={"decay": 0.5}))
    run_align(ready)
    tower, model = load_align(ready.folder), ready.built.training.model.eval()
    picture = Image.fromarray(np.asarray(ready.test.pixels[0]))
    caption = ready.test.captions[0][0]
    with torch.no_grad():
        wanted = embed_pictures(model.encode_image, ready.test, ready.built.mean, ready.built.std, "cpu")[0]
        text = model.encode_text(ready.built.tokenizer([caption]))[0]
    assert torch.allclose(tower.encode_image([picture])[0], wanted, atol=1e-5)
    assert torch.allclose(tower.encode_text([caption])[0], text, atol=1e-5)
    average = load_align(ready.folder, "average.safetensors").encode_image([picture])[0]
    start = load_align(ready.folder, "start.safetensors").encode_image([picture])[0]
    assert not torch.allclose(average, wanted, atol=1e-5)
    assert not torch.allclose(start, average, atol=1e-5)
    with pytest.raises(UserError, match="no finished `align` run"):
        load_align(ready.folder.parent)


def test_cached_towers_give_the_steps_of_live_ones(align_toy, tmp_path, capsys):
    losses = []
    for cached in (True, False):
        ready = prepare(align_toy(f"cache_towers={cached}".lower(), directory=str(tmp_path / str(cached))))
        feed = feed_of(ready, torch.device("cpu"))
        batches = [feed.micro_batches(step)[0] for step in (0, 3, 4)]
        assert [batch.pixels is None for batch in batches] == [cached, cached, False]
        assert [batch.words is None for batch in batches] == [cached, cached, False]
        run_align(ready)
        losses.append([row["loss"] for row in read_metrics(ready.folder / "metrics.jsonl")])
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)
    assert "picture tower is frozen until step 4" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("part", "change"), [("image", "start.vit.heads=4"), ("text", "start.words.heads=4")]
)
def test_cached_rows_are_those_of_the_tower_as_it_is_run(align_toy, part, change):
    for more in ((), (change,)):  # the same weights, another function
        ready = prepare(align_toy(*more))
        batch = feed_of(ready, torch.device("cpu")).micro_batches(0)[0]
        model = ready.built.training.model.eval()
        with torch.no_grad():
            if part == "image":
                pixels = torch.from_numpy(np.array(ready.train.pixels[batch.ids])).permute(0, 3, 1, 2) / 255
                shift, spread = (torch.tensor(v).view(3, 1, 1) for v in (ready.built.mean, ready.built.std))
                found, live = batch.image_features, model.context_encoder((pixels - shift) / spread)[0]
            else:
                found, live = batch.text_features, model.text(ready.texts.rows(batch.text.numpy()))[0]
        torch.testing.assert_close(found, live, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("change", ["augment.shift=1", "views.local=1", "data.store=20"])
def test_pictures_that_change_are_never_read_from_a_cache(align_toy, change):
    ready = prepare(align_toy(change, "views.size=8"))
    assert feed_of(ready, torch.device("cpu")).image_rows is None


def test_moving_averages_and_the_queue_follow_steps_that_counted(align_toy):
    infonce = ("loss.contrastive=infonce", "loss.queue=8", "average.decay=0.9", "phases=[{alpha: 0.2}]")
    ready = prepare(align_toy(*infonce))
    run_align(ready)
    training = ready.built.training
    assert int(training.queue.seen) == ready.plan.steps * 6
    assert training.pending == []
    target = dict(training.model.target_encoder.named_parameters())
    moved = [not torch.equal(target[n], p) for n, p in training.model.context_encoder.named_parameters()]
    assert any(moved), "the target lags behind"
    before = {n: p.clone() for n, p in target.items()}
    training.pending = [(torch.zeros(2, 8), torch.zeros(2, 8), torch.arange(2))]
    follow(ready.config, ready.plan)(training, 0)
    assert int(training.queue.seen) == ready.plan.steps * 6 + 2
    assert any(not torch.equal(before[n], p) for n, p in target.items())


def test_a_step_that_is_not_finite_is_counted_and_its_keys_are_dropped(align_toy):
    """Fault: NaN is skipped silently, and the queue is fed with it."""
    ready = prepare(
        align_toy("loss.contrastive=infonce", "loss.queue=8", "average.decay=0.9", "phases=[{}]", "epochs=2")
    )
    poisoned = ready.train.pick(range(12))
    import sutura.train.align_run as module

    real = module.feed_of

    def feed(ready, device):
        found = real(ready, device)
        inner = found.micro_batches

        def micro_batches(step):
            batches = inner(step)
            if step == 1:
                batches[0] = batches[0]._replace(pixels=batches[0].pixels * float("nan"))
            return batches

        found.micro_batches = micro_batches
        return found

    module.feed_of = feed
    try:
        result = run_align(ready)
    finally:
        module.feed_of = real
    assert len(poisoned) == 12
    assert result.bad_batches == 1
    queue = ready.built.training.queue
    assert int(queue.seen) == (ready.plan.steps - 1) * 6
    assert bool(torch.isfinite(queue.images).all())
    assert len(list(read_metrics(ready.folder / "bad_batches.jsonl"))) == 1


def test_recomputed_blocks_give_the_same_gradients(align_toy):
    ready = prepare(align_toy())
    model = ready.built.training.model
    pixels, ids = torch.randn(3, 3, 16, 16), ready.built.tokenizer([ready.train.captions[0][0]])
    found = []
    for _ in range(2):
        (model.encode_image(pixels).square().sum() + model.encode_text(ids).square().sum()).backward()
        found.append([None if p.grad is None else p.grad.clone() for p in model.parameters()])
        model.zero_grad()
        recompute(model.context_encoder)
        recompute(model.text)
    for plain, again in zip(*found, strict=True):
        assert (plain is None) == (again is None)
        assert plain is None or torch.allclose(plain, again, atol=1e-6)


def test_a_collapsed_encoder_trips_the_alarm_and_scores_no_better_than_chance(align_toy, capsys):
    ready = prepare(align_toy())
    training = ready.built.training
    assert "collapsed" not in capsys.readouterr().err
    watch(ready, training, 0)
    with torch.no_grad():
        training.model.image_head[-1].weight.zero_()
        training.model.image_head[-1].bias.fill_(1.0)
    found = watch(ready, training, 7)
    assert found["picture_effective_rank"] == 0
    assert found["picture_to_text"] <= 1 / 8
    assert "step 7: picture embeddings: The features have collapsed" in capsys.readouterr().err.replace(
        "\n", " "
    )
    score = scored(ready, training.model)["standard"]
    assert score["image_to_text"]["recalls"][0]["share"] <= score["image_to_text"]["recalls"][0]["chance"]
    stopping = prepare(align_toy("look.on_collapse=stop"))
    stopping.built.training.load_state_dict(training.state_dict())
    with pytest.raises(UserError, match="on_collapse=stop"):
        watch(stopping, stopping.built.training, 1)


def test_ties_are_no_success():
    same = torch.ones(6, 4)
    found, alarms = look(same, torch.eye(6, 4))
    assert found["picture_to_text"] == 0
    assert len(alarms) == 1
    apart = torch.randn(6, 4, generator=torch.Generator().manual_seed(0))
    assert look(apart, apart)[0]["text_to_picture"] == 1
    assert effective_rank(apart) > 2


def test_a_handful_of_pairs_is_learned_by_heart(align_toy):
    config = align_toy(
        "data.source.captions_each=1",
        "data.train_limit=8",
        "batch=8",
        "epochs=240",
        "phases=[{alpha: 0.1}]",
        "loss.smoothing=0",
        "look.every=0",
        "checkpoint_every=0",
        "look.gradient_every=0",
        "optim.lr=0.003",
        "rates.image_head=1",
        "rates.text_head=1",
        "rates.predictor=1",
    )
    ready = prepare(config)
    run_align(ready)
    model, built = ready.built.training.model.eval(), ready.built
    image = embed_pictures(model.encode_image, ready.train, built.mean, built.std, "cpu")
    with torch.no_grad():
        text = model.encode_text(built.tokenizer([own[0] for own in ready.train.captions]))
    assert look(image, text)[0]["picture_to_text"] == 1.0
    rows = list(read_metrics(ready.folder / "metrics.jsonl"))
    assert rows[-1]["contrastive"] < 0.3 * rows[0]["contrastive"]


def test_a_frozen_picture_tower_cannot_hide_behind_a_rate_of_0(align_toy):
    with pytest.raises(UserError, match=r"rates\.vision"):
        align_toy("rates.vision=0")


def test_a_ratio_that_hides_all_or_nothing_is_refused_before_anything_runs(align_toy):
    with pytest.raises(UserError, match=r"predictor\.ratio: .* hides 0 of"):
        prepare(align_toy("predictor.ratio=0.001"))


def test_moving_averages_go_on_towards_a_part_that_was_frozen_after_it_trained(align_toy):
    """Fault: an average that stops where the part's last trained step left it."""
    frozen = {"alpha": 0.1, "frozen": ["vision", "text"]}
    ready = prepare(align_toy("average.decay=0.5", phases=[{"share": 0.5, "alpha": 0.1}, frozen]))
    training = ready.built.training
    model = training.model
    with torch.no_grad():
        for part in (model.context_encoder, model.text):
            for weight in part.requires_grad_(False).parameters():
                weight.add_(1.0)
    copies = dict(training.momentum.named_children())
    before = {name: [p.clone() for p in one.parameters()] for name, one in copies.items()}
    target = [p.clone() for p in model.target_encoder.parameters()]
    follow(ready.config, ready.plan)(training, ready.plan.starts[1])
    for name in ("context_encoder", "text"):
        for old, new in zip(before[name], training.momentum.get_submodule(name).parameters(), strict=True):
            torch.testing.assert_close(new, old + 0.5)
    assert all(
        not torch.equal(old, new) for old, new in zip(target, model.target_encoder.parameters(), strict=True)
    )


def test_wise_ft_is_a_mean_with_the_start(align_toy):
    ready = prepare(align_toy("average.wise=[0.25]"))
    first = {n: p.clone() for n, p in ready.first.items()}
    run_align(ready)
    towers = dict(variants(ready))
    trained, mixed = towers["trained"].state_dict(), towers["WiSE-FT (0.25 trained)"].state_dict()
    name = "image_head.1.weight"
    assert torch.allclose(mixed[name], 0.75 * first[name] + 0.25 * trained[name], atol=1e-6)
    assert not torch.allclose(mixed[name], trained[name], atol=1e-5)


def test_the_phase_of_a_frozen_target_is_shouted(align_toy, capsys):
    ready = prepare(align_toy(phases=[{"share": 0.5, "alpha": 0.1, "frozen": ["vision"]}, {"alpha": 0.1}]))
    assert isinstance(ready.plan.phases[0], Phase)
    target = ready.built.training.model.target_encoder
    run_align(ready, on_step=lambda done, row: None)
    told = capsys.readouterr().err.replace("\n", " ")
    assert "WARNING: EMA OF A FROZEN NETWORK in phase 1 (steps 1 to 4)" in told
    assert target is not None


def test_a_mean_of_recomputed_towers_is_scored_with_its_own_weights(align_toy):
    ready = prepare(align_toy("checkpointing=true", "average.wise=[0.5]"))
    with torch.no_grad():
        for weight in ready.built.training.model.parameters():
            weight.add_(0.1)
    mixed = dict(variants(ready))["WiSE-FT (0.5 trained)"]
    plain = prepare(align_toy()).built.training.model.eval()
    plain.load_state_dict(mixed.state_dict())
    pixels = torch.randn(2, 3, 16, 16)
    with torch.no_grad():
        torch.testing.assert_close(mixed.encode_image(pixels), plain.encode_image(pixels))


def test_local_views_that_cannot_be_cut_into_patches_are_refused_before_anything_runs(align_toy):
    with pytest.raises(UserError, match=r"views\.size=10 is not a multiple of .* patch of 4"):
        prepare(align_toy("views.local=1", "views.size=10"))


def test_a_start_that_is_no_folder_is_said_to_be_none(align_toy):
    with pytest.raises(UserError, match="There is no folder runs/pretrain/clip-nowhere"):
        prepare(align_toy("start.vision=runs/pretrain/clip-nowhere"))
