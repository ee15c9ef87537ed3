"""The card of a zoo encoder: facts of its run, no adjectives."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sutura.core.doctor import commit
from sutura.models.zoo_format import TEXT, WORDS

if TYPE_CHECKING:
    from sutura.train.pretrain import Pretrained
    from sutura.train.self_check import ProbeScore

LICENCE = """
Licence: Apache-2.0.
"""


def card(done: Pretrained, *, world: bool) -> str:
    """README.md of the encoder's folder; `world` for the built-in world's pictures."""
    config, vit = done.config, done.config.vit
    rank = ", ".join(f"{name.replace('_', ' ')} {value:.3g}" for name, value in done.ranks.items())
    loss = done.fit.loss
    losses = (
        f"{loss.first:.4f} at the first step, {loss.final_mean:.4f} ± {loss.final_sd:.4f} "
        f"(mean and standard deviation of the last {loss.window} steps)"
    )
    seen = "\n".join(f"| {who} | {count:,} |" for who, count in done.passes.items())
    steps = " | ".join(f"{step:,}" for step, _ in done.curve)
    curve = " | ".join(f"{value:.3f}" for _, value in done.curve)
    alarm = f"\n**{done.alarm}**\n" if done.alarm else ""
    return f"""# {config.name}

{done.about}

A vision transformer of {done.parameters:,} parameters (width {vit.width}, depth {vit.depth}, {vit.heads}
heads, patches of {vit.patch_size} pixels, pictures of {vit.image_size}, no prefix token, mean pooling),
trained from scratch on {done.data.removesuffix(".")}.
Encoders of one seed start from the same weights and see the same pictures in the same order and crop; only the
objective differs.
{_about_text(done)}
Command: `{done.command}`, {commit()}, run {done.run}, config {config.hash()}, seed {config.seed}.

| | |
|---|---|
| steps | {done.fit.steps:,} of {config.batch} pictures |
| arithmetic of the run | {done.operations / 1e12:.3g} TFLOP, forward and backward, all parts of the method |
| wall time of training | {done.fit.seconds / 60:.1f} min, {config.optim.precision} |
| hardware | {done.hardware} |
| loss | {losses} |
| skipped batches | {done.fit.bad_batches} |
{_probe_rows(done.probe, done.untrained)}| averaged patches | {rank} |
{alarm}
| who sees pictures | passes |
|---|---|
{seen}

Loss, mean of each tenth of the run:

| step | {steps} |
|---|{"---|" * len(done.curve)}
| loss | {curve} |

{_about_probe(done.probe)}
{LICENCE if world else ""}"""


def _about_text(done: Pretrained) -> str:
    if done.towers is None:
        return ""
    return (
        f"Its text tower is kept too (`{TEXT}`, `{WORDS}`): {done.text_parameters:,} parameters with both "
        f"projections, {len(done.words):,} words.\n"
    )


def _probe_rows(probe: ProbeScore | None, untrained: ProbeScore | None) -> str:
    if probe is None or untrained is None:
        return ""
    return (
        f"| linear probe, averaged patches | mean average precision {_interval(probe)} |\n"
        f"| the same probe, before training | {_interval(untrained)} |\n"
        f"| what constant features score | {probe.base_rate:.3f} |\n"
    )


def _about_probe(probe: ProbeScore | None) -> str:
    if probe is None:
        return "The pictures of the check carry no labels, so nothing was read off the encoder. One run, one seed.\n"
    return (
        f"The probe was fitted on {probe.fitted:,} pictures that training did not see and scored on "
        f"{probe.scored:,} others, over\n{probe.labels} labels, with 95 % intervals over pictures; one run, one "
        "seed. Weights are bfloat16 on disk; the probe used these.\n"
    )


def _interval(probe: ProbeScore) -> str:
    return f"{probe.score:.3f} ({probe.low:.3f} to {probe.high:.3f})"
