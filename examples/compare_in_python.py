"""A comparison as Python data: the shipped preset, edited, run, and read back from its ledgers."""

from __future__ import annotations

import polars as pl

import sutura
from sutura.compare.publish import read_comparison
from sutura.core.config import load_config
from sutura.evals.ledger import read_ledgers

config = load_config(
    sutura.CompareConfig,
    "world",
    [
        "name=two-encoders",
        "encoders=[{id: 'zoo:supervised', name: labels}, {id: 'zoo:ijepa', name: latents}]",
        "controls.text_ceiling=false",
        "seeds=[0, 1]",
        "engine.workers=0",
    ],
)

if __name__ == "__main__":  # worker processes import this file
    report = sutura.compare(config)
    print(report.read_text(encoding="utf-8").split("## Verdict")[1].split("##")[0])

    right = (
        read_ledgers(read_comparison(report.parent).ledgers)
        .group_by("encoder", "condition", "question_type")
        .agg(pl.col("exact").mean())
    )
    print(right.sort("encoder", "condition", "question_type"))
