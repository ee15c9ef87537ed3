"""Probes of the zoo as one page: linear, k-NN, attentive and few-shot of every encoder, zero-shot where texts are read.

All encoders are probed on the same pictures through the cache of features that stitches share. Zero-shot takes the
text tower that an encoder's own folder holds; what was trained with texts and holds none is named on the page.

    python benchmarks/zoo_probes.py
    python benchmarks/zoo_probes.py --data DIR/cifar10 --encoders runs/pretrain/*-* --out runs/probes/cifar10.md
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from result_page import leave, zoo_encoders

import sutura
from sutura.compare.zoo_page import probe_lines
from sutura.core.errors import UserError
from sutura.encoders.catalog import zoo_folder
from sutura.encoders.from_zoo import encoder_folder
from sutura.evals.probe_config import USUAL
from sutura.models.zoo_format import has_text, read_zoo_config
from sutura.train.methods import METHODS

PAGE = Path(__file__).parents[1] / "docs" / "results" / "zoo_probes.md"


def encoder_row(asked: str) -> dict[str, str]:
    """Id and name of an encoder.

    Args:
        asked: `zoo:NAME`, a zoo folder, or the folder of a pretraining run.

    Raises:
        UserError: no such encoder.
    """
    if asked.startswith("zoo:"):
        return {"id": asked, "name": asked.removeprefix("zoo:")}
    folder = encoder_folder(Path(asked))
    return {"id": str(folder), "name": str(read_zoo_config(folder).get("name") or folder.name)}


def reads_texts(row: Mapping[str, str]) -> bool:
    """Whether the encoder was trained beside a text tower."""
    objective = str(read_zoo_config(zoo_folder(row["id"])).get("objective"))
    return objective in METHODS and METHODS.get(objective).supervision == "captions"


def measure(
    rows: Sequence[Mapping[str, str]],
    data: Mapping[str, Any] | str,
    *,
    keep: Path,
    seed: int = 0,
    overrides: Sequence[str] = (),
) -> dict[str, Any]:
    """Figures of all probes: `about` and `rows` as `sutura probe --out` writes them.

    Args:
        rows: encoders, as `encoder_row` gives them.
        data: as `sutura.probe` takes it.
        keep: the file that figures are written to; every picture's scores go beside it.
        seed: of the untrained encoder's weights, which is built as the first encoder is.
        overrides: of the probes, `section.key=value`.
    """
    untrained = {"id": rows[0]["id"], "untrained_seed": seed, "name": "untrained"}
    whole = sutura.probe([*rows, untrained], data, USUAL, overrides, out=keep)
    saved = {"about": dict(whole.about), "rows": list(whole.rows)}
    towers = [row for row in rows if has_text(zoo_folder(row["id"]))]
    notes = [f"Zero-shot of {row['name']}: its folder holds no text tower."
             for row in rows if reads_texts(row) and row not in towers]  # fmt: skip
    if towers:
        beside = keep.with_name(f"{keep.stem}-zeroshot.json")
        found = sutura.probe(towers, data, "zeroshot", overrides, out=beside)
        parts = saved["about"]["parts"]["test"]["fingerprint"]
        if found.about["parts"]["test"]["fingerprint"] != parts:
            raise UserError("Zero-shot was scored on other pictures than the probes; run the script again.")
        saved["rows"] += found.rows
        templates = found.rows[0]["chosen"]["templates"]
        notes.append(f"Zero-shot: {len(templates)} templates ({'; '.join(templates)}); nothing is fitted.")
    saved["about"]["notes"] = [*whole.about["notes"], *notes]
    return saved


def page(figures: Path, saved: Mapping[str, Any]) -> str:
    """The page's text."""
    about = saved["about"]
    kinds = list(dict.fromkeys(row["probe"] for row in saved["rows"]))
    fitted = {kind: next(r["fitted"] for r in saved["rows"] if r["probe"] == kind) for kind in kinds}
    lines = ["# Probes", "", *probe_lines(figures)]
    told = ", ".join(f"{kind} {count:,}" for kind, count in fitted.items() if count)
    lines += [f"Pictures fitted on: {told}.", "", "## Repeat", "", "```", about["command"], "```", ""]
    lines += [f"- Machine: {about['machine']}", f"- {about['date']}, {about['commit']}"]
    lines += [f"- {about['seconds'] / 60:.1f} min with features", f"- Figures: `{figures.name}`"]
    lines += ["- Versions: " + ", ".join(f"{k} {v}" for k, v in about["versions"].items())]
    return "\n".join(lines) + "\n"


def main(words: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", default="world", help="as sutura probe --data")
    parser.add_argument("--encoders", nargs="+", help="zoo:NAME or folders; the whole zoo by default")
    parser.add_argument("--limits", nargs=3, type=int, metavar=("FIT", "SELECT", "TEST"), help="pictures")
    parser.add_argument("--untrained", type=int, default=0, help="seed of the untrained encoder")
    parser.add_argument("--scores", type=Path, default=Path("runs/probes"), help="for every picture's scores")
    parser.add_argument("--out", type=Path, default=PAGE, help="the page; a JSON of its name goes beside it")
    parser.add_argument("--set", nargs="*", default=[], metavar="section.key=value", help="of the probes")
    o = parser.parse_args(words)
    asked = o.encoders or zoo_encoders()
    names = ("limit", "select_limit", "test_limit") if o.limits else ()
    limits = [f"data.{name}={count}" for name, count in zip(names, o.limits or (), strict=True)]
    began = time.perf_counter()
    try:
        rows = [encoder_row(name) for name in asked]
        o.scores.mkdir(parents=True, exist_ok=True)
        saved = measure(
            rows, o.data, keep=o.scores / f"{o.out.stem}.json", seed=o.untrained,
            overrides=[*limits, *o.set],
        )  # fmt: skip
    except UserError as error:
        sys.exit(f"zoo_probes: {error}")
    leave(o.out, saved, page, script="zoo_probes.py", words=words, began=began)


if __name__ == "__main__":
    main()
