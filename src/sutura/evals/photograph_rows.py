"""Benchmarks of real pictures: rows of `evals/benchmarks.py` as plain data.

Names of sets on the Hub and of their columns were taken from public code that reads them, which docs/metrics.md names;
none was downloaded here. A floor stands here where a source says it; where none was found, none stands.

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


_CLEVR_FLOORS = (
    ("majority per type", 0.418, f"question-type mode, {_CLEVR}"),
    ("question only", 0.468, f"an LSTM, {_CLEVR}"),
)
_COCOQA_FLOORS = (("question only", 0.375, f"a bag of words, {_COCOQA}"),)
_BALANCED = "half of the questions of each kind are right with yes, Li et al. 2023, arXiv:2305.10355"


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


def _tallyqa() -> dict[str, dict[str, Any]]:
    """The original test split, whole, simple and complex."""
    row = {
        "data": {
            "source": "parquet",
            "path": "hf:vikhyatk/tallyqa-test",
            "split": "test",
            "columns": {"questions": "qa", "question_type": "is_simple"},
        },
        "split": "test",
        "answer_kind": "number",
        "note": "The original test questions, several a row; simple ones can be answered by finding objects of one "
        "kind. No floor was found that could be checked.",
    }
    parts = {"": (), "/simple": ("simple",), "/complex": ("not simple",)}
    return {f"tallyqa/test{name}": {**row, "question_types": types} for name, types in parts.items()}


def _pope() -> dict[str, dict[str, Any]]:
    """POPE on COCO, whole and by how the absent objects were drawn."""
    row = {
        "data": {
            "source": "parquet",
            "path": "hf:lmms-lab/POPE",
            "split": "test",
            # Its question ids begin anew in each category.
            "columns": {"image_id": "image_source", "question_type": "category", "item_id": ""},
        },
        "split": "test",
        "answer_kind": "word",
        "floors": (("majority", 0.5, _BALANCED),),
        "note": "Is an object there? The report adds precision, recall, F1 and the share of yes.",
    }
    parts = {"": ()} | {f"/{name}": (name,) for name in ("random", "popular", "adversarial")}
    return {f"pope{name}": {**row, "question_types": types} for name, types in parts.items()}


def _sugarcrepe() -> dict[str, dict[str, Any]]:
    """SugarCrepe: which of two captions fits, by the likelihood of each."""
    found = {}
    for part in ("add_obj", "add_att", "replace_obj", "replace_att", "replace_rel", "swap_obj", "swap_att"):
        found[f"sugarcrepe/{part}"] = {
            "data": {
                "source": "parquet",
                "path": f"hf:HuggingFaceM4/SugarCrepe_{part}",
                "split": "test",
                "columns": {"choices": "tested_labels", "answer_index": "true_label"},
                "options": {"question": "What does the picture show?"},
            },
            "split": "test",
            "answer_kind": "choice",
            "metric": "likelihood_token",
            "floors": (("chance", 0.5, "two captions, one of which fits"),),
            "note": "One of two captions, by likelihood per token; the plain sum favours the shorter one. Captions "
            "differ in what language alone finds likely: read it beside the blind row.",
        }
    return found


def _nlvr(split: str) -> dict[str, Any]:
    return {
        "data": {"source": "nlvr", "split": split},
        "split": split,
        "answer_kind": "word",
        "note": "The first NLVR: one drawn picture, true or false. Path names the folder nlvr of its repository, with "
        "the pictures. NLVR2 has no row: its sentences need two photographs at once.",
    }


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
        _CLEVR_FLOORS,
    ),
    "cauldron/cocoqa": _held_out(
        "cocoqa",
        "word",
        "Questions made from COCO captions, one-word answers.",
        _COCOQA_FLOORS,
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
        "metric": "vqa_official",
        "version": "2",
        "floors": (("question only", 0.443, f"language only, {_VQAV2}"),),
        "note": "The original validation split, ten answers a question: VQA accuracy by the official normalisation "
        "(version 1 was judged by `vqa`, which is still beside it). 7 GB to download; first_rows=20000 reads a part.",
    },
    "clevr/val": {
        "data": {"source": "clevr", "split": "val"},
        "split": "val",
        "answer_kind": "word",
        "floors": _CLEVR_FLOORS,
        "note": "The original validation split: path names the unpacked CLEVR_v1.0 folder.",
    },
    "cocoqa/test": {
        "data": {"source": "cocoqa", "split": "test"},
        "split": "test",
        "answer_kind": "word",
        "floors": _COCOQA_FLOORS,
        "note": "The original test split: path names the unpacked folder, image_folder that of COCO's pictures "
        "of 2014.",
    },
    "gqa/testdev": {
        "data": {
            "source": "parquet",
            "path": "hf:lmms-lab/GQA",
            "subset": "testdev_balanced_instructions",
            "split": "testdev",
            "columns": {"item_id": "id", "image_id": "imageId"},
            "options": {"images": {"subset": "testdev_balanced_images"}},
        },
        "split": "testdev",
        "answer_kind": "word",
        "floors": (
            ("question only", 0.421, "a blind LSTM, Hudson and Manning 2019, arXiv:1902.09506, abstract"),
        ),
        "note": "The balanced test-dev questions; their pictures lie in another subset of the set.",
    },
    "scienceqa/image-test": {
        "data": {
            "source": "parquet",
            "path": "hf:lmms-lab/ScienceQA",
            "subset": "ScienceQA-IMG",
            "split": "test",
            "columns": {"answer_index": "answer", "context": "hint"},
        },
        "split": "test",
        "answer_kind": "choice",
        "metric": "rotated",
        "floors": (
            (
                "chance",
                0.4008,
                "random choice on questions with a picture: column IMG of the set's own leaderboard",
            ),
        ),
        "note": "Questions with a picture alone, options listed under letters, each item asked once a rotation of "
        "them. `exact` asks without the options and means little here.",
    },
    **_tallyqa(),
    **_pope(),
    **_sugarcrepe(),
    "nlvr/dev": _nlvr("dev"),
    "nlvr/test": _nlvr("test"),
}
