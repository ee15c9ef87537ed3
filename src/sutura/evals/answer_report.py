"""A run of the `answer` form as a page of Markdown; everything in it stands in its report.json."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sutura.evals.answer_tasks import Share
from sutura.evals.selective_decoding import WAYS
from sutura.train.answer_config import AnswerConfig

SAID = {
    "picture": "predicted embedding, nearest candidate",
    "wrong-picture": "the same with every picture swapped for another",
    "blind": "a model trained without pictures",
    "majority": "most frequent training answer of the question's type",
    "majority-overall": "most frequent training answer",
}


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table; all but the first column to the right."""
    lines = [head, [":--", *["--:"] * (len(head) - 1)], *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def page(report: Mapping[str, Any], config: AnswerConfig, command: str) -> str:
    """The report."""
    parts = [
        f"# VL-JEPA, answer form: {config.name}",
        _about(report, config, command),
        "## Discriminative VQA",
        _vqa(report),
    ]
    if "classification" in report:
        parts += ["## Open-vocabulary classification", _classification(report["classification"])]
    if "retrieval" in report:
        parts += ["## Retrieval both ways", _retrieval(report["retrieval"], config)]
    if "streams" in report:
        parts += ["## Selective decoding", curves(report["streams"])]
    return "\n\n".join(parts) + "\n"


def _about(report: Mapping[str, Any], config: AnswerConfig, command: str) -> str:
    rows, lines = [], []
    for label, run in report["training"].items():
        for name, (frozen, trainable) in run["parts"].items():
            rows.append((label, name, f"{frozen:,}", f"{trainable:,}"))
        loss = run["loss"]
        lines.append(
            f"- {label}: {run['steps']:,} steps, {run['answers']:,} answers, {run['seconds']:.0f} s; loss "
            f"{loss['first']:.3f} → {loss['final_mean']:.3f} (mean of the last {loss['window']} steps); "
            f"{run['bad_batches']} steps skipped."
        )
    negatives = (
        "Negatives are the other answers of a step; equal answers count once and are never each other's negatives. "
        f"Loss: {config.loss.kind}."
    )
    aside = "; ".join(f"{count} {why}" for why, count in report["set_aside"].items()) or "nothing"
    return "\n".join(
        [
            f"`{command}`",
            "",
            f"Encoder {report['encoder']} (frozen), last {config.predictor.layers} layers of {config.predictor.id} "
            f"with the causal mask off, text encoder {config.text.id} at {config.text.lr_scale:g} × the learning rate, "
            f"shared space of {config.dim}. Seed {report['seed']}: one training seed, so training noise is unmeasured "
            "here.",
            "",
            table(("model", "part", "frozen", "trainable"), rows),
            "",
            *lines,
            f"- {negatives}",
            f"- Overlap of training and test pictures: {report['overlap']}",
            f"- Set aside: {aside}.",
            f"- Run folder: `{report['run']}`.",
        ]
    )


def _vqa(report: Mapping[str, Any]) -> str:
    vqa = report["vqa"]
    rows = [
        (name, Share(**vqa[name]).cell(), f"{vqa[name]['n']:,}", said)
        for name, said in SAID.items()
        if name in vqa
    ]
    kinds = [(kind, Share(**found).cell(), f"{found['n']:,}") for kind, found in vqa["by type"].items()]
    return (
        f"Strict exact match on {report['test']['name']}/{report['test']['split']}; the nearest of "
        f"{report['candidates']:,} training answers. Intervals over pictures.\n\n"
        f"{table(('condition', '% [95 %]', 'n', 'what it is'), rows)}\n\n"
        f"{table(('question type', '% [95 %]', 'n'), kinds)}"
    )


def _classification(found: Mapping[str, Any]) -> str:
    rows = [
        (name, Share(**found[name]).cell(), f"{found[name]['n']:,}", f"{100 * found['chance']:.1f}")
        for name in ("known", "held out")
    ]
    return (
        f"Pictures of one object (training showed two or more), {found['classes']} pairs of shape and colour in words. "
        f"The {found['held out classes']} held-out pairs were never shown in training, in pictures or words.\n\n"
        f"{table(('pictures', '% [95 %]', 'n', 'chance %'), rows)}"
    )


def _retrieval(found: Mapping[str, Any], config: AnswerConfig) -> str:
    rows = []
    for way, name in (("image_to_text", "picture → text"), ("text_to_image", "text → picture")):
        for one in found[way]["recalls"]:
            share = Share(one["share"], one["low"], one["high"], found[way]["queries"], found["pictures"])
            rows.append((name, f"R@{one['k']}", share.cell(), f"{100 * one['chance']:.1f}"))
    return (
        f"{found['pictures']:,} test pictures, each asked {config.tasks.describe!r}, against {found['texts']:,} texts, "
        f"one a picture; ties count against.\n\n{table(('way', 'recall', '% [95 %]', 'chance %'), rows)}"
    )


def curves(found: Mapping[str, Any]) -> str:
    """Selective decoding as `decode_streams` gives it: a table a measure of quality."""
    said = {
        "whole": "share of frames of which every thing there was named and no other (a thing is its four words)",
        "things": "F1 between the things named and those there",
    }
    parts = [
        f"{found['whole']['streams']} streams of {found['frames']} frames; percent, mean over frames, intervals over "
        f"streams. Texts are the nearest of the {found['candidates']} states of all streams.",
        "- " + "\n- ".join(f"{way}: {what}" for way, what in WAYS.items()),
    ]
    for name, what in said.items():
        parts += [f"**{what.capitalize()}**", _curve(found[name])]
    return "\n\n".join(parts)


def _curve(found: Mapping[str, Any]) -> str:
    rows = []
    for i, number in enumerate(found["decodes"]):
        cells = [
            f"{100 * way['mean'][i]:.1f} [{100 * way['low'][i]:.1f}, {100 * way['high'][i]:.1f}]"
            for way in (found["ways"][name] for name in WAYS)
        ]
        rows.append((str(number), *cells))
    low, high = found["uniform needs, interval"]
    gain_low, gain_high = found["gain, interval"]
    needs = found["uniform needs"]
    reach = "never reaches it" if needs is None else f"needs {needs:.2f} × as many for the same"
    between = ", ".join("never" if end is None else f"{end:.2f}" for end in (low, high))
    true, lot = found["true changes"], found["a candidate by lot"]
    return (
        f"{table(('decodes a stream', *WAYS), rows)}\n\n"
        f"At {found['at']} decodes selective decoding is {100 * found['gain']:+.1f} points [{100 * gain_low:+.1f}, "
        f"{100 * gain_high:+.1f}] above uniform decoding, which {reach} [{between}]. Cut at the true "
        f"changes ({true['decodes']:.1f} decodes): {100 * true['quality']:.1f}. A candidate by lot: {100 * lot:.1f}."
    )
