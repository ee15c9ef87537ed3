"""Files whose lines name pictures: the rule for a TSV, COCO's annotations, and lists of names that divide a set."""

from __future__ import annotations

import json

import pytest

from sutura.core.errors import UserError
from sutura.data.line_files import bare_name, picture_folder, read_lines
from sutura.data.picture_rows import CAPTIONS, IMAGES
from sutura.data.rows import json_lines
from sutura.data.samples import SetAside
from sutura.data.split_lists import SplitLists, another_count, standard_count

KNOWN = [*IMAGES, *CAPTIONS]


def tsv(path, text: str):
    (path / "set.tsv").write_text(text, encoding="utf-8")
    aside = SetAside()
    return [values for _, values in read_lines(path / "set.tsv", aside, KNOWN).rows], aside


@pytest.mark.parametrize("header", ["", "image\tcaption\n", "\ufeffImage\tCaption\r\n"])
def test_a_tsv_with_and_without_a_header(header, tmp_path):
    rows, aside = tsv(tmp_path, f"{header}a.jpg\tone \u2028 text\nb.jpg\tanother\r\n\n")
    assert rows == [
        {"image": "a.jpg", "caption": "one \u2028 text"},
        {"image": "b.jpg", "caption": "another"},
    ]
    assert not len(aside)


def test_a_header_gives_the_order(tmp_path):
    rows, _ = tsv(tmp_path, "caption\timage\tsplit\none\ta.jpg\tval\n")
    assert rows == [{"caption": "one", "image": "a.jpg", "split": "val"}]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "a.jpg\tone\ttwo\n",
            r"has 3 columns in line 1 and 2 were expected \(image, caption\)\. The first line is 'a\.jpg\\tone\\ttwo'",
        ),
        ("a.jpg,one\n", r"has 1 column in line 1 .* or a header line that names its columns"),
        ("image\tcaption\na.jpg\n", r"has 1 column in line 2 and 2 were expected \(image, caption\)"),
        ("a text\thttp://x.org/a.jpg\n", r"captions and URLs .* `sutura data cc3m`"),
        ("image\timage\na\tb\n", "names a column twice: image, image"),
        ("image\tcaption\n", "a header and no line below it"),
        ("\n\n", "no line in it"),
    ],
)
def test_a_tsv_with_the_wrong_columns_is_told_with_what_was_found(text, message, tmp_path):
    with pytest.raises(UserError, match=message):
        tsv(tmp_path, text)


def test_single_lines_of_a_tsv_with_other_columns_are_set_aside(tmp_path):
    rows, aside = tsv(tmp_path, "a.jpg\tone\nb.jpg\twith\ta tab\nc.jpg\nd.jpg\tfour\n")
    assert [row["image"] for row in rows] == ["a.jpg", "d.jpg"]
    assert aside.items == {"not 2 columns": ["line 2", "line 3"]}


def test_cocos_annotations_become_a_row_a_picture(tmp_path):
    path = tmp_path / "captions_val2017.json"
    images = [{"id": 5, "file_name": "b.jpg"}, {"id": 3, "file_name": "a.jpg"}]
    notes = [
        {"id": 9, "image_id": 3, "caption": "second"},
        {"id": 2, "image_id": 3, "caption": " first "},
        {"id": 4, "image_id": 77, "caption": "of none"},
    ]
    path.write_text(json.dumps({"images": images, "annotations": notes}))
    aside = SetAside()
    found = read_lines(path, aside, KNOWN)
    assert found.layout == "coco"
    assert [values for _, values in found.rows] == [
        {"image": "b.jpg", "image_id": 5, "caption": []},
        {"image": "a.jpg", "image_id": 3, "caption": ["first", "second"]},
    ]
    assert aside.items == {"a caption of no picture": ["annotation 4"]}
    path.write_text(json.dumps({"images": images, "annotations": [{"id": 1, "image_id": 3, "bbox": []}]}))
    with pytest.raises(UserError, match=r"annotations without captions \(id, image_id, bbox\)"):
        read_lines(path, aside, KNOWN)
    path.write_text(json.dumps({"images": [{"id": 5}], "annotations": []}))
    with pytest.raises(UserError, match=r"a picture without id or file_name \(id\)"):
        read_lines(path, aside, KNOWN)
    path.write_text(json.dumps({"images": ["a.jpg"], "annotations": []}))
    with pytest.raises(UserError, match="`images` that are no objects"):
        read_lines(path, aside, KNOWN)
    path.write_text("{}")
    with pytest.raises(UserError, match="no list of JSON objects"):
        read_lines(path, aside, KNOWN)


def test_pictures_are_looked_for_where_such_files_have_them(tmp_path):
    rows = [(1, {"image": "a.jpg"})]
    (tmp_path / "annotations").mkdir()
    path = tmp_path / "annotations" / "captions_val2017.json"
    assert picture_folder(path, None, rows, "image") == path.parent
    for place in (tmp_path / "val2017", path.parent / "images", path.parent):
        place.mkdir(exist_ok=True)
        (place / "a.jpg").write_bytes(b"x")
        assert picture_folder(path, None, rows, "image") == place
    assert picture_folder(path, str(tmp_path), rows, "image") == tmp_path / "val2017"
    with pytest.raises(UserError, match="image_folder 'none' is not a folder"):
        picture_folder(path, "none", rows, "image")


def test_a_line_of_json_ends_at_a_newline_alone(tmp_path):
    """Texts of the web hold U+2028 and the like, which Python's splitlines would take for an end."""
    path = tmp_path / "set.jsonl"
    path.write_text(
        json.dumps({"caption": "a\u2028b\x85c"}, ensure_ascii=False) + "\r\n{}", encoding="utf-8-sig"
    )
    aside = SetAside()
    assert [values for _, values in json_lines(path, aside)] == [{"caption": "a\u2028b\x85c"}, {}]
    assert not len(aside)


@pytest.mark.parametrize(
    "name", ["COCO_val2014_000000391895.jpg", "val2017/000000391895.jpg", "391895", "a\\000000391895.png"]
)
def test_names_of_one_picture_come_to_the_same(name):
    assert bare_name(name) == "391895"


def test_lists_divide_a_set_and_say_what_does_not_fit(tmp_path):
    (tmp_path / "test.txt").write_text("COCO_val2014_000000000002.jpg\n9\n")
    (tmp_path / "val.json").write_text(json.dumps(["000000000003.jpg"]))
    lists = SplitLists({"test": str(tmp_path / "test.txt"), "val": str(tmp_path / "val.json")})
    pictures = [f"images/{i:012}.jpg" for i in range(5)]
    assert lists.assign(pictures) == ["train", "train", "test", "val", "train"]
    assert lists.notes == ["1 of 2 names in the list of 'test' are not in the set (9)"]
    (tmp_path / "train.txt").write_text("000000000004\n")
    three = {name: str(tmp_path / f"{name}.txt") for name in ("train", "test")}
    assert SplitLists(three).assign(pictures) == ["", "", "test", "", "train"]


@pytest.mark.parametrize(
    ("lists", "message"),
    [
        ({"test": "2\n", "val": "2\n"}, "'2' stands in the lists of 'test' and 'val'"),
        ({"test": "2\n", "val": "b/2.jpg\n"}, "'b/2.jpg' is in the lists of 'test' and 'val'"),
        ({"test": "7\n8\n"}, r"None of the 2 names in the list of 'test' \(7, …\) is in the set"),
        ({"test": "1\n"}, r"'1' in the list of 'test' fits 2 pictures \(a/1.jpg, b/1.jpg\)"),
        ({"test": "\n"}, "has no name in it"),
    ],
)
def test_lists_that_do_not_fit_are_refused(lists, message, tmp_path):
    for split, text in lists.items():
        (tmp_path / f"{split}.txt").write_text(text)
    with pytest.raises(UserError, match=message):
        SplitLists({split: str(tmp_path / f"{split}.txt") for split in lists}).assign(
            ["a/1.jpg", "b/1.jpg", "b/2.jpg"]
        )


def test_a_path_in_a_list_means_that_picture_alone(tmp_path):
    (tmp_path / "test.txt").write_text("a/1.jpg\n")
    assert SplitLists({"test": str(tmp_path / "test.txt")}).assign(["a/1.jpg", "b/1.jpg"]) == [
        "test",
        "train",
    ]


def test_standard_lists_have_their_numbers():
    assert standard_count("dataset_coco.json", "karpathy coco", "test") == 5_000
    assert standard_count("dataset_flickr30k.json", "karpathy flickr30k", "test") == 1_000
    assert standard_count("coco_karpathy_test.txt", "", "test") == 5_000
    assert standard_count("captions_val2017.json", "coco", "val") == 5_000
    assert standard_count("captions_val2017.json", "coco", "train") is None
    assert standard_count("mine.txt", "", "test") is None
    assert another_count("dataset_coco.json", "karpathy coco", "test", 5_000) == ""


def test_karpathys_file_as_a_list_of_another_number_is_said(tmp_path):
    path = tmp_path / "dataset_coco.json"
    images = [{"filename": f"COCO_val2014_{i:012}.jpg", "split": "test" if i else "train"} for i in range(3)]
    path.write_text(json.dumps({"dataset": "coco", "images": images}))
    lists = SplitLists({"test": str(path)})
    assert lists.names == {"test": ["COCO_val2014_000000000001.jpg", "COCO_val2014_000000000002.jpg"]}
    assert lists.notes == ["dataset_coco.json has 2 pictures of split 'test', the standard one has 5,000"]
