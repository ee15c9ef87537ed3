"""Predict the answer's embedding, or generate its tokens: one encoder, one set of questions, one order of them.

Both sides see the same frozen features, the same answers in the same order, in batches of the same size. The tokens'
side is a cell of `sutura compare` (`train_one`); of the embeddings' side, one run is scored whenever it has seen as
many answers. Rates are constant, so a longer run begins as the shorter one does, and the points of a curve are those
of one run. Each side keeps its own learning rate and its own way of starting from the language model: the adapter and
the projector train, or the last layers, the projector, the heads and the text encoder.

    python benchmarks/embedding_against_tokens.py --seeds 0 1 2
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import polars as pl
import torch

from sutura.compare.config import CompareConfig
from sutura.compare.grid import CELL, LEDGER
from sutura.compare.scores import Arm, Scores
from sutura.compare.single import train_one
from sutura.compare.statistics import Difference, Estimate, accuracy, paired
from sutura.core.checkpoint import read_json, write_json
from sutura.core.config import apply_overrides, load_config, parse, read_preset
from sutura.core.doctor import machine, versions
from sutura.core.errors import UserError
from sutura.core.log import say
from sutura.data.samples import SetAside
from sutura.evals.answer_inputs import Inputs, load_inputs
from sutura.evals.answer_tasks import answer_rows, candidate_answers, embed_texts, nearest, predict
from sutura.evals.ledger import check_ledger, read_ledger
from sutura.evals.run import derangement
from sutura.stitch.bundle import load_stitch
from sutura.stitch.generate import generate
from sutura.stitch.pack import Row
from sutura.train.answer import AnswerModel, build_answer_model, fit_answer
from sutura.train.answer_config import AnswerConfig
from sutura.train.answer_feed import to_asked

RESULTS = Path(__file__).parent / "results"
PAGE = Path(__file__).parents[1] / "docs" / "results" / "embedding_against_tokens.md"
BENCHMARK = "world/test"
#: Name in tables → overrides of the comparison's preset.
TOKENS: dict[str, tuple[str, ...]] = {
    "tokens, adapter": (),
    "tokens, all weights": ("llm.train=full", "optim.lr=0.001"),
}
EMBEDDING = "embedding"
ASKED = 60
"""Questions that the latency of one answer is the median of."""


def settings(options: argparse.Namespace, seed: int) -> AnswerConfig:
    """The embeddings' side."""
    values = apply_overrides(
        read_preset("jepa/answer-tiny"),
        [
            f"seed={seed}",
            f"train.limit={options.pictures}",
            f"test.limit={options.test}",
            f"feed.answers={options.answers[-1]}",
            f"features.directory={options.runs}/features",
            *options.embedding,
        ],
    )
    values.pop("form")
    return parse(AnswerConfig, values)


def token_settings(options: argparse.Namespace, label: str, answers: int, seed: int) -> CompareConfig:
    """The tokens' side, on the embeddings' side's data."""
    ours = settings(options, seed)
    last = answers == options.answers[-1]
    config = load_config(
        CompareConfig,
        "world",
        [
            f"runs={options.runs}",
            f"feed={{batch: {ours.feed.batch}, micro_batch: {ours.feed.batch}, answers: {answers}}}",
            f"controls.wrong_picture={'true' if last else 'false'}",
            "engine={workers: 0, device: cpu, checkpoint_every: 0}",
            f"encoder.tokens={ours.encoder.tokens}",
            *TOKENS[label],
        ],
    )
    test = config.data.test[0].model_copy(
        update={"data": {"limit": options.test, "questions_per_picture": ours.test.questions_per_picture}}
    )
    data = config.data.model_copy(update={"train": ours.train, "test": (test,)})
    return config.model_copy(update={"data": data})


def run_tokens(options: argparse.Namespace, label: str, seed: int) -> list[dict[str, Any]]:
    """One point after the other; cells that are there are kept."""
    points = []
    for answers in options.answers:
        config = token_settings(options, label, answers, seed)
        encoder = settings(options, seed).encoder
        name = next((row.display_name() for row in config.encoders if row.id == encoder.id), encoder.id)
        folder = train_one(config, name, seed=seed)
        facts = read_json(folder.parent / CELL)
        rows = read_ledger(folder.parent / LEDGER).with_columns(pl.lit(label).alias("encoder"))
        points.append(
            {
                "label": label,
                "seed": seed,
                "answers": facts["answers"],
                "asked for": answers,
                "seconds": facts["seconds"]["train"],
                "trainable": sum(facts["trainable"].values()),
                "parts": facts["trainable"],
                "lr": facts["lr"],
                "rows": rows,
                "stitch": folder,
            }
        )
        say(f"{label}, seed {seed}, {answers:,} answers: done")
    return points


def run_embedding(
    options: argparse.Namespace, seed: int
) -> tuple[list[dict[str, Any]], AnswerModel, Inputs, tuple[str, ...]]:
    """One run, scored at every point."""
    config = settings(options, seed)
    inputs = load_inputs(config)
    built = build_answer_model(config, inputs.encoder.width)
    candidates = candidate_answers(inputs.train.samples, config.tasks.most_candidates, config.tasks.least)
    pictures = to_asked(inputs.train, built.prompt, built.answers, SetAside())
    ids = sorted({picture.image_id for picture in inputs.test.pictures})
    steps = {answers // config.feed.batch: answers for answers in options.answers}
    points: list[dict[str, Any]] = []
    spent = 0.0

    def score(condition: str) -> list[dict[str, Any]]:
        return answer_rows(
            built,
            inputs.test,
            candidates,
            inputs.features,
            run="embedding",
            encoder=EMBEDDING,
            seed=seed,
            condition=condition,
            benchmark=BENCHMARK,
            wrong=derangement(ids, seed) if condition == "wrong-picture" else None,
        )

    def on_step(done: int, row: Mapping[str, Any]) -> None:
        nonlocal spent
        if done not in steps:
            return
        began, training = time.perf_counter(), built.model.training
        conditions = ("picture", "wrong-picture") if done == max(steps) else ("picture",)
        rows = [row for condition in conditions for row in score(condition)]
        built.model.train(training)
        points.append(
            {
                "label": EMBEDDING,
                "seed": seed,
                "answers": done * config.feed.batch,
                "asked for": steps[done],
                "seconds": row["seconds"] - spent,
                "trainable": sum(trainable for _, trainable in built.parts().values()),
                "parts": {name: trainable for name, (_, trainable) in built.parts().items()},
                "lr": config.optim.lr,
                "rows": check_ledger(pl.DataFrame(rows, infer_schema_length=None)),
            }
        )
        spent += time.perf_counter() - began

    fit_answer(built, config, pictures, inputs.features, None, on_step=on_step)
    if len(points) < len(steps):
        raise UserError(
            f"The run has fewer steps than {max(steps)}; give --answers that divide by the batch."
        )
    return points, built, inputs, candidates


def per_answer(ask: Callable[[int], Any], count: int = ASKED) -> float:
    """Median milliseconds of one question asked by itself, features at hand."""
    times = []
    for place in range(count + 5):
        began = time.perf_counter()
        ask(place)
        times.append(1000 * (time.perf_counter() - began))
    return statistics.median(times[5:])


def latency(folder: Path, built: AnswerModel, inputs: Inputs, candidates: Sequence[str]) -> dict[str, Any]:
    """Milliseconds an answer: one question at a time, and with all questions of 16 pictures together."""
    stitch = load_stitch(folder, device="cpu", encoder=False)
    samples = inputs.test.samples
    built.model.eval()
    table = embed_texts(built, candidates)
    longest = max(len(stitch.prompt.answer_ids(text)) for text in candidates)

    @torch.inference_mode()
    def tokens(rows: Sequence[Any]) -> Any:
        names = list(dict.fromkeys(sample.image_id for sample in rows))
        turns = [
            tuple(stitch.prompt.turn(s.item_id, s.question) for s in rows if s.image_id == name)
            for name in names
        ]
        visual = stitch.model.project(inputs.features(names).float())
        packed = [Row(i, each) for i, each in enumerate(turns)]
        return generate(stitch.model, stitch.prompt, packed, visual, max_new_tokens=longest)

    def embedding(rows: Sequence[Any]) -> Any:
        asked = [(sample.image_id, sample.question) for sample in rows]
        return nearest(predict(built, inputs.features, asked), table)

    many = [s for picture in inputs.test.pictures[:16] for s in picture.samples]
    found: dict[str, Any] = {"threads": torch.get_num_threads(), "together": len(many)}
    for name, ask in (("tokens", tokens), ("embedding", embedding)):
        found[name] = {
            "one at a time": per_answer(lambda place, ask=ask: ask([samples[place % len(samples)]])),
            "together": per_answer(lambda place, ask=ask: ask(many), 5) / len(many),
        }
    return found


def estimate(one: Estimate) -> str:
    """As a cell."""
    if one.low is None or one.high is None:
        return f"{100 * one.mean:.1f}"
    return f"{100 * one.mean:.1f} [{100 * one.low:.1f}, {100 * one.high:.1f}]"


def difference(one: Difference) -> str:
    """As a cell."""
    if one.low is None or one.high is None:
        return f"{100 * one.difference:+.1f}"
    return f"{100 * one.difference:+.1f} [{100 * one.low:+.1f}, {100 * one.high:+.1f}]"


def page(points: Sequence[Mapping[str, Any]], times: Mapping[str, Any], options: argparse.Namespace) -> str:
    """Tables of accuracy against answers seen, of parameters and of latency."""
    labels = list(dict.fromkeys(point["label"] for point in points))
    learning = [
        ("answers seen", *labels, *(f"{EMBEDDING} − {label}" for label in labels if label != EMBEDDING))
    ]
    for answers in options.answers:
        frame = pl.concat([point["rows"] for point in points if point["asked for"] == answers])
        scores = Scores.of(frame.filter(pl.col("condition") == "picture"), BENCHMARK, "exact")
        others = [label for label in labels if label != EMBEDDING]
        learning.append(
            (
                f"{answers:,}",
                *(estimate(accuracy(scores, Arm(label))) for label in labels),
                *(difference(paired(scores, Arm(EMBEDDING), Arm(label))) for label in others),
            )
        )
    last = [point for point in points if point["asked for"] == options.answers[-1]]
    frame = pl.concat([point["rows"] for point in last])
    scores = Scores.of(frame, BENCHMARK, "exact")
    cost = [
        (
            "",
            "trained weights",
            "learning rate",
            "training, s",
            "wrong picture %",
            "one answer, ms",
            "together, ms",
        )
    ]
    for label in labels:
        mine = [point for point in last if point["label"] == label]
        kind = times.get(EMBEDDING if label == EMBEDDING else "tokens" if label == labels[0] else "")
        cost.append(
            (
                label,
                f"{mine[0]['trainable']:,}",
                f"{mine[0]['lr']:g}",
                f"{statistics.mean(point['seconds'] for point in mine):.0f}",
                estimate(accuracy(scores, Arm(label, "wrong-picture"))),
                "–" if kind is None else f"{kind['one at a time']:.1f}",
                "–" if kind is None else f"{kind['together']:.2f}",
            )
        )
    n = accuracy(scores, Arm(EMBEDDING))
    noise = "training noise is unmeasured" if n.n_seeds == 1 else "intervals over pictures and training seeds"
    ours = settings(options, options.seeds[0])
    asked = {"--seeds": options.seeds, "--answers": options.answers, "--embedding": options.embedding}
    words = [f"{name} {' '.join(map(str, given))}" for name, given in asked.items() if given]
    about = (
        f"`python benchmarks/embedding_against_tokens.py {' '.join(words)}`\n\n"
        f"{n.n_pictures} scenes of the test split, {n.n_items:,} questions, "
        f"{n.n_seeds} training {'seed' if n.n_seeds == 1 else 'seeds'} ({noise}); "
        f"exact match in percent. Encoder {ours.encoder.display_name()}, {ours.encoder.tokens} tokens, batch "
        f"{ours.feed.batch}, {options.pictures:,} training pictures; on {machine()}. Latency "
        f"with features at hand, {times['threads']} thread, of one question by itself and of {times['together']} "
        "together."
    )
    return f"# Embeddings against tokens\n\n{about}\n\n{markdown(learning)}\n\n{markdown(cost)}\n"


def markdown(rows: Sequence[Sequence[str]]) -> str:
    """A table, its first row the head."""
    ruler = [":--", *["--:"] * (len(rows[0]) - 1)]
    return "\n".join("| " + " | ".join(row) + " |" for row in (rows[0], ruler, *rows[1:]))


def plain(point: Mapping[str, Any]) -> dict[str, Any]:
    """A point as JSON, its answers as shares right."""
    kept = {name: value for name, value in point.items() if name not in ("rows", "stitch")}
    means = point["rows"].group_by("condition").agg(pl.col("exact").mean()).sort("condition")
    return {**kept, "exact": dict(means.iter_rows()), "n": point["rows"].height // len(means)}


def main(words: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument(
        "--answers", type=int, nargs="+", default=[6144, 12288, 24576], help="points of the curve"
    )
    parser.add_argument("--pictures", type=int, default=2400, help="of training")
    parser.add_argument("--test", type=int, default=400, help="pictures of the test split")
    parser.add_argument("--tokens", nargs="+", choices=TOKENS, default=["tokens, adapter"])
    parser.add_argument("--embedding", nargs="*", default=[], help="overrides of jepa/answer-tiny")
    parser.add_argument("--runs", type=Path, default=Path("runs"))
    parser.add_argument("--json", type=Path, default=RESULTS / "embedding_against_tokens.json")
    parser.add_argument("--page", type=Path, default=PAGE)
    options = parser.parse_args(words)
    points: list[dict[str, Any]] = []
    times: dict[str, Any] = {}
    try:
        for seed in options.seeds:
            token_points = [point for label in options.tokens for point in run_tokens(options, label, seed)]
            own, built, inputs, candidates = run_embedding(options, seed)
            points += [*token_points, *own]
            if not times:
                folder = [p for p in token_points if p["label"] == options.tokens[0]][-1]["stitch"]
                times = latency(folder, built, inputs, candidates)
            text = page(points, times, options)
            options.page.parent.mkdir(parents=True, exist_ok=True)
            options.page.write_text(text, encoding="utf-8")
            facts = {
                "points": [plain(p) for p in points],
                "latency": times,
                "machine": machine(),
                "versions": versions(),
            }
            write_json(options.json, facts)
            print(text)
    except UserError as error:
        sys.exit(f"embedding_against_tokens: {error}")


if __name__ == "__main__":
    main()
