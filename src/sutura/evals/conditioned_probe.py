"""A linear probe on what a conditioned run adds: the predictor's guesses for a whole picture, without a caption."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from sutura.core.errors import UserError
from sutura.core.runtime import pick_device
from sutura.data.image_texts import ImageTexts
from sutura.data.labelled import LabelledParts, load_labelled
from sutura.encoders.base import EncoderConfig, Trunk, VisionEncoder
from sutura.encoders.own_vit import AveragedTrunk, own_vit
from sutura.encoders.transform import Transform
from sutura.evals.probe import Eyes, run_probes
from sutura.evals.probe_config import ProbeConfig, probe_config
from sutura.evals.probe_record import ProbeResult
from sutura.models.vljepa_conditioned import VLJEPAConditioned
from sutura.train.conditioned import Prepared, build, unfrozen

#: Row of the probe's table -> what features it stands for.
FEATURES = {
    "online": "the online encoder's patches as it was loaded",
    "online, trained": "the online encoder's patches after training",
    "moving average": "the moving target's patches after training",
    "target": "the frozen target network's patches",
    "predictor": "the predictor's output for every place, from the whole picture without a caption",
    "predictor, untrained": "the same at the first step, encoder as loaded: what random weights already give",
}


class PredictedTrunk(Trunk):
    """Guesses for every place of a picture that is seen whole, without a caption.

    Args:
        model: whose online encoder and predictor are used.
    """

    def __init__(self, model: VLJEPAConditioned, architecture: Mapping[str, Any]) -> None:
        super().__init__()
        self.online, self.predictor = model.online, model.predictor
        self.depth, self.layer = len(model.predictor.blocks), len(model.predictor.blocks) - 1
        self.patch_size = model.online.patch_size
        self.architecture = architecture

    def blocks(self) -> Sequence[nn.Module]:
        return list(self.predictor.blocks)

    def forward(
        self, pixels: Float[Tensor, "batch 3 height_px width_px"]
    ) -> Float[Tensor, "batch width rows columns"]:
        seen = self.online(pixels)[1]["normed"]  # B N D
        every = torch.arange(seen.shape[1], device=seen.device).expand(len(seen), -1)
        guesses = self.predictor(seen, every, every)
        return guesses.transpose(1, 2).unflatten(2, self.online.grid)


def refuse_seen(trained: ImageTexts, parts: LabelledParts, *, world: bool) -> str:
    """Refuse to score a probe on pictures that the model was trained on.

    Args:
        trained: pictures of the run.
        parts: of the probe.
        world: whether both are the built-in world's, whose splits share no scene.

    Returns:
        A sentence for the report.

    Raises:
        UserError: a picture to test on is one that the model was trained on.
    """
    if world:
        return "The model's pictures (split pretrain of the world) share no scene with the probe's splits."
    both = set(trained.content) & {*parts.test.hashes}
    if both:
        raise UserError(
            f"{len(both)} of {len(parts.test):,} pictures that the probe is tested on are among those the model was "
            "trained on. Give the probe another set (probe.data), or leave these out."
        )
    return f"None of the probe's {len(parts.test):,} test pictures is among those trained on (exact pixels)."


def probe_config_of(prepared: Prepared) -> ProbeConfig:
    """The probe's settings in the words of `sutura probe`. Raises UserError when they do not fit."""
    c = prepared.config
    assert c.probe.data is not None
    cache = str(Path(c.pictures.cache))
    return probe_config(
        ["online"], c.probe.data, list(c.probe.kinds), device=c.device, seed=c.seed, runs=cache
    )


def probe_run(prepared: Prepared, model: VLJEPAConditioned) -> tuple[ProbeResult, dict[str, str]]:
    """Probe what the run adds, beside what it started from.

    Returns:
        The probe's result, and for every row of its table which features it stands for.

    Raises:
        UserError: parts of the probe that share pictures, or a test picture that was trained on.
    """
    config = probe_config_of(prepared)
    parts = load_labelled(config.data)
    world = config.data.source == "world" and prepared.config.pictures.path == "world"
    note = refuse_seen(prepared.train.data, parts, world=world)
    parts = LabelledParts(parts.fit, parts.select, parts.test, (*parts.notes, note))
    on = pick_device(config.device)
    eyes = [Eyes(name, encoder.to(on), None) for name, encoder in _eyes(prepared, copy.deepcopy(model).cpu())]
    result = run_probes(config, parts, eyes)
    return result, {one.name: FEATURES[one.name] for one in eyes}


def _eyes(prepared: Prepared, model: VLJEPAConditioned) -> list[tuple[str, VisionEncoder]]:
    online = prepared.online
    found = [("online", online)]

    def add(name: str, trunk: Trunk) -> None:
        seen = Transform(online.transform, {"of": online.fingerprint}, "squash")
        found.append((name, VisionEncoder(trunk, seen, EncoderConfig(id=name))))

    if any(p.requires_grad for p in model.online.parameters()):
        add("online, trained", AveragedTrunk(model.online, 1, {"of": online.fingerprint}))
    if model.target is not None:
        add("moving average", AveragedTrunk(model.target, model.blocks, {"of": online.fingerprint}))
    if prepared.target is not None:
        found.append(("target", prepared.target))
    first = prepared
    if (
        prepared.config.online.train != "none"
    ):  # the run's own ViT has trained; its encoder is as it was loaded
        fresh = copy.deepcopy(own_vit(online))
        first = replace(prepared, vit=unfrozen(fresh, prepared.config.online))
    for name, one in (("predictor, untrained", build(first)), ("predictor", model)):
        add(name, PredictedTrunk(one, {"of": "predictor", "grid": list(online.grid)}))
    return found
