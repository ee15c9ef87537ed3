"""Zero-shot by hand, and both towers of every format against the model's own forward pass."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors.torch import save_file

from sutura.core.checkpoint import write_json
from sutura.core.errors import UserError
from sutura.data.captions import WordVocabulary
from sutura.data.labelled import LabelledPictures
from sutura.data.samples import PictureTurns, SetAside
from sutura.encoders import catalog
from sutura.encoders.text import load_two_tower
from sutura.evals.zero_shot import PHOTOS, WORLD, class_embeddings, templates_for, zero_shot, zero_shot_scores
from sutura.models.clip import CLIP, TextTransformer
from sutura.models.siglip import SigLIP
from sutura.models.vit import ViT
from sutura.models.zoo_format import save_zoo_vit
from tiny_encoders import MEAN, STD, TINY, scramble, write_processor

WORDS = ("a", "photo", "of", "cat", "dog", "red", "cube", "small", "green", "thing", ".")
NAMES, TEMPLATE = ("cat", "red cube"), ("a photo of a {}.", "small {}")


@pytest.fixture
def pictures() -> list[Image.Image]:
    rng = np.random.default_rng(0)
    return [Image.fromarray(rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)) for _ in range(3)]


def data_of(
    pictures: list[Image.Image], classes: tuple[str, ...] = NAMES, name: str = "set"
) -> LabelledPictures:
    class Shown:
        def __init__(self, image: Image.Image) -> None:
            self.image = image

        def open(self) -> Image.Image:
            return self.image

    turns = [PictureTurns(str(i), Shown(p), ()) for i, p in enumerate(pictures)]
    hashes = tuple(t.image_id for t in turns)
    return LabelledPictures(
        name, "test", turns, np.zeros(len(turns), np.int64), classes, hashes, "f", SetAside()
    )


def save_tokenizer(folder: Path) -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    vocabulary = {word: i for i, word in enumerate(("<pad>", "<bos>", "<eos>", "<unk>", *WORDS))}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<bos> $A <eos>", special_tokens=[("<bos>", 1), ("<eos>", 2)]
    )
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", bos_token="<bos>", eos_token="<eos>", unk_token="<unk>"
    ).save_pretrained(folder)


def save_transformers(folder: Path, kind: str) -> Any:
    import transformers

    text = {
        "hidden_size": 32,
        "intermediate_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "vocab_size": 20,
        "max_position_embeddings": 12,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "pad_token_id": 0,
        "projection_size": 32,
    }
    config = getattr(transformers, f"{kind}Config")(text_config=text, vision_config=TINY)
    torch.manual_seed(0)
    model = scramble(getattr(transformers, f"{kind}Model")(config).eval())
    model.save_pretrained(folder)
    write_processor(folder)
    save_tokenizer(folder)
    return model


def sentence_ids(texts: list[str], length: int | None) -> torch.Tensor:
    """Ids by hand; padded to the longest, or to a length."""
    number = {word: i + 4 for i, word in enumerate(WORDS)}
    rows = [[1, *(number[w] for w in t.replace(".", " .").split()), 2] for t in texts]
    longest = length or max(map(len, rows))
    return torch.tensor([row + [0] * (longest - len(row)) for row in rows])


def test_zero_shot_by_hand():
    image = torch.tensor([[2.0, 0.0], [1.0, 1.0]])
    text = torch.tensor([[[3.0, 0.0], [0.0, 0.5]], [[-1.0, 0.0], [-4.0, 0.0]]])
    half = 2**-0.5
    assert torch.allclose(class_embeddings(text), torch.tensor([[half, half], [-1.0, 0.0]]))
    assert torch.allclose(zero_shot(image, text), torch.tensor([[half, -1.0], [1.0, -half]]), atol=1e-6)


def test_a_long_sentence_embedding_does_not_outweigh_the_others():
    """Fault: templates averaged before they are normalised, so one of them decides."""
    text = torch.tensor([[[100.0, 0.0], [0.0, 1.0]]])
    assert torch.allclose(class_embeddings(text), F.normalize(torch.ones(1, 2)))


@pytest.mark.parametrize("kind", ["CLIP", "Siglip"])
@torch.no_grad()
def test_transformers_towers_equal_the_models_own_logits(
    kind: str, tmp_path: Path, pictures: list[Image.Image]
) -> None:
    """Fault: SigLIP's texts padded to the longest, or masked; CLIP's own projections never used."""
    model = save_transformers(tmp_path, kind)
    tower = load_two_tower(str(tmp_path))
    texts = ["a photo of a cat.", "red cube"]
    pixels = torch.stack([tower.transform(p) for p in pictures])
    ids = sentence_ids(texts, 12 if kind == "Siglip" else None)
    extra = {} if kind == "Siglip" else {"attention_mask": (ids != 0).long()}
    out = model(input_ids=ids, pixel_values=pixels, **extra)
    bias = model.logit_bias if kind == "Siglip" else 0.0
    expected = (out.logits_per_image - bias) / model.logit_scale.exp()
    mine = zero_shot(tower.encode_image(pictures), tower.encode_text(texts)[:, None])
    torch.testing.assert_close(mine, expected, atol=1e-5, rtol=1e-4)

    scores = zero_shot_scores(tower, data_of(pictures), TEMPLATE, batch=2)
    sentences = [t.format(n) for n in NAMES for t in TEMPLATE]
    text = F.normalize(tower.encode_text(sentences), dim=1).unflatten(0, (2, 2)).mean(1)
    wanted = F.normalize(tower.encode_image(pictures), dim=1) @ F.normalize(text, dim=1).T
    assert scores == pytest.approx(wanted.numpy(), abs=1e-5)


def test_what_all_class_sentences_share_does_not_rank_pictures(pictures: list[Image.Image]) -> None:
    """Fault: with several labels a picture, a direction that every sentence has decides which pictures come first."""
    shared, own = 10.0, torch.eye(2)
    image = torch.tensor([[1.0, 0.0, 0.2], [0.0, 1.0, 3.0], [1.0, 1.0, 0.1]])[: len(pictures)]
    text = torch.cat([own, torch.full((2, 1), shared)], dim=1)
    tower = SimpleNamespace(
        encode_image=lambda found: image[[pictures.index(p) for p in found]],
        encode_text=lambda sentences: torch.stack([text[int("red" in sentence)] for sentence in sentences]),
    )
    single = data_of(pictures)
    several = replace(single, labels=np.eye(2, dtype=np.int64)[np.arange(len(pictures)) % 2])
    plain, apart = (zero_shot_scores(cast("Any", tower), data, ("a {}.",)) for data in (single, several))
    assert plain[1].min() > plain[0].max()  # picture 1 holds most of what is shared
    assert apart.mean(axis=1) == pytest.approx(0, abs=1e-6)
    assert (plain.argmax(axis=1) == apart.argmax(axis=1)).all()
    assert apart[0, 0] > apart[1, 0]


@pytest.mark.parametrize("custom", [False, True], ids=["clip", "siglip"])
@torch.no_grad()
def test_open_clip_towers_equal_the_models_own(
    custom: bool, tmp_path: Path, pictures: list[Image.Image]
) -> None:
    import open_clip

    text = {"context_length": 16, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1}
    vision = {"image_size": 32, "patch_size": 8, "width": 32, "layers": 2, "head_width": 8}
    config: dict[str, Any] = {"embed_dim": 16, "vision_cfg": vision, "text_cfg": text}
    cls = open_clip.model.CLIP
    if custom:
        cls, config["init_logit_bias"] = open_clip.model.CustomTextCLIP, -10.0
    torch.manual_seed(0)
    model = scramble(cls(**json.loads(json.dumps(config))).eval())
    weights = {k: v.contiguous() for k, v in model.state_dict().items()}
    save_file(weights, tmp_path / "open_clip_model.safetensors")
    config |= {"custom_text": True} if custom else {}
    preprocess = {"mean": MEAN, "std": STD, "resize_mode": "squash"}
    write_json(tmp_path / "open_clip_config.json", {"model_cfg": config, "preprocess_cfg": preprocess})
    tower = load_two_tower(str(tmp_path))
    texts = ["a photo of a cat", "cube"]
    ids = open_clip.SimpleTokenizer(context_length=16)(texts)
    torch.testing.assert_close(tower.encode_text(texts), model.encode_text(ids), atol=1e-5, rtol=1e-5)
    pixels = torch.stack([tower.transform(p) for p in pictures])
    torch.testing.assert_close(tower.encode_image(pictures), model.encode_image(pixels), atol=1e-5, rtol=1e-5)
    broken = {k: v for k, v in weights.items() if "text_projection" not in k}
    save_file(broken, tmp_path / "open_clip_model.safetensors")
    with pytest.raises(UserError, match=r"1 missing \(.*text_projection"):
        load_two_tower(str(tmp_path))


ARGS = {"image_size": 32, "patch_size": 8, "width": 16, "depth": 1, "heads": 2, "pooling": "mean"}


def save_run(
    folder: Path, objective: str, vocabulary: WordVocabulary, *, with_text: bool = True
) -> CLIP | SigLIP:
    """The folder that a pretraining run leaves, exact on disk; the model that it holds."""
    torch.manual_seed(0)
    text = TextTransformer(len(vocabulary), 9, 12, 2, 2, vocabulary.end_id)
    model = scramble((SigLIP if objective == "siglip" else CLIP)(ViT(**ARGS), text, 8).eval())
    save_zoo_vit(
        folder / "encoder",
        model.vision,
        args=ARGS,
        transform={"image_size": 32, "mean": MEAN, "std": STD},
        about={"objective": objective, "data": "elsewhere"},
        card="card",
        towers=model if with_text else None,
        words=vocabulary.words,
        dtype=torch.float32,
    )
    return model


@pytest.mark.parametrize("objective", ["clip", "siglip", "eva"])
@torch.no_grad()
def test_a_pretraining_run_of_ours_keeps_its_text_tower(
    objective: str, tmp_path: Path, pictures: list[Image.Image]
) -> None:
    vocabulary = WordVocabulary.of([" ".join(WORDS)])
    model = save_run(tmp_path, objective, vocabulary)
    tower = load_two_tower(str(tmp_path))
    ids = torch.from_numpy(vocabulary.encode(["a red cube.", "dog"]).astype(np.int64))
    assert torch.equal(tower.encode_text(["a red cube.", "dog"]), model.encode_text(ids))
    pixels = torch.stack([tower.transform(p) for p in pictures])
    assert torch.equal(tower.encode_image(pictures), model.encode_image(pixels))
    with pytest.raises(UserError, match="'zebra' in 'a zebra' is not one of the 13 words"):
        tower.encode_text(["a zebra"])
    with pytest.raises(UserError, match=r"longest sentence has 10 words with its end.*holds 9"):
        tower.encode_text(["a dog", "a " * 9])


@torch.no_grad()
def test_a_member_of_the_zoo_a_run_and_its_encoder_are_read_alike(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A folder that is called `encoder` with anything else in it is read as what it is."""
    vocabulary = WordVocabulary.of([" ".join(WORDS)])
    model = save_run(tmp_path / "clip-1", "clip", vocabulary)
    shutil.copytree(tmp_path / "clip-1/encoder", tmp_path / "zoo/seer")
    monkeypatch.setattr(catalog, "zoo_root", lambda: tmp_path / "zoo")
    ids = torch.from_numpy(vocabulary.encode(["a dog"]).astype(np.int64))
    run = tmp_path / "clip-1"
    for given, name in ((str(run), "clip-1"), (str(run / "encoder"), "clip-1"), ("zoo:seer", "seer")):
        tower = load_two_tower(given)
        assert tower.name == name
        assert not any(weight.requires_grad for weight in tower.model.parameters())
        assert torch.equal(tower.encode_text(["a dog"]), model.encode_text(ids))
        with pytest.raises(UserError, match=f"words that {name} was trained with"):
            tower.encode_text(["zebra"])
    save_transformers(tmp_path / "other" / "encoder", "CLIP")
    assert type(load_two_tower(str(tmp_path / "other" / "encoder")).model).__name__ == "CLIPModel"


def test_what_has_no_text_tower_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    vocabulary = WordVocabulary.of(["a"])
    save_run(tmp_path / "a", "clip", vocabulary, with_text=False)
    save_run(tmp_path / "b", "mae", vocabulary, with_text=False)
    (tmp_path / "zoo").mkdir()
    for run, name in (("a", "clip"), ("b", "mae")):
        shutil.copytree(tmp_path / run / "encoder", tmp_path / "zoo" / name)
    monkeypatch.setattr(catalog, "zoo_root", lambda: tmp_path / "zoo")
    for given in (str(tmp_path / "a"), "zoo:clip"):
        with pytest.raises(UserError, match=r"holds no text\.safetensors.*2026-11-26.*`sutura pretrain`"):
            load_two_tower(given)
    for given in (str(tmp_path / "b"), "zoo:mae"):
        with pytest.raises(UserError, match="was pretrained by 'mae', without a text tower"):
            load_two_tower(given)
    with pytest.raises(UserError, match=r"no encoder 'clpi'.*'clip'"):
        load_two_tower("zoo:clpi")
    (tmp_path / "c").mkdir()
    with pytest.raises(UserError, match="is no two-tower model"):
        load_two_tower(str(tmp_path / "c"))
    with pytest.raises(UserError, match=r"has no text tower that can be read.*zoo:NAME"):
        load_two_tower(str(tmp_path / "nowhere"))


def test_a_text_tower_that_was_lost_is_told_apart_from_one_that_never_was(tmp_path: Path) -> None:
    save_run(tmp_path / "a", "clip", WordVocabulary.of(["a"]))
    (tmp_path / "a" / "encoder" / "text.safetensors").unlink()
    with pytest.raises(UserError, match=r"has lost its text\.safetensors"):
        load_two_tower(str(tmp_path / "a"))
    (tmp_path / "b" / "encoder").mkdir(parents=True)
    write_json(tmp_path / "b" / "encoder" / "config.json", ["no", "config"])
    with pytest.raises(UserError, match="no two-tower model"):
        load_two_tower(str(tmp_path / "b"))


def test_words_of_another_order_than_the_text_towers_are_refused(tmp_path: Path) -> None:
    """Fault: a vocabulary of the right size whose end stands elsewhere, so that texts are read at another word."""
    save_run(tmp_path, "clip", WordVocabulary.of(["a"]))
    write_json(tmp_path / "encoder/vocabulary.json", ["<end>", "<pad>", "a"])
    with pytest.raises(UserError, match="'<end>' does not stand at place 1 in the vocabulary"):
        load_two_tower(str(tmp_path))


def test_templates_fit_the_data_or_are_refused(pictures: list[Image.Image]) -> None:
    assert templates_for(data_of(pictures), None) == PHOTOS
    assert templates_for(data_of(pictures, name="world"), None) == WORLD
    for bad in (["no place"], ["{} and {}"], []):
        with pytest.raises(UserError, match="exactly one"):
            templates_for(data_of(pictures), bad)
    with pytest.raises(UserError, match="are numbers; zero-shot needs names"):
        templates_for(data_of(pictures, ("0", "1")), None)
