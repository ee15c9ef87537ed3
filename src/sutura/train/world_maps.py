"""Scenes as maps: what the world's language model is shown in a description's place, one token a cell.

Pictures will come as tokens that each hold several words at once, partly, and not for certain. A model that has only
ever read one word a token answers from a description but is a hard one to show pictures to; one that has only read
certain maps is sure of whatever a projector says in its first steps, and wrong.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float, Float32, Int
from torch import Tensor

from sutura.core.config import Section
from sutura.core.runtime import derive_seed
from sutura.data.scenes import ATTRIBUTES, Scene, spread
from sutura.data.scenes.attributes import GRID
from sutura.stitch.model import StitchModel
from sutura.stitch.prompt import PromptBuilder

EMPTY = "."
WORDS: tuple[str, ...] = (EMPTY, *(word for values in ATTRIBUTES.values() for word in values))
"""What a cell can hold, as weights that sum to one."""
_PLACE = {word: number for number, word in enumerate(WORDS)}

CERTAIN = 0.25
"""Share of the scenes in a doubtful stage whose words and places are certain all the same."""
SHARPEST = 6.0
"""Most that a true value has over the others, in standard deviations of the noise on every value."""
SHIFT = 0.3
"""Standard deviation of an object's place on a doubtful map, in columns of the description."""


class MapStage(Section):
    """A stage in which every other step shows its scenes as maps.

    Args:
        sides: cells in a row and in a column; a stage with several takes them in turn.
        steps: optimizer steps.
        lr: peak learning rate, falling by a cosine again.
        doubtful: objects spread over the cells about them, and a cell's words are only probable: each attribute
            has a softmax of noise plus so much for the true value, drawn anew for every scene from none to
            `SHARPEST`. The answers to learn stay the true ones, so that the model learns how sure it may be.
    """

    sides: tuple[int, ...] = (4,)
    steps: int = 3000
    lr: float = 1.5e-3
    doubtful: bool = False


def certain_map(scene: Scene, side: int) -> Float32[np.ndarray, "cells words"]:
    """Every object's four words in the one cell of its place, a quarter each; full stops elsewhere."""
    cells = np.zeros((side * side, len(WORDS)), np.float32)
    for cell, words in zip(cells, spread(scene, side), strict=True):
        for word in words or (EMPTY,):
            cell[_PLACE[word]] = 1 / max(1, len(words))
    return cells


def doubtful_map(scene: Scene, side: int, draw: np.random.Generator) -> Float32[np.ndarray, "cells words"]:
    """Every object as a blot about its place, wider for a large one, with words as sure as the scene's draw."""
    certain = draw.random() < CERTAIN
    sharpness = draw.uniform(0, SHARPEST)
    down, across = np.mgrid[:side, :side]
    cells = np.zeros((side, side, len(WORDS)), np.float32)
    covered = np.zeros((side, side), np.float32)
    for o in scene.objects:
        x, y = o.column, GRID - 1 - o.row
        words = np.zeros(len(WORDS), np.float32)
        if certain:
            words[[_PLACE[value] for value in (o.size, o.colour, o.material, o.shape)]] = 0.25
        else:
            x, y = x + SHIFT * draw.standard_normal(), y + SHIFT * draw.standard_normal()
            for name, values in ATTRIBUTES.items():
                score = draw.standard_normal(len(values))
                score[values.index(getattr(o, name))] += sharpness
                share = np.exp(score - score.max())
                first = _PLACE[values[0]]
                words[first : first + len(values)] = 0.25 * share / share.sum()
        blot = _blot(across - ((x + 0.5) * side / GRID - 0.5), down - ((y + 0.5) * side / GRID - 0.5), o.size)
        cells += blot[..., None] * words
        covered += blot
    cells /= np.maximum(1, covered)[..., None]
    cells[..., 0] += np.maximum(0, 1 - covered)
    return cells.reshape(side * side, len(WORDS))


def _blot(across: np.ndarray, down: np.ndarray, size: str) -> np.ndarray:
    """How much of each cell an object covers, by its distance in cells: about one cell's width, at any side."""
    width = (0.4 if size == "small" else 0.6) * (1.2 if len(across) > 4 else 1.0)
    blot = np.minimum(1, 1.3 * np.exp(-(across**2 + down**2) / (2 * width**2)))
    return np.where(blot > 0.08, blot, 0).astype(np.float32)


def maps_of(
    scenes: Sequence[Scene], side: int, doubt: int | None = None
) -> Float[Tensor, "scenes cells words"]:
    """Certain maps, or doubtful ones drawn from the seed `doubt` and each scene's key alone."""
    if doubt is None:
        return torch.from_numpy(np.stack([certain_map(scene, side) for scene in scenes]))
    draws = [np.random.default_rng(derive_seed(doubt, "map", *scene.key)) for scene in scenes]
    return torch.from_numpy(
        np.stack([doubtful_map(s, side, draw) for s, draw in zip(scenes, draws, strict=True)])
    )


def word_ids(prompt: PromptBuilder) -> Int[Tensor, " words"]:
    """The one token of each of `WORDS`."""
    return torch.tensor([prompt.encode_text(word) for word in WORDS]).squeeze(1)


def map_tokens(
    model: StitchModel, maps: Float[Tensor, "scenes cells words"], words: Int[Tensor, " words"]
) -> Float[Tensor, "scenes cells width"]:
    """Each cell as one token: its words' embeddings, weighted."""
    return maps @ model.lm.get_input_embeddings()(words)
