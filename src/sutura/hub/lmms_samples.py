"""Ledgers as the samples that lmms-eval logs: a JSON object a line, one file a benchmark and run.

Source: `save_results_samples` in lmms_eval/loggers/evaluation_tracker.py and the logged sample in
lmms_eval/evaluator.py, lmms-eval 0.7.3. A sample has `doc_id`, `input` (the prompt), `target` (the right answer as
text), `filtered_resps` (the answer), `resps` where it differs, `token_counts`, `doc_hash`, and its metrics by name.
Differs: `input` is the question as the ledger has it, without a prompt template; `doc_hash` is of the item's id,
    question and references, since the original document is not in a ledger; the fields under `sutura` are not
    lmms-eval's.
"""

from __future__ import annotations

import json
import re
from hashlib import sha256
from pathlib import Path
from typing import Any

import polars as pl

from sutura.core.checkpoint import atomic_file
from sutura.core.errors import UserError
from sutura.evals.ledger import SCORES


def lmms_samples(frame: pl.DataFrame) -> list[dict[str, Any]]:
    """The rows of one run on one benchmark as samples, by item id."""
    samples = []
    for number, row in enumerate(frame.sort("item_id").iter_rows(named=True)):
        asked = json.dumps([row["item_id"], row["question"], row["references"]], ensure_ascii=False)
        scores = {name: row[name] for name in SCORES if row[name] is not None}
        samples.append(
            {
                "doc_id": number,
                "target": row["references"][0] if len(row["references"]) == 1 else str(row["references"]),
                "filtered_resps": row["prediction"],
                "token_counts": [None],
                "doc_hash": sha256(asked.encode()).hexdigest(),
                **scores,
                "input": row["question"],
                "sutura": {
                    name: row[name]
                    for name in ("item_id", "image_id", "question_type", "stopped", "choices")
                    if row[name] not in ("", None, [])
                },
            }
        )
    return samples


def write_lmms_samples(frame: pl.DataFrame, directory: Path) -> list[Path]:
    """Write `<run>/sutura_samples_<benchmark>.jsonl` for every run of a ledger.

    Args:
        frame: a ledger.
        directory: receives a folder a run, named by encoder, condition and seed.

    Returns:
        The files, in order.

    Raises:
        UserError: a file that is there already, or two runs whose names become one.
    """
    written: list[Path] = []
    groups = frame.partition_by("encoder", "condition", "seed", "benchmark", as_dict=True)
    for (encoder, condition, seed, benchmark), part in sorted(groups.items()):
        folder = directory / _plain(f"{encoder}__{condition}__seed{seed}")
        path = folder / f"sutura_samples_{_plain(str(benchmark))}.jsonl"
        if path in written or path.exists():
            raise UserError(f"{path} exists already; name another folder with --out.")
        folder.mkdir(parents=True, exist_ok=True)
        lines = [json.dumps(sample, ensure_ascii=False) for sample in lmms_samples(part)]
        with atomic_file(path) as temporary:
            temporary.write_text("\n".join(lines) + "\n", encoding="utf-8")
        written.append(path)
    return written


def _plain(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9._-]+", "_", name).strip("_") or "_"
