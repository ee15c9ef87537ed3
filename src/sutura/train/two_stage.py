"""EVA as a whole: one encoder that first guesses a teacher's patches and then meets captions."""

from __future__ import annotations

from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor, nn

from sutura.core.errors import UserError
from sutura.core.hashing import fingerprint_file
from sutura.encoders.catalog import zoo_folder
from sutura.models.clip import CLIP
from sutura.models.eva import EVA
from sutura.models.vit import ViT
from sutura.models.zoo_format import WEIGHTS, load_zoo_vit, read_zoo_config


class Teacher(nn.Module):
    """A frozen encoder of a zoo folder, whose patches another encoder is to guess.

    Args:
        folder: the zoo folder.
        mean, std: of the colours that the pictures come with; the teacher is given its own.
    """

    def __init__(self, folder: Path, mean: tuple[float, ...], std: tuple[float, ...]) -> None:
        super().__init__()
        self.vit, facts = load_zoo_vit(folder)
        self.requires_grad_(False)
        self.passes = int(facts.get("passes", 0))
        self.operations = float(facts.get("operations", 0.0))
        theirs = facts["transform"]
        scale, shift = (
            [a / b for a, b in zip(std, theirs["std"], strict=True)],
            [(a - b) / c for a, b, c in zip(mean, theirs["mean"], theirs["std"], strict=True)],
        )
        self.scale: Tensor
        self.shift: Tensor
        self.register_buffer("scale", torch.tensor(scale).view(3, 1, 1), persistent=False)
        self.register_buffer("shift", torch.tensor(shift).view(3, 1, 1), persistent=False)

    @torch.no_grad()
    def forward(
        self, pixels: Float[Tensor, "batch 3 height columns"]
    ) -> Float[Tensor, "batch patches width"]:
        """Normed patches of whole pictures."""
        return self.vit(pixels * self.scale + self.shift)[1]["normed"]


class TwoStage(nn.Module):
    """Masked image modelling until `switch`, contrastive learning from there; the encoder is one.

    Args:
        masked: stage one.
        contrastive: stage two, around the same encoder.
        switch: the first step of stage two.

    Source: Fang et al. 2023, arXiv:2211.07636, section 2: a CLIP teacher's features as targets, then CLIP
        from that start.
    Differs: both stages are one run under one learning-rate schedule.
    """

    def __init__(self, masked: EVA, contrastive: CLIP, switch: int) -> None:
        super().__init__()
        if masked.encoder is not contrastive.vision:
            raise ValueError("Both stages need the same encoder.")
        self.masked, self.contrastive, self.switch = masked, contrastive, switch
        self.teacher: Teacher | None = None  # put in after the other weights were drawn


def teacher_folder(name: str) -> Path:
    """The folder of `zoo:<member>`, or a path to one.

    Raises:
        UserError: there is none.
    """
    folder = zoo_folder(name)
    if not (folder / WEIGHTS).is_file():
        member = name.removeprefix("zoo:")
        raise UserError(
            f"There is no teacher at {name!r}. "
            + (
                f"Train it first: sutura zoo build {member}."
                if name.startswith("zoo:")
                else "Give a zoo folder."
            )
        )
    return folder


def check_teacher(name: str, image_size: int, patch_size: int) -> str:
    """Refuse a teacher that cuts pictures into other patches; the fingerprint of its weights.

    Raises:
        UserError: there is no such teacher, or its pictures or patches have another size.
    """
    folder = teacher_folder(name)
    args = read_zoo_config(folder)["args"]
    theirs, ours = (args["image_size"], args["patch_size"]), (image_size, patch_size)
    if theirs != ours:
        raise UserError(
            f"The teacher {name!r} sees pictures of {theirs[0]} pixels in patches of {theirs[1]}, the encoder "
            f"pictures of {ours[0]} in patches of {ours[1]}. Patches must be the same: choose another teacher, "
            "or change vit.image_size and vit.patch_size."
        )
    return fingerprint_file(folder / WEIGHTS)


def load_teacher(name: str, encoder: ViT, mean: tuple[float, ...], std: tuple[float, ...]) -> Teacher:
    """A frozen teacher for an encoder. Raises UserError as `check_teacher`."""
    check_teacher(name, encoder.image_size, encoder.patch_size)
    return Teacher(teacher_folder(name), mean, std)
