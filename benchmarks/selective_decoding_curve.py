"""Quality against decoding operations on further streams, by a finished run of `sutura jepa train`.

python benchmarks/selective_decoding_curve.py runs/jepa/answer-tiny-<hash> --seed 1 --streams 80
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from sutura.core.checkpoint import write_json
from sutura.core.errors import UserError
from sutura.evals.answer_inputs import load_inputs
from sutura.evals.answer_report import curves
from sutura.evals.answer_world import decode_streams
from sutura.evals.jepa_answer import load_answer


def main(words: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path, help="its folder")
    parser.add_argument(
        "--seed", type=int, default=1, help="of the streams; the run's own report has its test seed's"
    )
    parser.add_argument("--streams", type=int, default=80)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args(words)
    try:
        built, config = load_answer(options.run)
        inputs = load_inputs(config)
        test = config.test.model_copy(update={"seed": options.seed})
        tasks = config.tasks.model_copy(update={"streams": options.streams})
        found = decode_streams(built, config.model_copy(update={"test": test, "tasks": tasks}), inputs)
    except UserError as error:
        sys.exit(f"selective_decoding_curve: {error}")
    print(curves(found))
    if options.json is not None:
        write_json(options.json, found)


if __name__ == "__main__":
    main()
