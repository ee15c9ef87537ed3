"""Pictures from every kind of place come to the same, and what cannot be used is told before the work starts."""

import io
import json
import tarfile

import numpy as np
import pytest
from PIL import Image

from sutura.core.errors import UserError
from sutura.data import squares
from sutura.data.picture_source import PictureSource
from sutura.data.pictures import load_pictures

COUNT, SIDE = 24, 16
KINDS = ("shards", "table", "jsonl", "folder")


def drawn(i: int) -> Image.Image:
    """Wide, tall or square; every one different."""
    size = [(40, 20), (18, 30), (16, 16)][i % 3]
    rng = np.random.default_rng(i)
    small = Image.fromarray(rng.integers(0, 256, (4, 4, 3), dtype=np.uint8))
    return small.resize(size, Image.Resampling.BICUBIC)


def encoded(i: int) -> bytes:
    file = io.BytesIO()
    drawn(i).save(file, "PNG")
    return file.getvalue()


def captions(i: int) -> list[str]:
    return [f"Picture number {i}", "un café noir"] if i % 2 else [f"a picture of the number {i}"]


NAMES = ("cat", "dog", "owl")


def place(folder, kind: str, pictures=None) -> PictureSource:
    """The same pictures, labels and captions, in one kind of source."""
    pictures = [encoded(i) for i in range(COUNT)] if pictures is None else pictures
    folder.mkdir(exist_ok=True)
    if kind == "table":
        import pyarrow as pa
        import pyarrow.parquet as pq

        columns = {
            "image": [{"bytes": data, "path": None} for data in pictures],
            "label": [NAMES[i % 3] for i in range(len(pictures))],
            "caption": [captions(i) for i in range(len(pictures))],
        }
        pq.write_table(pa.table(columns), folder / "train.parquet")
        return PictureSource(path=str(folder / "train.parquet"))
    if kind == "shards":
        with tarfile.open(folder / "00000.tar", "w") as tar:
            for i, data in enumerate(pictures):
                members = {"png": data, "cls": NAMES[i % 3].encode(), "txt": "\n".join(captions(i)).encode()}
                for name, content in members.items():
                    info = tarfile.TarInfo(f"{i:04}.{name}")
                    info.size = len(content)
                    tar.addfile(info, io.BytesIO(content))
        return PictureSource(path=str(folder))
    lines = []
    for i, data in enumerate(pictures):
        name = f"{NAMES[i % 3]}/{i:04}.png"
        (folder / NAMES[i % 3]).mkdir(exist_ok=True)
        (folder / name).write_bytes(data)
        lines.append(json.dumps({"file_name": name, "label": NAMES[i % 3], "caption": captions(i)}))
    if kind == "jsonl":
        (folder / "metadata.jsonl").write_text("\n".join(lines))
    return PictureSource(path=str(folder))


def load(source: PictureSource, cache, **changes):
    asked = {"needs": ("label", "caption"), "side": SIDE, "least": 8, "captions": 2, "check": 6}
    return load_pictures(source, cache=cache, **asked | changes)


def whole(data) -> dict[bytes, tuple]:
    """What is known of each picture, by its pixels: sources may list pictures in other orders."""
    return {
        data.pixels[[i]].tobytes(): (
            None if data.labels is None else data.label_names[data.labels[i]],
            None if data.words is None else [data.vocabulary.decode(ids.tolist()) for ids in data.words[i]],
        )
        for i in range(len(data))
    }


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_pictures_from_every_kind_of_source(kind, tmp_path):
    needs = ("label",) if kind == "folder" else ("label", "caption")
    train, check = load(place(tmp_path / kind, kind), tmp_path / "cache", needs=needs)
    assert (len(train), len(check)) == (COUNT - 6, 6)
    assert train.pixels.shape == (COUNT - 6, SIDE, SIDE, 3)
    found, held = whole(train), whole(check)
    assert len(found | held) == COUNT  # none in both, none lost
    for i in range(COUNT):
        name, words = (found | held)[squares.square(encoded(i), SIDE).tobytes()]
        assert name == NAMES[i % 3]
        if words is not None:
            own = [text.lower().replace(str(i), "<unknown>") for text in captions(i)]
            assert words == [own[0], own[-1]]  # the only one twice, where there is but one
    assert "6 pictures of the split were held out" in train.about


def test_which_pictures_are_held_out_does_not_depend_on_the_source(tmp_path):
    held = [
        set(whole(load(place(tmp_path / k, k), tmp_path / "cache")[1])) for k in ("table", "jsonl", "shards")
    ]
    assert held[0] == held[1] == held[2]


def test_pictures_are_decoded_once_and_stay_on_disk(tmp_path, monkeypatch):
    source = place(tmp_path / "x", "jsonl")
    first = load(source, tmp_path / "cache")[0]
    assert isinstance(first.pixels.base, np.memmap)
    assert isinstance(first.words, np.memmap)
    with monkeypatch.context() as patch:
        patch.setattr(squares, "decode", None)
        again = load(source, tmp_path / "cache")[0]
    assert np.array_equal(first.pixels[:], again.pixels[:])
    assert np.array_equal(first.words, again.words)
    assert first.fingerprint == again.fingerprint
    (tmp_path / "x" / "cat" / "0000.png").write_bytes(encoded(99))  # under the same name
    train, check = load(source, tmp_path / "cache")
    assert squares.square(encoded(99), SIDE).tobytes() in whole(train) | whole(check)


@pytest.mark.parametrize("kind", ["shards", "table"])
def test_live_pictures_are_the_stored_ones(kind, tmp_path):
    source = place(tmp_path / kind, kind)
    stored = load(source, tmp_path / "a")[0]
    live = load(source.model_copy(update={"live": True}), tmp_path / "b")[0]
    assert np.array_equal(stored.pixels[:], live.pixels[np.arange(len(live))])
    assert not any(path.stat().st_size for path in (tmp_path / "b").rglob("pixels.bin"))


def test_copies_of_a_picture_stay_on_one_side(tmp_path):
    twice = [encoded(i % 12) for i in range(COUNT)]
    train, check = load(place(tmp_path / "x", "jsonl", twice), tmp_path / "cache", needs=())
    assert not set(whole(train)) & set(whole(check))
    assert len(train) == COUNT - 12  # both copies of the six that are held out are gone
    assert len(whole(check)) == 6  # and the check holds no picture twice


def test_a_split_of_its_own_for_the_check_costs_training_its_doubles(tmp_path):
    place(tmp_path / "train", "folder")
    place(tmp_path / "test", "folder", [encoded(i) for i in range(20, 40)])
    source = PictureSource(path=str(tmp_path), check_split="test")
    train, check = load(source, tmp_path / "cache", needs=("label",), check=10)
    assert not set(whole(train)) & set(whole(check))
    assert len(train) == COUNT - 4
    assert "4 pictures stood in the training split too" in train.about


def test_what_cannot_be_used_is_counted_with_its_reason(tmp_path, monkeypatch):
    bad = {0: b"", 1: encoded(1)[:60], 2: b"no picture at all"}
    small = io.BytesIO()
    Image.new("RGB", (30, 7)).save(small, "PNG")
    bad[3] = small.getvalue()
    pictures = [bad.get(i, encoded(i)) for i in range(COUNT)]
    source = place(tmp_path / "x", "jsonl", pictures)
    lines = (tmp_path / "x" / "metadata.jsonl").read_text().splitlines()
    lines[4] = json.dumps({**json.loads(lines[4]), "caption": " "})
    lines[5] = json.dumps({**json.loads(lines[5]), "label": None})
    lines[6] = "{broken"
    (tmp_path / "x" / "metadata.jsonl").write_text("\n".join(lines))
    train, _ = load(source, tmp_path / "cache")
    assert len(train) == COUNT - 7 - 6
    for reason in (
        "1 zero bytes", "1 truncated", "1 not a picture", "1 smaller than a patch of 8 pixels",
        "1 no caption", "1 no label", "1 not a JSON object",
    ):  # fmt: skip
        assert reason in train.about


def test_words_that_are_rare_are_read_as_unknown_and_long_texts_are_cut(tmp_path):
    source = place(tmp_path / "x", "jsonl").model_copy(update={"most_words": 3, "longest": 2})
    train = load(source, tmp_path / "cache")[0]
    assert train.vocabulary.words[:3] == ("<pad>", "<end>", "<unknown>")
    assert len(train.vocabulary) == 6
    assert train.words.shape[2] == 3
    assert (train.words[:, :, 2] == train.vocabulary.end_id).all()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"path": "nowhere/at/all"}, "There are no pictures at 'nowhere/at/all'"),
        ({"path": "nowhere/set.parquet"}, "There are no pictures at 'nowhere/set.parquet'"),
        ({"columns": {"caption": "captoin"}}, "'captoin'.*Did you mean 'caption'"),
        ({"columns": {"picture": "image"}}, "unknown role 'picture'"),
        ({"columns": {"label": "caption"}}, "text, not classes"),
    ],
)
def test_sources_that_are_not_there_are_told_before_any_picture_is_decoded(
    changes, message, tmp_path, monkeypatch
):
    source = place(tmp_path / "x", "jsonl")
    monkeypatch.setattr(squares, "decode", None)
    with pytest.raises(UserError, match=message):
        load(source.model_copy(update=changes), tmp_path / "cache")


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("label", -1, "Label -1 is out of range"),
        ("label", 77, "Label 77 is far out of range"),
        ("label", "cat", r"same label \(cat\)"),
        ("label", None, "None of the 24 pictures .* has a label and a caption"),
        ("caption", "", "None of the 24 pictures .* has a label and a caption"),
    ],
)
def test_labels_and_captions_are_looked_through_before_any_picture_is_decoded(
    field, value, message, tmp_path, monkeypatch
):
    source = place(tmp_path / "x", "jsonl")
    path = tmp_path / "x" / "metadata.jsonl"
    rows = [json.loads(line) | {"label": i % 3} for i, line in enumerate(path.read_text().splitlines())]
    changed = rows if value in (None, "cat", "") else rows[5:6]
    for row in changed:
        row[field] = value
    path.write_text("\n".join(map(json.dumps, rows)))
    monkeypatch.setattr(squares, "decode", None)
    with pytest.raises(UserError, match=message):
        load(source, tmp_path / "cache")


def test_needs_that_a_source_cannot_meet_are_told(tmp_path):
    folder = place(tmp_path / "x", "folder")
    with pytest.raises(UserError, match=r"captions are needed.*metadata\.jsonl"):
        load(folder, tmp_path / "cache")
    (tmp_path / "x" / "loose.png").write_bytes(encoded(50))
    assert load(folder, tmp_path / "cache", needs=())[0].labels is None
    flat = folder.model_copy(update={"path": str(tmp_path / "x" / "cat")})
    with pytest.raises(UserError, match=r"has 8 pictures, all outside of any class folder"):
        load(flat, tmp_path / "cache", needs=("label",))
    (tmp_path / "bare.jsonl").write_text('{"image": "x/loose.png"}')
    with pytest.raises(UserError, match="no column for caption"):
        load(PictureSource(path=str(tmp_path / "bare.jsonl")), tmp_path / "cache", needs=("caption",))


def test_pictures_in_no_class_folder_are_set_aside_where_labels_are_needed(tmp_path):
    folder = place(tmp_path / "x", "folder")
    (tmp_path / "x" / "loose.png").write_bytes(encoded(50))
    train, check = load(folder, tmp_path / "cache", needs=("label",))
    assert "1 in no class folder (loose.png)" in train.about
    assert len(whole(train) | whole(check)) == COUNT


def test_too_few_pictures_are_told_with_the_setting_to_change(tmp_path):
    source = place(tmp_path / "x", "jsonl")
    with pytest.raises(UserError, match=r"13 of 24 pictures, more than half.*check\.fitted"):
        load(source, tmp_path / "cache", check=13)
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="There are no pictures in"):
        load(PictureSource(path=str(tmp_path / "empty")), tmp_path / "cache", needs=())
    nothing = place(tmp_path / "y", "jsonl", [b"nothing"] * 4)
    with pytest.raises(UserError, match=r"No picture of .* can be used.*4 not a picture"):
        load(nothing, tmp_path / "cache", needs=())


def test_faulty_labels_do_not_stop_who_needs_none(tmp_path, capsys):
    source = place(tmp_path / "x", "jsonl")
    path = tmp_path / "x" / "metadata.jsonl"
    rows = [json.loads(line) | {"label": -1} for line in path.read_text().splitlines()]
    path.write_text("\n".join(map(json.dumps, rows)))
    train, check = load(source, tmp_path / "cache", needs=())
    assert train.labels is None
    assert check.labels is None
    assert "without labels: Label -1 is out of range" in capsys.readouterr().err.replace("\n", " ")


def test_a_set_of_the_hub_by_its_id(tmp_path, monkeypatch):
    """Names of classes come with the set; the split and the subset that are asked for are asked of the Hub."""
    import datasets

    asked = []

    def load_dataset(name, subset, split):
        asked.append((name, subset, split))
        features = datasets.Features(
            {"img": datasets.Image(), "label": datasets.ClassLabel(names=["cat", "dog", "owl"])}
        )
        rows = {"img": [{"bytes": encoded(i), "path": None} for i in range(COUNT)]}
        return datasets.Dataset.from_dict({**rows, "label": [i % 3 for i in range(COUNT)]}, features=features)

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    monkeypatch.chdir(tmp_path)
    for path in ("somebody/animals", "hf:somebody/animals"):
        source = PictureSource(path=path, subset="small", split="train")
        train, check = load(source, tmp_path / "cache", needs=("label",))
        assert train.label_names == NAMES
        both = whole(train) | whole(check)
        assert all(both[squares.square(encoded(i), SIDE).tobytes()][0] == NAMES[i % 3] for i in range(COUNT))
    assert asked == [("somebody/animals", "small", "train")] * 2
    with pytest.raises(UserError, match="no column for caption"):
        load(source, tmp_path / "cache", needs=("caption",))


TEMPLATES = ("a photo of a {}.", "one {}")


@pytest.mark.parametrize("kind", KINDS)
def test_captions_are_made_of_labels_from_every_kind_of_source(kind, tmp_path):
    """Also in place of captions that are there; the vocabulary knows no word of those."""
    source = place(tmp_path / "set", kind).model_copy(update={"caption_templates": TEMPLATES})
    train, check = load(source, tmp_path / "cache", needs=("caption",))
    for name, texts in whole(train).values():
        assert texts == [f"a photo of a {name} .", f"one {name}"]
    assert set(train.vocabulary.words[3:]) == {".", "a", "cat", "dog", "of", "one", "owl", "photo"}
    assert check.words is None
    once = load(source, tmp_path / "cache", needs=("caption",), captions=1)[0]
    assert once.words.shape[1] == 1


def test_each_of_several_labels_gets_a_sentence_and_none_sets_a_picture_aside(tmp_path):
    source = place(tmp_path / "set", "jsonl")
    lines = [json.loads(line) for line in (tmp_path / "set/metadata.jsonl").read_text().splitlines()]
    for i, line in enumerate(lines):
        line["label"] = [["cat", "dog"], ["owl"], []][i % 3]
    (tmp_path / "set/metadata.jsonl").write_text("\n".join(map(json.dumps, lines)))
    source = source.model_copy(update={"caption_templates": ("a {}", "the {}")})
    train, _ = load(source, tmp_path / "cache", needs=("caption",), captions=9)
    told = {tuple(texts) for _, texts in zip(*train_words(train), strict=True)}
    assert told == {("a cat", "a dog", "the cat", "the dog"), ("a owl", "the owl", "a owl", "the owl")}
    assert "8 no label" in train.about


def train_words(train) -> tuple[range, list[list[str]]]:
    return range(len(train)), [[train.vocabulary.decode(ids.tolist()) for ids in row] for row in train.words]


def test_numbers_are_no_names_and_a_template_has_one_place(tmp_path):
    source = place(tmp_path / "set", "jsonl")
    path = tmp_path / "set/metadata.jsonl"
    lines = [json.loads(line) | {"label": i % 3} for i, line in enumerate(path.read_text().splitlines())]
    path.write_text("\n".join(map(json.dumps, lines)))
    named = source.model_copy(update={"caption_templates": TEMPLATES})
    with pytest.raises(UserError, match="are numbers, and captions are made of their names"):
        load(named, tmp_path / "cache", needs=("caption",))
    for wrong in ("a photo", "{} and {}"):
        with pytest.raises(ValueError, match="needs exactly one"):
            PictureSource(path=source.path, caption_templates=(wrong,))


def test_a_source_without_templates_has_the_fingerprint_it_had_before_there_were_any():
    """Fault: every finished run and every checkpoint gets another name by an option that it does not use."""
    assert "caption_templates" not in PictureSource().resolved()
    assert PictureSource(caption_templates=TEMPLATES).resolved()["caption_templates"] == list(TEMPLATES)
