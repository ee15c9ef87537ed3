"""Benchmarks of real pictures: rows of `evals/benchmarks.py` as plain data.

the_cauldron publishes a training split only. Its rows here hold out a share of the pictures by a hash of the picture's
bytes, the same in every run and for every set that holds the same file; training data names the rest with
`part: train` and the same `test_share`. A benchmark of this kind is not the original one's test split, and its note
says so. Where the original validation set is on the Hub with its ten answers, it has a row of its own.
"""

from __future__ import annotations

from typing import Any

CAULDRON = "hf:HuggingFaceM4/the_cauldron"
#: Share of a set's pictures that is held out.
HELD_OUT = 0.1

_RULE = (
    f"Held out here: {HELD_OUT:.0%} of the pictures of the_cauldron's training split, by a hash of their bytes, since "
    "the set publishes no other split; not the original test split. Train with part=train and the same test_share."
)
_QUOTED = "for the original test split, as quoted by others; not checked against the paper here"
_CLEVR = f"Johnson et al. 2017, arXiv:1705.03633, {_QUOTED}"
_COCOQA = f"Ren et al. 2015, arXiv:1505.02074, {_QUOTED}"
_VQAV2 = f"Goyal et al. 2017, arXiv:1612.00837, {_QUOTED}"


def _held_out(
    subset: str, kind: str, note: str, floors: tuple[tuple[str, float, str], ...] = ()
) -> dict[str, Any]:
    data = {
        "source": "cauldron",
        "path": CAULDRON,
        "subset": subset,
        "split": "train",
        "part": "test",
        "test_share": HELD_OUT,
    }
    return {"data": data, "split": "train", "answer_kind": kind, "floors": floors, "note": f"{note} {_RULE}"}


ROWS: dict[str, dict[str, Any]] = {
    "daquar": {
        "data": {"source": "cauldron"},
        "split": "test",
        "answer_kind": "open",
        "floors": (
            ("majority", 0.050, "counted on the official test split: most frequent answer"),
            ("question only", 0.177, "counted on the official test split: longest question prefix in train"),
        ),
        "note": "Real indoor photographs; about a tenth of the answers are comma lists. Needs a path.",
    },
    "cauldron/clevr": _held_out(
        "clevr",
        "word",
        "Rendered scenes, compositional questions.",
        (
            ("majority per type", 0.418, f"question-type mode, {_CLEVR}"),
            ("question only", 0.468, f"an LSTM, {_CLEVR}"),
        ),
    ),
    "cauldron/cocoqa": _held_out(
        "cocoqa",
        "word",
        "Questions made from COCO captions, one-word answers.",
        (("question only", 0.375, f"a bag of words, {_COCOQA}"),),
    ),
    "cauldron/tallyqa": _held_out(
        "tallyqa", "number", "Counting; no floor is quoted, the majority row measures one."
    ),
    "cauldron/scienceqa": _held_out(
        "scienceqa", "choice", "Multiple choice; the answer is a letter behind `Answer:`."
    ),
    "cauldron/vqav2": _held_out(
        "vqav2",
        "open",
        "One answer a question, so VQA accuracy does not apply; vqav2/validation has ten.",
        (("question only", 0.443, f"language only, in VQA accuracy, {_VQAV2}"),),
    ),
    "vqav2/validation": {
        "data": {
            "source": "parquet",
            "path": "hf:lmms-lab/VQAv2",
            "split": "validation",
            "columns": {"item_id": "question_id", "answers": "answers", "question_type": "answer_type"},
        },
        "split": "validation",
        "answer_kind": "crowd",
        "metric": "vqa",
        "floors": (("question only", 0.443, f"language only, {_VQAV2}"),),
        "note": "The original validation split, ten answers a question: VQA accuracy. 7 GB to download; "
        "first_rows=20000 reads a part.",
    },
}
