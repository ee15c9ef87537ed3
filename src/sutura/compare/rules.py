"""The house rules a comparison breaks: each is a switch of its config, and the report names it.

A switch that repeats an earlier study is allowed; one that nobody hears of is not.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator

from sutura.compare.config import CompareConfig
from sutura.data.sources import VqaSource


def broken_rules(config: CompareConfig, tokens: Collection[int] = ()) -> list[str]:
    """One sentence a broken rule, the switch in front: empty for a run that keeps them all.

    Args:
        config: the comparison.
        tokens: numbers of picture tokens its encoders hand on, where they are known: budgets that happen to be equal
            are matched whatever the config says.
    """
    return [f"`{switch}`: {words}." for switch, words in _broken(config, tokens)]


def _broken(config: CompareConfig, tokens: Collection[int]) -> Iterator[tuple[str, str]]:
    yield from _training(config)
    if len(set(tokens)) != 1 and any(row.tokens is None for row in config.encoder_rows()):
        yield (
            "encoder.tokens: null",
            "every encoder hands on its own number of picture tokens; budgets are not matched",
        )
    yield from _scoring(config)
    yield from _source("data.train", config.data.train)
    for place, test in enumerate(config.data.test):
        name = f"data.test.{place}"
        if test.allow_training:
            yield (
                f"{name}.allow_training: true",
                f"{test.benchmark} is scored on training data, which says how well a model remembers and is no test",
            )
        if test.data.get("first_rows"):
            rows = test.data["first_rows"]
            yield f"{name}.data.first_rows: {rows}", "the file's first rows stand for the whole set"
        if test.data.get("first_turn"):
            yield f"{name}.data.first_turn: true", "only the first question of each row is asked"


def _training(config: CompareConfig) -> Iterator[tuple[str, str]]:
    if config.prompt.template == "published":
        yield (
            "prompt.template: published",
            "no chat template; `<image>` is literal text that the model reads, and nothing parts question from answer",
        )
    if config.optim.trained_dtype != "float32":
        yield (
            f"optim.trained_dtype: {config.optim.trained_dtype}",
            "trained weights and moments have no float32 master, so small updates are lost",
        )
    if config.optim.decay_all:
        yield "optim.decay_all: true", "weight decay pulls at biases, norms and scalars too"
    if config.feed.average == "micro":
        yield "feed.average: micro", "answers weigh by the micro-batch they fall into"
    if config.feed.turns == "first":
        yield "feed.turns: first", "one question of each picture is trained on, the others are not"
    if config.feed.turns == "conversation":
        yield "feed.turns: conversation", "answers to earlier questions are visible to later ones"
    if len(config.seeds) == 1:
        yield f"seeds: [{config.seeds[0]}]", "one seed, so training noise is not measured"
    if len({row.final_norm for row in config.encoder_rows()}) > 1:
        yield "encoders.*.final_norm", "some encoders are read behind their final norm and others before it"


def _scoring(config: CompareConfig) -> Iterator[tuple[str, str]]:
    if config.evaluate.min_new_tokens:
        yield (
            f"evaluate.min_new_tokens: {config.evaluate.min_new_tokens}",
            "an answer cannot end before so many tokens, which makes a one-token answer wrong under a strict match",
        )
    if config.evaluate.headline == "lenient":
        yield (
            "evaluate.headline: lenient",
            "a prediction that contains the reference anywhere counts as right (`1` in `10`, `no` in `not`)",
        )
    controls = config.controls
    if not controls.blind:
        yield "controls.blind: false", "no blind run says what the questions alone are worth"
    if not controls.wrong_picture:
        yield "controls.wrong_picture: false", "nothing shows whether the right picture matters"
    if not controls.majority:
        yield "controls.majority: false", "the most frequent answer does not stand beside the scores"
    if not config.data.overlap:
        yield "data.overlap: false", "test pictures are not looked for among the training pictures"


def _source(name: str, source: VqaSource) -> Iterator[tuple[str, str]]:
    if source.first_turn:
        yield f"{name}.first_turn: true", "only the first question of each row is trained on"
    if source.several == "first":
        yield f"{name}.several: first", "rows with several pictures are shown their first one alone"
    for place, part in enumerate(source.parts):
        yield from _source(f"{name}.parts.{place}", part)
