"""The page of an `align` run: what was found, what every term of the loss did, what to know of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_WAYS = (("image_to_text", "picture → text"), ("text_to_image", "text → picture"))


def page(facts: Mapping[str, Any]) -> str:
    """The report in Markdown, made of `report.json` alone."""
    lines = [f"# {facts['name']}: align", ""]
    lines += [f"> **WARNING.** {flag}" for flag in facts["flags"]]
    lines += [""] * bool(facts["flags"])
    first = next(iter(facts["scores"].values()))["standard"]
    in_batch = next(iter(facts["scores"].values()))["in_batch"]["pictures"]
    lines += [
        f"Retrieval of {first['pictures']:,} held-out pictures and all of their {first['texts']:,} captions, standard "
        "protocol, ties count against the model; % [95 % over pictures].",
        "",
        *_retrieval(facts["scores"]),
        "",
        f"In batches, one caption a picture (NCE@1 of {in_batch:,} pictures, not comparable with the table above):",
        "",
        *_in_batch(facts["scores"]),
        "",
        "## The loss",
        "",
        "Weight as set; value, share of the loss and norm of the weighted term's own gradient as they were, mean over "
        "the phase's steps.",
        "",
        *_loss(facts["phases"]),
        "",
        "## The run",
        "",
        *(f"- {line}" for line in _about(facts)),
        "",
    ]
    return "\n".join(lines)


def _retrieval(scores: Mapping[str, Any]) -> list[str]:
    standard = {name: found["standard"] for name, found in scores.items()}
    some = next(iter(standard.values()))
    ks = [one["k"] for one in some["image_to_text"]["recalls"]]
    head = [f"{told} R@{k}" for _, told in _WAYS for k in ks]
    lines = [
        "| weights | " + " | ".join(head) + " | median ranks | rsum |",
        "| :-- |" + " --: |" * (len(head) + 2),
    ]
    chance = [f"{100 * one['chance']:.1f}" for way, _ in _WAYS for one in some[way]["recalls"]]
    medians = " / ".join(f"{some[way]['chance_median']:g}" for way, _ in _WAYS)
    lines.append(f"| *chance* | {' | '.join(chance)} | {medians} | {some['rsum_chance']:.1f} |")
    for name, found in standard.items():
        cells = [_percent(one) for way, _ in _WAYS for one in found[way]["recalls"]]
        medians = " / ".join(f"{found[way]['median_rank']:g}" for way, _ in _WAYS)
        rsum = f"{found['rsum']:.1f} [{found['rsum_low']:.1f}, {found['rsum_high']:.1f}]"
        lines.append(f"| {name} | {' | '.join(cells)} | {medians} | {rsum} |")
    return lines


def _in_batch(scores: Mapping[str, Any]) -> list[str]:
    lines = ["| weights | batch | " + " | ".join(told for _, told in _WAYS) + " | chance |"]
    lines.append("| :-- | --: | --: | --: | --: |")
    for name, found in scores.items():
        of = found["in_batch"]
        cells = " | ".join(_percent(of[way]["recalls"][0]) for way, _ in _WAYS)
        chance = 100 * of["image_to_text"]["recalls"][0]["chance"]
        lines.append(f"| {name} | {of['batch']} | {cells} | {chance:.1f} |")
    return lines


def _percent(recall: Mapping[str, Any]) -> str:
    return f"{100 * recall['share']:.1f} [{100 * recall['low']:.1f}, {100 * recall['high']:.1f}]"


def _loss(phases: list[Mapping[str, Any]]) -> list[str]:
    lines = [
        "| phase | steps | frozen | term | weight | value | share of loss | gradient norm | share of gradients |",
        "| --: | :-- | :-- | :-- | --: | --: | --: | --: | --: |",
    ]
    for i, phase in enumerate(phases, start=1):
        for name, term in phase["terms"].items():
            share, part = (_share(term[key]) for key in ("share", "gradient_share"))
            lines.append(
                f"| {i} | {phase['first']}–{phase['last']} | {phase['frozen']} | {name.replace('_', ' ')} | "
                f"{term['weight']:g} | {_number(term['value'])} | {share} | {_number(term['gradient'])} | {part} |"
            )
    return lines


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.3g}"


def _share(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.1f} %"


def _about(facts: Mapping[str, Any]) -> list[str]:
    parts = ", ".join(f"{name} {count / 1e6:.2f} M" for name, count in facts["parameters"].items())
    ranks = "; ".join(
        f"{name}: picture {found['collapse']['picture']['effective_rank']:.1f}, "
        f"text {found['collapse']['text']['effective_rank']:.1f}"
        for name, found in facts["scores"].items()
    )
    skipped = facts["skipped_steps"]
    return [
        f"seed {facts['seed']}: one training run, so that the intervals hold pictures' chance and not training's",
        f"start: {facts['start']}",
        facts["negatives"],
        f"trained on {facts['data']['train']}",
        f"scored on {facts['data']['test']}",
        facts["overlap"]["summary"],
        f"captions cut to the text tower's length in training: {facts['cut_captions']:,}",
        f"effective rank of the held-out embeddings: {ranks}",
        f"parameters: {parts}",
        f"{facts['steps']:,} steps in {facts['seconds']:.0f} s on {facts['device']} ({facts['machine']}), "
        f"torch {facts['torch']}; {skipped} step{'' if skipped == 1 else 's'} skipped for a value that was not finite",
        f"command: `{facts['command']}`",
    ]
