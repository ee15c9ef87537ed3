"""`sutura jepa eval`: what is run once, what stands in the table, and training pictures in the test set."""

from __future__ import annotations

import json
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from sutura.core.errors import UserError
from sutura.core.hashing import fingerprint_bytes
from sutura.data.image_texts import ImageTexts
from sutura.data.samples import SetAside
from sutura.evals import joint
from sutura.evals.jepa import evaluate
from sutura.evals.joint import Named, load_joint
from sutura.evals.retrieval_run import RetrievalConfig, embed, repeats, retrieval_table, score
from sutura.evals.seen_pictures import read_seen, seen_in_test, seen_pictures, write_seen
from tiny_joint import (
    SIDE,
    load_patchwork,
    patchwork,
    patchwork_model,
    save_joint_run,
    tower_of,
    write_gallery,
)


@pytest.fixture(autouse=True)
def _loader(monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs in these tests are patchwork models."""
    monkeypatch.setitem(joint.LOADERS, "align", ("tiny_joint", load_patchwork.__name__))


def gallery(
    pictures: list[Image.Image], captions: list[tuple[str, ...]] | None = None, name: str = "set/test"
) -> ImageTexts:
    """Pictures of any size as the data room gives them: squares, and hashes of what they were before."""
    squares = np.stack(
        [np.asarray(p.convert("RGB").resize((SIDE, SIDE), Image.Resampling.BICUBIC)) for p in pictures]
    )
    content = tuple(fingerprint_bytes(p.tobytes(), str(p.size).encode()) for p in pictures)
    ids = tuple(f"{name}-{i}" for i in range(len(pictures)))
    said = captions or [(f"picture {i}", f"again {i}") for i in range(len(pictures))]
    return ImageTexts(name, squares, tuple(said), ids, content, "f", SetAside(), "about")


def jpeg(picture: Image.Image) -> Image.Image:
    held = BytesIO()
    picture.save(held, "JPEG", quality=85)
    return Image.open(held).convert("RGB")


def test_a_table_of_a_run_its_start_and_chance(tmp_path: Path) -> None:
    data = write_gallery(tmp_path / "data", range(60))
    run = save_joint_run(tmp_path / "good-1", weights=patchwork_model(), start=patchwork_model(aligned=False))
    out = tmp_path / "figures.json"
    text = evaluate(
        [str(run)],
        str(data),
        [f"cache={tmp_path / 'cache'}", "protocols=[standard,one-caption,in-batch]", "batch=16"],
        out=out,
    )
    lines = text.splitlines()
    assert [line for line in lines if line.startswith("## ")] == [
        "## standard",
        "## one-caption",
        "## in-batch",
    ]
    start, good, chance = (
        next(x for x in lines if x.startswith(f"| {n}")) for n in ("good-1 (start)", "good-1 |", "chance")
    )
    assert good.split("|")[2:5] == [" 60 ", " 180 ", " 100.0 [94.0, 100.0] "]
    assert good.rstrip(" |").endswith("600.0 [563.9, 600.0]")
    assert chance.split("|")[4].strip() == "1.67"
    assert float(start.split("|")[4].split()[0]) < 15
    assert text.count("training pictures are not recorded") == 2
    facts = json.loads(out.read_text())
    assert [row["model"] for row in facts["models"]] == ["good-1 (start)", "good-1"]
    assert facts["models"][1]["scores"][0]["rsum"] == 600
    assert facts["config"]["split"] == "test"
    assert facts["repeats"] == {"texts": 0, "pictures": 0}


def test_towers_run_once_and_see_each_picture_and_wording_once() -> None:
    model = patchwork_model()
    pictures = [patchwork(i) for i in (0, 1, 2, 3, 1)]
    said = [("picture 0", "the 0"), ("picture 1",), ("picture 2", "the 0"), ("picture 3",), ("picture 1",)]
    data = gallery(pictures, said)
    config = RetrievalConfig(protocols=("standard", "one-caption", "in-batch"), in_batch=2, batch=3)
    found = score(tower_of(model), data, config, Named("m", "m"))
    assert [x for x in model.seen if isinstance(x, int)] == [3, 1]
    assert [x for x in model.seen if isinstance(x, str)] == [
        "picture 0",
        "the 0",
        "picture 1",
        "picture 2",
        "picture 3",
    ]
    assert [one.protocol for one in found.scores] == list(config.protocols)
    assert repeats(data) == type(repeats(data))(texts=4, pictures=2)
    images, texts, owner = embed(tower_of(model), data, batch=2)
    assert torch.equal(images[1], images[4])
    assert torch.equal(texts[1], texts[4])
    assert owner.tolist() == [0, 0, 1, 2, 2, 3, 4]
    assert found.scores[0].image_to_text.tied == 3  # picture 0 with the wording at 2, and the two copies


def test_a_planted_overlap_is_found_and_scores_stand_with_and_without_it(tmp_path: Path) -> None:
    """Fault: test pictures inside the training split. The model knows nothing but these."""
    test = [patchwork(i) for i in range(40)]
    train = [patchwork(i) for i in range(1000, 1050)]
    train[3], train[7], train[30] = (
        test[0],
        jpeg(patchwork(1, 128)),
        test[2].resize((75, 75), Image.Resampling.BICUBIC),
    )
    model = patchwork_model(known=2)
    run = save_joint_run(tmp_path / "leaky-1", weights=model)
    write_seen(run, gallery(train, name="set/train"))
    seen = read_seen(run)
    assert seen is not None
    found = seen_in_test(seen, gallery(test))
    assert (found.exact, found.near) == ((0,), (1, 2))
    assert (
        "3 of 40 pictures of set/test are in set/train (1 with the same pixels, 2 re-encoded"
        in found.summary()
    )

    row = score(tower_of(model), gallery(test), RetrievalConfig(), Named("leaky", str(run), run), found)
    assert (row.scores[0].pictures, row.unseen[0].pictures, row.unseen[0].texts) == (40, 37, 74)
    r1 = [one.text_to_image.recalls[0].share for one in (row.scores[0], row.unseen[0])]
    assert r1[0] >= 3 / 40 + r1[1] * 37 / 40 - 1e-9
    assert row.facts()["training_pictures"]["exact"] == 1

    clean = seen_in_test(seen_pictures(gallery(train[10:30], name="set/train")), gallery(test))
    assert clean.rows == ()
    assert clean.summary().startswith("No picture of set/test (40) is in set/train (20), neither")


def test_the_overlap_stands_in_the_table(tmp_path: Path) -> None:
    data = write_gallery(tmp_path / "data", range(12))
    run = save_joint_run(tmp_path / "r-1", weights=patchwork_model())
    write_seen(
        run, gallery([patchwork(5).resize((64, 64), Image.Resampling.NEAREST), patchwork(99)], name="t/train")
    )
    text = retrieval_table([str(run)], str(data), [f"cache={tmp_path / 'cache'}"])
    assert "1 of 12 pictures" in text
    assert "| r-1, without its training pictures | 11 | 33 |" in text


def test_a_set_too_large_for_looks_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("sutura.evals.seen_pictures.LOOKS_UP_TO", 2)
    seen = write_seen(tmp_path, gallery([patchwork(0), jpeg(patchwork(1)), patchwork(2)], name="s/train"))
    found = seen_in_test(seen, gallery([patchwork(0), patchwork(1)]))
    assert (found.exact, found.near) == ((0,), ())
    assert found.summary().endswith("Only the same pixels were looked for.")
    assert read_seen(tmp_path / "none") is None
    (tmp_path / "training-pictures.npz").write_bytes(b"PK")
    with pytest.raises(UserError, match=r"training-pictures\.npz is damaged"):
        read_seen(tmp_path)


def test_a_collapsed_model_is_named(tmp_path: Path) -> None:
    model = patchwork_model()
    with torch.no_grad():
        model.image.zero_()
        model.text.zero_()
    data = write_gallery(tmp_path / "data", range(10), captions=1)
    run = save_joint_run(tmp_path / "flat-1", weights=model)
    text = retrieval_table([str(run)], str(data), [f"cache={tmp_path / 'cache'}"])
    assert "| flat-1 | 10 | 10 | 0.0 [" in text
    assert "R@1 would be 10.0 by lot" in text
    assert "flat-1: every query ties; the embeddings have collapsed." in text


def test_bad_models_and_words_are_told(tmp_path: Path) -> None:
    data = write_gallery(tmp_path / "data", range(4))
    cache = f"cache={tmp_path / 'cache'}"
    model = patchwork_model()
    with torch.no_grad():
        model.text[0, 0] = float("nan")
    broken = save_joint_run(tmp_path / "nan-1", weights=model)
    with pytest.raises(UserError, match="12 of 12 text embeddings are not finite"):
        retrieval_table([str(broken)], str(data), [cache])
    with pytest.raises(UserError, match="'nan-1' is given twice"):
        retrieval_table([str(broken), str(broken)], str(data), [cache])
    with pytest.raises(UserError, match=r"holds no weights\.safetensors: the run is not finished"):
        load_joint(str(save_joint_run(tmp_path / "half-1")))
    with pytest.raises(UserError, match=r"holds no average\.safetensors"):
        load_joint(str(broken / "average.safetensors"))
    with pytest.raises(
        UserError,
        match=r"a run of the form 'conditioned', .* retrieval needs the form align.*is not trained anew",
    ):
        load_joint(str(save_joint_run(tmp_path / "other-1", form="conditioned", weights=model)))
    with pytest.raises(UserError, match="has no text tower that can be read"):
        retrieval_table(["nowhere"], str(data), [cache])
    for gone in (str(tmp_path / "gone"), "runs/jepa/gone", "./gone"):
        with pytest.raises(UserError, match=r"There is no folder .*gone\. Give a run"):
            retrieval_table([gone], str(data), [cache])
    with pytest.raises(UserError, match=r"protocol: unknown key.*protocols"):
        retrieval_table([str(broken)], str(data), [cache, "protocol=standard"])
    with pytest.raises(UserError, match=r"'figures.csv' does not end in \.json"):
        retrieval_table([str(broken)], str(data), [cache], out=Path("figures.csv"))


def test_other_weights_of_a_run_have_rows_of_their_own(tmp_path: Path) -> None:
    run = save_joint_run(tmp_path / "r-1", weights=patchwork_model(), average=patchwork_model(aligned=False))
    rows = joint.named([str(run), str(run / "average.safetensors"), "hf:org/name"])
    assert [(row.name, row.run) for row in rows] == [
        ("r-1", run),
        ("r-1 (average)", run),
        ("hf:org/name", None),
    ]
    average = load_joint(rows[1].spec).model
    assert not torch.equal(average.image, average.text)
