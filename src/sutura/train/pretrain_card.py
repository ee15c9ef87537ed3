"""The card of a zoo encoder: facts of its run, no adjectives."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from sutura.train.pretrain import Pretrained
    from sutura.train.self_check import ProbeScore


def card(done: Pretrained, about: str, machine: str) -> str:
    """README.md of the encoder's folder."""
    config, probe, untrained = done.config, done.probe, done.untrained
    vit, pictures = config.vit, config.pictures
    rank = ", ".join(f"{name.replace('_', ' ')} {value:.3g}" for name, value in done.ranks.items())
    loss = done.fit.loss
    losses = (
        f"{loss.first:.4f} at the first step, {loss.final_mean:.4f} ± {loss.final_sd:.4f} "
        f"(mean and standard deviation of the last {loss.window} steps)"
    )
    minutes = (
        f"{done.seconds / 60:.1f} min on {torch.get_num_threads()} CPU threads ({machine}), "
        f"{config.optim.precision}"
    )
    alarm = f"\n**{done.alarm}**\n" if done.alarm else ""
    return f"""# {config.name}

{about}

A vision transformer of {done.parameters:,} parameters (width {vit.width}, depth {vit.depth}, {vit.heads}
heads, patches of {vit.patch_size} pixels, pictures of {vit.image_size}, no prefix token, mean pooling),
trained from scratch on {pictures.count:,} pictures of the built-in world, split `pretrain`. The zoo's
encoders of one seed start from the same weights and see the same pictures in the same order and crop; only
the objective differs.

Command: `sutura zoo build {config.name}`, config {config.hash()}, seed {config.seed}.

| | |
|---|---|
| picture passes | {config.passes:,} ({done.fit.steps:,} steps of {config.batch}) |
| operations a pass | {done.operations / 1e9:.2f} GFLOP, forward and backward, all parts of the method |
| wall time of training | {minutes} |
| loss | {losses} |
| skipped batches | {done.fit.bad_batches} |
| linear probe, averaged patches, shape × colour | mean average precision {_interval(probe)} |
| the same probe, before training | {_interval(untrained)} |
| what constant features score | {probe.base_rate:.3f} |
| averaged patches | {rank} |
{alarm}
The probe was fitted on {probe.fitted:,} pictures of the split `select` and scored on {probe.scored:,} others,
over {probe.labels} labels, with 95 % intervals over pictures; one run, one seed. Weights are float16 on disk;
the probe used these.

Licence: Apache-2.0.
"""


def _interval(probe: ProbeScore) -> str:
    return f"{probe.score:.3f} ({probe.low:.3f} to {probe.high:.3f})"
