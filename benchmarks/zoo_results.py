"""Write docs/results/zoo.md from what `sutura compare --preset zoo` left behind.

Every figure comes from ledgers, from the configs in the encoders' folders, and from files of `sutura probe --out`.
Words above the page's mark are kept.

    python benchmarks/zoo_results.py runs/zoo --probes runs/probes/world.json --probes runs/probes/cifar10.json
"""

from __future__ import annotations

import argparse
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from sutura.compare.publish import read_comparison
from sutura.compare.zoo_page import members, write_page, zoo_page
from sutura.core.errors import UserError

PAGE = Path(__file__).parents[1] / "docs" / "results" / "zoo.md"


def write(runs: Path, out: Path, probes: Sequence[Path]) -> Path:
    """The page, and beside it the comparison's plots, shown at its end."""
    comparison = read_comparison(runs)
    text = zoo_page(comparison, members(comparison), probes)
    plots = sorted((runs / "plots").glob("*.png"))
    if plots:
        (out.parent / out.stem).mkdir(parents=True, exist_ok=True)
        text += "\n## Plots\n"
    for plot in plots:
        shutil.copyfile(plot, out.parent / out.stem / plot.name)
        text += f"\n![{plot.stem.replace('-', ' ')}]({out.stem}/{plot.name})\n"
    write_page(out, text)
    return out


def main(words: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("runs", type=Path, help="runs/<name>, as a comparison left it")
    parser.add_argument("--probes", type=Path, action="append", default=[], help="JSON of sutura probe --out")
    parser.add_argument("--out", type=Path, default=PAGE)
    options = parser.parse_args(words)
    try:
        print(write(options.runs, options.out, options.probes))
    except UserError as error:
        sys.exit(f"zoo_results: {error}")


if __name__ == "__main__":
    main()
