"""A probe of encoders beside what their stitches reached, and how far both go together over the encoders."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import rankdata

from sutura.compare.config import CompareConfig
from sutura.compare.publish import read_comparison
from sutura.compare.report import encoder_facts, headline
from sutura.compare.scores import Arm, Scores, common_items, common_seeds
from sutura.compare.statistics import accuracy
from sutura.core.config import parse
from sutura.core.errors import UserError
from sutura.encoders import load_encoder
from sutura.evals.ledger import read_ledgers
from sutura.evals.object_probe import MEAN

BENCHMARK = "world/test"
#: Fewest encoders over which a correlation is told.
FEWEST = 3
#: Which probe a correlation is of.
OBJECT, AVERAGED = "object's token", "averaged patches"


def stitches(
    directory: Path, asked: Collection[tuple[str, int | None]] | None = None
) -> tuple[dict[tuple[str, int | None], dict[str, Any]], list[str]]:
    """Accuracy of a comparison's stitches on the world's test, by the encoder's id and seed of random weights.

    Args:
        asked: the ids and seeds that are wanted; all of the comparison's by default.

    Returns:
        It, and a sentence for whatever seeds or questions were left out as not everybody has them.

    Raises:
        UserError: no comparison there, one without that benchmark, two rows of one encoder, or weights that have
            changed since.
    """
    comparison = read_comparison(directory)
    frame, left_out = common_seeds(read_ledgers(comparison.ledgers))
    frame, lost = common_items(frame)
    metric = headline(BENCHMARK, comparison.notes.get("metrics") or {})
    scores, facts = Scores.of(frame, BENCHMARK, metric), encoder_facts(comparison.trained)
    found: dict[tuple[str, int | None], dict[str, Any]] = {}
    for row in parse(CompareConfig, comparison.config, where="the comparison's config").encoder_rows():
        name, key = row.display_name(), (row.id, row.untrained_seed)
        if Arm(name) not in scores.arms or (asked is not None and key not in asked):
            continue
        if key in found:
            raise UserError(f"{directory} compares {row.id} twice, so which of them to take is not known.")
        read, told = accuracy(scores, Arm(name)), facts.get(name, {})
        found[key] = {
            "name": name, "mean": read.mean, "low": read.low, "high": read.high, "seeds": read.n_seeds,
            "tokens": told.get("num_tokens"), "fingerprint": told.get("fingerprint"),
        }  # fmt: skip
    return found, [*left_out, *lost]


def beside(rows: Sequence[dict[str, Any]], directory: Path) -> tuple[list[dict[str, Any]], list[str]]:
    """The rows with what stitches of the same encoder reached; None where the comparison lacks it.

    An untrained encoder's weights are a function of its seed and are not compared.

    Returns:
        Rows, and the sentences of `stitches`.

    Raises:
        UserError: what `stitches` refuses, an encoder whose weights or layer are not those compared, or none in common.
    """
    compared, left_out = stitches(directory, {(row["id"], row["untrained_seed"]) for row in rows})
    out = []
    for row in rows:
        stitch = compared.get((row["id"], row["untrained_seed"]))
        if stitch is not None and stitch["fingerprint"] is not None and row["untrained_seed"] is None:
            now = load_encoder(row["id"], tokens=stitch["tokens"]).fingerprint
            if now != stitch["fingerprint"]:
                raise UserError(
                    f"{row['id']}: what is probed is not what {directory} compared (fingerprint {now}, compared was "
                    f"{stitch['fingerprint']}): other weights or another layer. Run the comparison again."
                )
        out.append(row | {"stitch": stitch})
    if all(row["stitch"] is None for row in out):
        raise UserError(f"{directory} compares none of these encoders: {', '.join(r['id'] for r in rows)}.")
    return out, left_out


def correlations(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """How far each probe goes with the stitch over encoders; `n` says over how many, None where they are too few."""
    out = []
    for tokens in dict.fromkeys(row["tokens"] for row in rows):
        mine = [row for row in rows if row["tokens"] == tokens and row.get("stitch")]
        for what in (OBJECT, AVERAGED):
            pairs = [
                (probe, row["stitch"]["mean"])
                for row in mine
                if (probe := row["accuracy"][MEAN]["score"] if what == OBJECT else row["card"]) is not None
            ]
            told: dict[str, float | None] = {"pearson": None, "spearman": None}
            if len(pairs) >= FEWEST:
                probes, reached = ([pair[side] for pair in pairs] for side in (0, 1))
                if min(len(set(probes)), len(set(reached))) > 1:
                    told["pearson"] = float(np.corrcoef(probes, reached)[0, 1])
                    told["spearman"] = float(np.corrcoef(rankdata(probes), rankdata(reached))[0, 1])
            out.append({"tokens": tokens, "of": what, **told, "n": len(pairs)})
    return out
