"""Data sets of the Hub: one commit, recorded; first rows streamed; what is cached is there without a connection."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from hub.stand_in import StandIn

README = """---
configs:
- config_name: cocoqa
  data_files:
  - split: train
    path: cocoqa/train-*
---
"""
#: Loads sources given as JSON lines and prints what came of each; a process of its own, since `datasets` reads its
#: address when it is imported.
PROGRAM = """
import json, sys
from sutura.core.errors import UserError
from sutura.data.vqa import load_vqa
for line in sys.stdin:
    try:
        data = load_vqa(json.loads(line))
        print(json.dumps([len(data.pictures), data.revision, data.fingerprint, data.samples[0].answers[0]]))
    except UserError as error:
        print(json.dumps(str(error)))
"""


def png(row: int) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (24, 24), (9 * row, 40, 200 - 9 * row)).save(file, "PNG")
    return file.getvalue()


def parquet(rows: range) -> bytes:
    """Rows of the_cauldron's schema, as `datasets` writes them."""
    text = {"dtype": "string", "_type": "Value"}
    turn = {"user": text, "assistant": text, "source": text}
    features = {
        "images": {"feature": {"_type": "Image"}, "_type": "List"},
        "texts": {"feature": turn, "_type": "List"},
    }
    table = pa.table(
        {
            "images": [[{"bytes": png(row), "path": None}] for row in rows],
            "texts": [
                [{"user": f"What is {row}?", "assistant": f"answer {row}", "source": "s"}] for row in rows
            ],
        }
    ).replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    file = io.BytesIO()
    pq.write_table(table, file)
    return file.getvalue()


def picture_folder(count: int) -> dict[str, bytes]:
    """A set of picture files with their questions beside them."""
    files = {f"train/{row}.png": png(row) for row in range(count)}
    lines = [
        {"file_name": f"{row}.png", "question": f"What is {row}?", "answers": f"answer {row}"}
        for row in range(count)
    ]
    return {**files, "train/metadata.jsonl": "\n".join(map(json.dumps, lines)).encode()}


def load(hub: StandIn, home: Path, sources: list[dict[str, Any]], *, offline: bool = False) -> list[Any]:
    """What a new process makes of sources."""
    environment = {
        **os.environ,
        "HF_ENDPOINT": hub.url,
        "HF_HOME": str(home),
        "HF_HUB_OFFLINE": str(int(offline)),
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "NO_PROXY": "127.0.0.1",
    }
    lines = "".join(
        json.dumps({"source": "cauldron", "path": "hf:org/set", **source}) + "\n" for source in sources
    )
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        input=lines,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.mark.timeout(300)
def test_a_set_is_one_commit_whole_or_streamed_online_or_cached(hub: StandIn, tmp_path: Path) -> None:
    files = {
        "README.md": README.encode(),
        "cocoqa/train-00000-of-00002.parquet": parquet(range(6)),
        "cocoqa/train-00001-of-00002.parquet": parquet(range(6, 12)),
    }
    repo = hub.repo("org/set", files, "dataset")
    first = repo.refs["main"]
    changed = {"cocoqa/train-00000-of-00002.parquet": parquet(range(3, 9))}
    second = repo.commit(changed)
    hub.repo("org/gated", files, "dataset", gated=True)
    hub.repo("org/folder", picture_folder(3), "dataset")

    (streamed,) = load(hub, tmp_path / "streaming", [{"subset": "cocoqa", "stream": 4}])
    assert streamed[:2] == [4, second]
    assert streamed[3] == "answer 3"

    sources = [
        {"subset": "cocoqa"},
        {"subset": "cocoqa", "revision": first},
        {"subset": "cocoqa", "revision": "v9"},
        {"subset": "vqav2"},
        {"path": "hf:org/gated", "subset": "cocoqa"},
        {"path": "hf:org/none", "subset": "cocoqa"},
        {"path": "hf:org/folder", "source": "parquet"},
    ]
    newest, pinned, revision, subset, gated, missing, folder = load(hub, tmp_path / "home", sources)
    assert newest[:2] == [9, second]
    assert pinned[:2] == [12, first]
    assert newest[2] != pinned[2]
    assert "no revision 'v9'" in revision
    assert "vqav2" in subset
    assert "cocoqa" in subset, "the subsets there are"
    assert "gated" in gated
    assert "log in" in gated
    assert "no dataset repository 'org/none'" in missing
    assert folder[0] == 3, "pictures that are files of the set are read where they were downloaded to"

    offline = [
        {"subset": "cocoqa", "revision": first},
        {"subset": "cocoqa", "revision": second},
        {"subset": "cocoqa", "stream": 4},
        {"path": "hf:org/other"},
    ]
    cached, other, stream, nothing = load(hub, tmp_path / "home", offline, offline=True)
    assert cached == pinned, "the same rows, and the commit they came from is still known"
    assert f"what the cache got last is commit {first}" in other, "no other rows under a pinned name"
    assert "leave stream out" in stream
    assert "not in the cache, and the Hub cannot be reached" in nothing
