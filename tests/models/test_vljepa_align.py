import math

import pytest
import torch
import torch.nn.functional as F

from sutura.losses.contrastive import clip_loss, sigmoid_loss
from sutura.models.clip import TextTransformer
from sutura.models.ijepa import Predictor, layer_normalise
from sutura.models.momentum import MomentumTowers
from sutura.models.projection_heads import ClipHead, mlp_head
from sutura.models.text_encoder import TextEncoder
from sutura.models.vit import ViT
from sutura.models.vljepa_align import AlignVLJEPA
from sutura.nn.block import initialise
from sutura.nn.masking import RectangleMask

END = 9
IDS = torch.tensor([[3, 4, END, 0], [2, 5, 6, END], [7, END, 0, 0]])


def tiny(
    predicts: bool = True, bias: float | None = None, bert: bool = False, heads=ClipHead, dim: int = 5
) -> AlignVLJEPA:
    vision = ViT(16, 4, 12, 2, 3, cls=True, pooling="cls")
    text = TextEncoder(10, 6, 8, 1, 2, pad_id=0) if bert else TextTransformer(10, 6, 8, 1, 2, end_id=END)
    predictor = Predictor((4, 4), 12, 8, 1, 2) if predicts else None
    for i, part in enumerate((vision, text, predictor)):
        if part is not None:
            initialise(part, torch.Generator().manual_seed(i))
    torch.manual_seed(0)
    return AlignVLJEPA(vision, text, predictor, heads(12, dim), heads(8, dim), math.log(10), bias)


def batch_of(pictures: int = 3):
    draw = torch.Generator().manual_seed(0)
    pixels = torch.randn(pictures, 3, 16, 16, generator=draw)
    return pixels, *RectangleMask((4, 4)).sample(pictures, draw)


def test_guesses_at_two_hidden_places_differ_and_follow_their_places():
    """Fault: the predictor has no positional embedding, so identical mask tokens give identical guesses."""
    model = tiny()
    pixels, context, masked = batch_of()
    guesses, wanted = model.predict(pixels, context, masked)
    assert guesses.shape == wanted.shape == (3, 12, 12)
    assert float((guesses[:, 1:] - guesses[:, :1]).detach().abs().amax(dim=2).min()) > 1e-3
    order = torch.randperm(12, generator=torch.Generator().manual_seed(1))
    moved, also = model.predict(pixels, context, masked[:, order])
    torch.testing.assert_close(moved, guesses[:, order])
    torch.testing.assert_close(also, wanted[:, order])


def test_the_context_never_sees_what_is_hidden():
    model = tiny()
    pixels, context, masked = batch_of()
    changed = pixels.clone()
    for picture in range(3):
        for place in masked[picture].tolist():
            row, column = divmod(place, 4)
            changed[picture, :, 4 * row : 4 * row + 4, 4 * column : 4 * column + 4] += 3.0
    torch.testing.assert_close(
        model.predict(changed, context, masked)[0], model.predict(pixels, context, masked)[0]
    )
    assert not torch.allclose(
        model.predict(changed, context, masked)[1], model.predict(pixels, context, masked)[1]
    )


def test_hidden_patches_are_dropped_before_the_trunk():
    model = tiny()
    seen: list[int] = []
    model.context_encoder.blocks[0].register_forward_hook(lambda m, given, out: seen.append(out.shape[1]))
    model.predict(*batch_of())
    assert seen == [1 + 4]  # CLS and a quarter of 16 patches


def test_targets_are_the_target_encoders_view_of_the_whole_picture():
    model = tiny()
    with torch.no_grad():
        for parameter in model.target_encoder.parameters():
            parameter.add_(0.1)
    pixels, context, masked = batch_of()
    whole = layer_normalise(model.target_encoder(pixels)[1]["normed"])
    expected = torch.stack([whole[i, masked[i]] for i in range(3)])
    torch.testing.assert_close(model.predict(pixels, context, masked)[1], expected)


def test_the_target_encoder_gets_no_gradient_and_stays_in_eval_mode():
    model = tiny().train()
    guesses, wanted = model.predict(*batch_of())
    assert not wanted.requires_grad
    F.mse_loss(guesses, wanted).backward()
    assert all(p.grad is None and not p.requires_grad for p in model.target_encoder.parameters())
    assert not model.target_encoder.training
    assert model.context_encoder.training
    for part in (model.context_encoder, model.predictor):
        assert all(p.grad is not None for p in part.parameters())
    assert all(p.grad is None for p in (*model.text.parameters(), *model.image_head.parameters()))


@pytest.mark.parametrize("bert", [False, True], ids=["causal", "bidirectional"])
def test_forward_names_what_the_single_calls_give(bert):
    model = tiny(bias=-10.0, bert=bert)
    pixels, context, masked = batch_of()
    out = model(pixels, IDS, context, masked)
    torch.testing.assert_close(out["image"], model.encode_image(pixels))
    torch.testing.assert_close(out["text"], model.encode_text(IDS))
    torch.testing.assert_close(out["image_pooled"], model.context_encoder(pixels)[1]["prefix"][:, 0])
    guesses, wanted = model.predict(pixels, context, masked)
    torch.testing.assert_close((out["guesses"], out["wanted"]), (guesses, wanted))
    assert float(out["bias"]) == -10.0
    assert set(tiny(predicts=False)(pixels, IDS)) == {
        "image_pooled",
        "text_pooled",
        "image",
        "text",
        "log_scale",
    }


@pytest.mark.parametrize("kind", ["infonce", "sigmoid"])
def test_a_handful_of_pairs_is_learned_while_patches_are_predicted(kind):
    model = tiny(bias=None if kind == "infonce" else -2.0, bert=kind == "sigmoid", heads=mlp_head, dim=16)
    with torch.no_grad():
        model.text.words.weight.mul_(5.0)  # so that words differ from the first step on
    draw = torch.Generator().manual_seed(0)
    colours = 2 * torch.cat([torch.eye(3), -torch.ones(1, 3)])
    pixels = colours[:, :, None, None] + torch.randn(4, 3, 16, 16, generator=draw)
    ids = torch.tensor([[word, END] for word in range(1, 5)])
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=0.008)
    masks = RectangleMask((4, 4))
    first = last = 0.0
    for step in range(100):
        out = model(pixels, ids, *masks.sample(4, draw))
        if kind == "infonce":
            aligned = clip_loss(out["image"], out["text"], out["log_scale"])
        else:
            aligned = sigmoid_loss(out["image"], out["text"], out["log_scale"], out["bias"])
        loss = F.mse_loss(out["guesses"], out["wanted"])
        first, last = (float(loss), last) if step == 0 else (first, float(loss))
        optimizer.zero_grad()
        (aligned + 0.1 * loss).backward()
        optimizer.step()
        model.clamp_scale()
    with torch.no_grad():
        cosines = (
            F.normalize(model.encode_image(pixels), dim=1) @ F.normalize(model.encode_text(ids), dim=1).T
        )
    assert torch.equal(cosines.argmax(dim=0), torch.arange(4))
    assert torch.equal(cosines.argmax(dim=1), torch.arange(4))
    assert last < 0.9 * first
    assert float(model.log_scale) != pytest.approx(math.log(10), abs=1e-3)
    if kind == "sigmoid":
        assert float(model.bias) != pytest.approx(-2.0, abs=1e-3)


def test_the_scale_is_held_and_the_bias_belongs_to_the_sigmoid_loss():
    """Fault: SigLIP without bias, or with a fixed temperature."""
    model = tiny(predicts=False, bias=-10.0)
    for value, held in ((9.0, 100.0), (-9.0, 0.01), (1.0, math.e)):
        with torch.no_grad():
            model.log_scale.fill_(value)
        model.clamp_scale()
        assert float(model.log_scale.exp()) == pytest.approx(held, rel=1e-4)
    names = dict(model.named_parameters())
    assert names["log_scale"].requires_grad
    assert names["bias"].requires_grad
    assert "bias" not in dict(tiny(predicts=False).named_parameters())


def test_what_cannot_predict_is_refused():
    pixels, context, masked = batch_of()
    with pytest.raises(ValueError, match="aligns only"):
        tiny(predicts=False).predict(pixels, context, masked)
    with pytest.raises(ValueError, match="Pictures of 36 patches, the predictor has 16 places"):
        tiny().predict(torch.zeros(3, 3, 24, 24), context, masked)
    model = tiny()
    with pytest.raises(ValueError, match="9 places, the encoder a grid of 4×4"):
        AlignVLJEPA(
            model.context_encoder,
            model.text,
            Predictor((3, 3), 12, 8, 1, 2),
            model.image_head,
            model.text_head,
        )


def test_keys_of_the_queue_come_from_networks_that_move_slowly():
    """Fault: a queue of student keys."""
    from sutura.losses.queue import NegativeQueue
    from sutura.train.ema import update_ema

    model = tiny(predicts=False)
    slow, queue = MomentumTowers(model), NegativeQueue(8, 5)
    pixels = batch_of()[0]
    start = model.encode_image(pixels).detach(), model.encode_text(IDS).detach()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2)
    torch.testing.assert_close(slow.keys(pixels, IDS), start)
    before = {name: p.clone() for name, p in slow.named_parameters()}
    for copied, part in slow.pairs(model):
        update_ema(copied, part, 0.9)
    trained = dict(model.named_parameters())
    for name, parameter in slow.named_parameters():
        torch.testing.assert_close(parameter, 0.9 * before[name] + 0.1 * trained[name])
    keys = slow.keys(pixels, IDS)
    queue.push(*keys, torch.arange(3))
    student = model.encode_image(pixels)
    negatives = queue.negatives(torch.tensor([7, 8, 9]))
    torch.testing.assert_close(negatives.images, keys[0])
    assert not torch.allclose(negatives.images, student, atol=1e-3)
    loss = clip_loss(student, model.encode_text(IDS), model.log_scale, negatives=negatives)
    loss.backward()
    assert all(p.grad is None for p in slow.parameters())
    assert not slow.train().training
    model.text.requires_grad_(False)
    assert len(list(slow.pairs(model))) == 3
