"""A probe beside stitches: whose figures stand together, and their correlation."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.stats import pearsonr, spearmanr

from compare_on_disk import make_comparison
from sutura.compare import probe_agreement
from sutura.compare.probe_agreement import AVERAGED, OBJECT, beside, correlations, stitches
from sutura.core.checkpoint import read_json, write_json
from sutura.core.errors import UserError

PROBES = (0.672, 0.736, 0.809, 0.843, 0.854, 0.867, 0.890)
STITCHES = (0.542, 0.540, 0.607, 0.629, 0.716, 0.763, 0.775)


def row(
    id: str, score: float, *, card: float | None = 0.5, stitch: float | None = None, tokens: int = 16
) -> Any:
    return {
        "id": id, "untrained_seed": None, "tokens": tokens, "card": card,
        "accuracy": {"mean": {"score": score}}, "stitch": None if stitch is None else {"mean": stitch},
    }  # fmt: skip


def test_correlations_are_those_of_the_definitions() -> None:
    cards = (0.5, 0.6, 0.6, 0.99, 0.78, None, 0.85)
    rows = [
        row(str(i), probe, card=card, stitch=stitch)
        for i, (probe, card, stitch) in enumerate(zip(PROBES, cards, STITCHES, strict=True))
    ]
    found = {one["of"]: one for one in correlations([*rows, row("none", 0.1)])}
    probe, stitch = np.array(PROBES), np.array(STITCHES)
    a, b = probe - probe.mean(), stitch - stitch.mean()
    assert found[OBJECT]["pearson"] == pytest.approx((a @ b) / np.sqrt((a @ a) * (b @ b)))
    assert found[OBJECT]["pearson"] == pytest.approx(pearsonr(PROBES, STITCHES)[0])
    assert found[OBJECT]["spearman"] == pytest.approx(spearmanr(PROBES, STITCHES)[0])
    ranks = np.array([2, 1, 3, 4, 5, 6, 7])
    assert found[OBJECT]["spearman"] == pytest.approx(1 - 6 * ((ranks - range(1, 8)) ** 2).sum() / (7 * 48))
    assert found[OBJECT]["n"] == 7
    assert found[AVERAGED]["n"] == 6  # one folder tells no probe
    tied, others = np.array([1, 2.5, 2.5, 6, 4, 5]), np.array([2, 1, 3, 4, 5, 6])
    assert found[AVERAGED]["spearman"] == pytest.approx(np.corrcoef(tied, others)[0, 1])


def test_numbers_of_tokens_are_apart_and_too_few_encoders_give_none() -> None:
    rows = [
        row(str(i), p, stitch=s, tokens=t)
        for t in (4, 16)
        for i, (p, s) in enumerate(zip(PROBES, STITCHES, strict=True))
    ]
    rows[0]["stitch"] = None
    assert [(one["tokens"], one["n"]) for one in correlations(rows)] == [(4, 6), (4, 6), (16, 7), (16, 7)]
    few = correlations(rows[7:9])
    assert [(one["pearson"], one["spearman"], one["n"]) for one in few] == [(None, None, 2)] * 2
    same = correlations(rows[7:])[1]
    assert (same["pearson"], same["n"]) == (None, 7)  # cards that are all equal


def test_an_encoder_stands_beside_its_own_stitch_and_other_weights_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fault: the encoder was trained again, and its new probe stands beside the stitch of the old weights."""
    directory = make_comparison(tmp_path, encoders={"clip": 0.9, "vit": 0.5})
    whole = read_json(directory / "comparison.json")
    whole["config"]["data"]["train"] = {}
    write_json(directory / "comparison.json", whole)
    found, left_out = stitches(directory)
    assert left_out == []
    assert set(found) == {("zoo:clip", None), ("zoo:vit", None)}
    assert found["zoo:clip", None]["mean"] > 0.8 > found["zoo:vit", None]["mean"]
    assert found["zoo:clip", None]["seeds"] == 2
    rows, _ = beside([row("zoo:clip", 0.7), row("zoo:other", 0.6)], directory)
    assert rows[0]["stitch"] == found["zoo:clip", None]
    assert rows[1]["stitch"] is None
    with pytest.raises(UserError, match="compares none of these encoders: zoo:other"):
        beside([row("zoo:other", 0.6)], directory)

    cells = list((tmp_path / "cells").glob("*/cell.json"))
    for cell in cells:
        told = read_json(cell)
        told["encoder_facts"]["fingerprint"] = f"{told['encoder']} then"
        write_json(cell, told)

    class Now:
        fingerprint = "clip then"

    monkeypatch.setattr(probe_agreement, "load_encoder", lambda *_, **__: Now)
    assert beside([row("zoo:clip", 0.7)], directory)[0][0]["stitch"]["mean"] > 0.8
    Now.fingerprint = "clip now"
    with pytest.raises(UserError, match=r"fingerprint clip now, compared was clip then"):
        beside([row("zoo:clip", 0.7)], directory)

    whole["cells"].remove(next(c.parent.name for c in cells if read_json(c)["encoder"] == "vit"))
    write_json(directory / "comparison.json", whole)
    Now.fingerprint = "clip then"
    rows, left_out = beside([row("zoo:clip", 0.7)], directory)
    assert rows[0]["stitch"]["seeds"] == 1
    assert left_out
