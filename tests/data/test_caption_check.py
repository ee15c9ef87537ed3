"""What `sutura data check` says of a set."""

from __future__ import annotations

import json

from data.test_caption_source import jsonl, lines, pictures
from sutura.data.caption_check import check


def test_every_split_is_read_and_what_is_wrong_is_shown_with_examples(tmp_path):
    source = jsonl(tmp_path / "x", same={2: 10, 5: 4})
    path = tmp_path / "x" / "set.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    rows[7]["captions"] = ["", "picture number 6"]
    path.write_text("\n".join(map(json.dumps, rows)))
    seen = []
    text = check(source.path, show=1, least=8, on_progress=lambda *now: seen.append(now))
    assert "| train | 5 | 10 | 2 | 3, 3.5, 4 | 1 |" in text
    assert "| val | 3 | 5 | 1–2 | 3, 3, 4 | 1 |" in text
    assert "- 1 set aside: also in the split 'test'\n    - 0002.png" in text
    assert "- 1 set aside: empty caption\n    - line 8" in text
    assert "- 1 pictures stand there under more than one name\n    - 0004.png, 0005.png" in text
    assert "- 2 captions are not the only one with their text\n    - 2 × picture number 6" in text
    assert seen == [
        ("train", 6, 6),
        ("train", 3, 3),
        ("train", 3, 3),
    ]  # what training is compared with is kept


def test_a_set_without_splits_is_looked_at_whole(tmp_path):
    pictures(tmp_path)
    rows = [{"image": f"{i:04}.png", "text": f"text {i}"} for i in range(12)]
    text = check(lines(tmp_path / "set.jsonl", rows).path, least=8)
    assert "| all | 12 | 12 | 1 | 2, 2, 2 | 0 |" in text
    (tmp_path / "set.tsv").write_bytes(b"0001.png\tcaf\xe9\n0002.png\ta text\n")
    assert "- 1 captions hold bytes that are no UTF-8\n    - caf" in check(str(tmp_path / "set.tsv"), least=8)
    divided = check(
        str(tmp_path / "set.jsonl"), ["divide=content", "test_share=0.4", "val_share=0.3"], least=8
    )
    assert "| train | " in divided
    assert "| test | " in divided


def test_a_file_gives_the_set_its_name(tmp_path):
    """Fault: a file in /tmp was called `tmp`."""
    source = jsonl(tmp_path / "x")
    text = check(source.path, least=8)
    assert "captions of set.jsonl, split train" in text
    assert "captions of mine, split train" in check(source.path, ["name=mine"], least=8)
    assert "name" not in source.resolved(), "runs keep the name they had"
