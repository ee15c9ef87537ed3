"""What one of the tokens that the language model reads tells of the object it shows: encoders by a probe of tokens.

Scenes are of the world's split `select`. With a comparison of `sutura compare`, the accuracy of its stitches stands
beside the probe, and how far both agree over the encoders.

    python benchmarks/object_probe.py --comparison runs/zoo
    python benchmarks/object_probe.py --encoders zoo:clip runs/pretrain/*-* --tokens 16 64 --out runs/objects.md
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from result_page import leave, zoo_encoders

from sutura.compare.probe_agreement import BENCHMARK, OBJECT, beside, correlations, stitches
from sutura.compare.tables import Table
from sutura.core.checkpoint import read_json
from sutura.core.doctor import versions
from sutura.core.errors import UserError
from sutura.core.runtime import cpu_count
from sutura.data.captions import captioned_scenes
from sutura.data.scenes import ATTRIBUTES, make_scene
from sutura.encoders import load_encoder
from sutura.encoders.catalog import zoo_folder
from sutura.encoders.from_zoo import encoder_folder
from sutura.evals.object_probe import LEAST, MEAN, ShownObjects, by_chance, probe_objects

PAGE = Path(__file__).parents[1] / "docs" / "results" / "object_probe.md"
CACHE = Path("runs/cache/scenes")
SPLIT = "select"


def measure(
    asked: Sequence[str],
    untrained: str,
    tokens: Sequence[int],
    fitted: int,
    scored: int,
    size: int,
    cache: Path,
) -> dict[str, Any]:
    """Figures of the probe: `about`, and `rows` for every number of tokens and encoder."""
    if min(fitted, scored) < 1:
        raise UserError(f"{fitted} scenes to fit on and {scored} to score; both must be at least 1.")
    sets = [
        ([load_encoder(one, tokens=n) for one in asked],
         load_encoder({"id": untrained, "untrained_seed": 0, "name": "untrained"}, tokens=n))
        for n in dict.fromkeys(tokens)
    ]  # fmt: skip
    drawn = captioned_scenes(cache, split=SPLIT, count=fitted + scored, size=size, threads=cpu_count())
    pixels = np.array(drawn.pixels[:])
    objects = ShownObjects.of([make_scene(0, SPLIT, i) for i in range(len(drawn))], size)
    rows = [row for trained, bare in sets for row in probe_objects(trained, bare, pixels, objects, fitted)]
    first = objects.picture < fitted
    about = {
        "scenes": {"split": SPLIT, "fitted": fitted, "scored": scored, "size": size, "least_pixels": LEAST},
        "objects": {"fitted": int(first.sum()), "scored": int((~first).sum())},
        "chance": by_chance(objects, fitted),
    }
    return {"about": about, "rows": [row | {"card": card(row)} for row in rows]}


def card(row: Mapping[str, Any]) -> float | None:
    """Linear probe of averaged patches that an encoder's own folder holds (mAP); None where none does."""
    folder = zoo_folder(str(row["id"]))
    config = (encoder_folder(folder) if folder.is_dir() else folder) / "config.json"
    written = read_json(config) if config.is_file() else {}
    found = written.get("probe" if row["untrained_seed"] is None else "untrained_probe") or {}
    return found.get("score")


def page(figures: Path, saved: Mapping[str, Any]) -> str:
    """The page's text."""
    about, names = saved["about"], (*ATTRIBUTES, MEAN)
    scenes, objects = about["scenes"], about["objects"]
    lines = [
        "# What a token tells of its object", "",
        "A stitch hands a grid of averaged patches to its language model, each of them one token. Asked here: how much",
        "of an object's size, colour, material and shape can be read linearly from the one token whose area holds most",
        f"of the object's pixels. Scenes are of the world's split `{scenes['split']}`; objects with fewer than",
        f"{scenes['least_pixels']} visible pixels are left out. Fitted on {objects['fitted']:,} objects of "
        f"{scenes['fitted']:,} scenes, scored on {objects['scored']:,} of {scenes['scored']:,} others:",
        "ridge regression to one-hot values, features standardised by the fitted objects, nothing chosen by score.",
        "Intervals (95 %) are by bootstrap over scenes, as objects of a scene share a picture: one set of weights an",
        "encoder, one fit. It does not tell whether place or number of objects can be read, how a language model fares",
        "with the tokens, or anything about pictures other than those of the built-in world.", "",
    ]  # fmt: skip
    for tokens in dict.fromkeys(row["tokens"] for row in saved["rows"]):
        rows = sorted(
            (row for row in saved["rows"] if row["tokens"] == tokens), key=lambda r: -r["accuracy"][MEAN]["score"]
        )  # fmt: skip
        stitched = any("stitch" in row for row in rows)
        head = (
            "encoder",
            *names,
            "mean above untrained",
            *(("stitch", "averaged patches") if stitched else ()),
        )
        cells = [
            (row["encoder"], *(_cell(row["accuracy"][name]) for name in names),
             _cell(row["above_untrained"] and row["above_untrained"][MEAN], "+"),
             *((_cell(row["stitch"], centre="mean"), _percent(row["card"])) if stitched else ()))
            for row in rows
        ]  # fmt: skip
        floor = ("*most frequent value*", *(_percent(about["chance"][name]) for name in names))
        cells.append((*floor, *("–",) * (len(head) - len(floor))))
        lines += [f"## {tokens} tokens", "", Table(head, tuple(cells)).markdown(), ""]
    lines += ["Accuracy in percent; differences in points, paired by the same draws of scenes.", ""]
    if "comparison" in about:
        lines += _agreement(saved)
    lines += ["## Repeat", "", "```", about["command"], "```", ""]
    lines += [f"- Machine: {about['machine']}", f"- {about['date']}, {about['commit']}"]
    lines += [f"- {about['seconds']:.0f} s, with the drawing of scenes that were not there yet"]
    lines += [f"- Figures: `{figures.name}`"]
    return (
        "\n".join([*lines, "- Versions: " + ", ".join(f"{k} {v}" for k, v in about["versions"].items())])
        + "\n"
    )


def _agreement(saved: Mapping[str, Any]) -> list[str]:
    compared = [row["stitch"] for row in saved["rows"] if row["stitch"]]
    told = [sorted({one[what] for one in compared}) for what in ("tokens", "seeds")]
    budget, seeds = (", ".join(map(str, one)) for one in told)
    rows = [
        (f"{row['of']}, {row['tokens']} tokens" if row["of"] == OBJECT else row["of"],
         *("–" if row[of] is None else f"{row[of]:+.2f}" for of in ("pearson", "spearman")), str(row["n"]))
        for row in saved["correlations"]
        if row["of"] == OBJECT or row["tokens"] == saved["rows"][0]["tokens"]
    ]  # fmt: skip
    return [
        f"*stitch* is the accuracy on {BENCHMARK} of the comparison `{saved['about']['comparison']}` ({budget} tokens, "
        f"{seeds} training seeds), *averaged patches* the linear probe in each encoder's folder (mAP).", "",
        *(f"- {sentence}" for sentence in saved["about"]["left_out"]), *([""] if saved["about"]["left_out"] else []),
        "## Does it go with the stitch?", "",
        Table(("probe", "Pearson", "Spearman", "encoders"), tuple(rows)).markdown(), "",
        "Correlation with the stitch's accuracy over the encoders of these tables. They are one small set of encoders, "
        "and the probe was made after their stitches were known: a description, not a test.", "",
    ]  # fmt: skip


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.1f}"


def _cell(of: Mapping[str, Any] | None, sign: str = "", centre: str = "score") -> str:
    if of is None:
        return "–"
    if of["low"] is None:
        return f"{100 * of[centre]:{sign}.1f} [–]"
    return f"{100 * of[centre]:{sign}.1f} [{100 * of['low']:{sign}.1f}, {100 * of['high']:{sign}.1f}]"


def main(words: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--encoders", nargs="+", help="as sutura compare names them; the whole zoo by default"
    )
    parser.add_argument(
        "--untrained", default="zoo:supervised", help="whose architecture, with random weights"
    )
    parser.add_argument("--tokens", nargs="+", type=int, default=[16], help="numbers of tokens to ask about")
    parser.add_argument("--fitted", type=int, default=2000, help="scenes to fit on")
    parser.add_argument("--scored", type=int, default=1000, help="scenes to score")
    parser.add_argument("--size", type=int, default=64, help="pixels along a picture's side")
    parser.add_argument("--comparison", type=Path, help="runs/<name>, as a comparison left it")
    parser.add_argument("--cache", type=Path, default=CACHE, help="for drawn scenes")
    parser.add_argument("--out", type=Path, default=PAGE, help="the page; a JSON of its name goes beside it")
    o = parser.parse_args(words)
    asked = list(dict.fromkeys(o.encoders or zoo_encoders()))
    began = time.perf_counter()
    try:
        if o.comparison:
            stitches(o.comparison, ())  # refused before scenes are drawn
        saved = measure(asked, o.untrained, o.tokens, o.fitted, o.scored, o.size, o.cache)
        if o.comparison:
            saved["about"]["comparison"] = o.comparison.name
            saved["rows"], saved["about"]["left_out"] = beside(saved["rows"], o.comparison)
            saved["correlations"] = correlations(saved["rows"])
    except UserError as error:
        sys.exit(f"object_probe: {error}")
    saved["about"]["versions"] = versions()
    leave(o.out, saved, page, script="object_probe.py", words=words, began=began)


if __name__ == "__main__":
    main()
