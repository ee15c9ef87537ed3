"""ViT, two towers, and the contrastive against the sigmoid loss: one file, torch only, seconds on a CPU.

    python examples/vit_clip_siglip_sketch.py

Read it from top to bottom; each part prints shapes and values. Nothing of the package is used before the last part,
which holds the losses written here against those of `sutura.losses`. docs/foundations.md tells the same at length.
"""

from __future__ import annotations

import itertools
import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

SIDE, PATCH, WIDTH, DIM = 32, 8, 32, 16
COLOURS = {"red": (0.9, 0.2, 0.2), "green": (0.2, 0.7, 0.2), "blue": (0.2, 0.3, 0.9), "gray": (0.5, 0.5, 0.5)}
PLACES = {"left top": (0, 0), "right top": (0, 16), "left bottom": (16, 0), "right bottom": (16, 16)}
PAD, END = 0, 1


def show(name: str, value: object, why: str) -> None:
    """One line of the tour."""
    print(f"  {name:<34} {value!s:<22} {why}")


# 1. A picture becomes a row of patches
def patchify(pixels: Tensor) -> Tensor:
    """B C H W → B N (C·P·P): no convolution is needed, a patch is a reshaped square."""
    batch, channels, height, width = pixels.shape
    cut = pixels.view(batch, channels, height // PATCH, PATCH, width // PATCH, PATCH)
    return cut.permute(0, 2, 4, 1, 3, 5).flatten(3).flatten(1, 2)


class Block(nn.Module):
    """x + attention(norm x), then x + MLP(norm x)."""

    def __init__(self, causal: bool, heads: int = 4) -> None:
        super().__init__()
        self.heads, self.causal = heads, causal
        self.norm_1, self.norm_2 = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.qkv, self.out = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)
        self.mlp = nn.Sequential(nn.Linear(WIDTH, 4 * WIDTH), nn.GELU(), nn.Linear(4 * WIDTH, WIDTH))

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(self.norm_1(x)).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=self.causal)  # B heads tokens WIDTH/heads
        x = x + self.out(mixed.transpose(1, 2).flatten(2))
        return x + self.mlp(self.norm_2(x))


class VisionTower(nn.Module):
    """A ViT with a CLS token; positions are learned, one vector for each place in the row (1-D)."""

    def __init__(self) -> None:
        super().__init__()
        patches = (SIDE // PATCH) ** 2
        self.embed = nn.Linear(3 * PATCH**2, WIDTH)
        self.cls = nn.Parameter(WIDTH**-0.5 * torch.randn(1, 1, WIDTH))
        self.positions = nn.Parameter(WIDTH**-0.5 * torch.randn(1, 1 + patches, WIDTH))
        self.blocks = nn.Sequential(Block(causal=False), Block(causal=False))
        self.norm, self.project = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, DIM, bias=False)

    def forward(self, pixels: Tensor) -> Tensor:
        x = self.embed(patchify(pixels))  # B N D
        x = torch.cat([self.cls.expand(len(x), -1, -1), x], dim=1) + self.positions  # B 1+N D
        return self.project(self.norm(self.blocks(x))[:, 0])  # B DIM, read at CLS


# 2. A text becomes one vector, read at its end
class TextTower(nn.Module):
    """Causal: a word sees those before it, so only the END token has seen the whole text."""

    def __init__(self, vocabulary: int, length: int) -> None:
        super().__init__()
        self.words = nn.Embedding(vocabulary, WIDTH)
        nn.init.normal_(self.words.weight, std=0.02)  # at 1 the END token would drown what it reads
        self.positions = nn.Parameter(0.02 * torch.randn(length, WIDTH))
        self.blocks = nn.Sequential(Block(causal=True), Block(causal=True))
        self.norm, self.project = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, DIM, bias=False)

    def tokens(self, ids: Tensor) -> Tensor:
        return self.norm(self.blocks(self.words(ids) + self.positions[: ids.shape[1]]))  # B L D

    def forward(self, ids: Tensor) -> Tensor:
        end = (ids == END).int().argmax(dim=1)
        return self.project(self.tokens(ids)[torch.arange(len(ids)), end])  # B DIM


# 3. Two losses on one matrix
def cosines(image: Tensor, text: Tensor) -> Tensor:
    return F.normalize(image, dim=1) @ F.normalize(text, dim=1).T  # pictures × texts


def contrastive(image: Tensor, text: Tensor, log_scale: Tensor) -> Tensor:
    """CLIP: each picture picks its text among all, each text its picture; the mean of both, hence the ½."""
    logits, own = log_scale.exp() * cosines(image, text), torch.arange(len(image))
    return (F.cross_entropy(logits, own) + F.cross_entropy(logits.T, own)) / 2


def sigmoid(image: Tensor, text: Tensor, log_scale: Tensor, bias: Tensor) -> Tensor:
    """SigLIP: N² yes/no questions, summed and divided by N, not by N²."""
    logits = log_scale.exp() * cosines(image, text) + bias
    signs = 2 * torch.eye(len(image)) - 1  # +1 on the diagonal, -1 elsewhere
    return -F.logsigmoid(signs * logits).sum() / len(image)


# 4. Sixteen pictures with their texts
def world() -> tuple[Tensor, Tensor, int]:
    """Pixels (16 3 32 32), word ids (16 5), size of the vocabulary: a square of each colour at each place."""
    names = ["<pad>", "<end>", *COLOURS, "left", "right", "top", "bottom"]
    pixels, ids = [], []
    for (colour, rgb), (place, (row, column)) in itertools.product(COLOURS.items(), PLACES.items()):
        picture = torch.ones(3, SIDE, SIDE)
        picture[:, row + 3 : row + 13, column + 3 : column + 13] = torch.tensor(rgb)[:, None, None]
        pixels.append(picture)
        ids.append([*(names.index(word) for word in [colour, *place.split()]), END, PAD])
    seen = torch.stack(pixels)
    return (seen - seen.mean(0)) / seen.std(), torch.tensor(ids), len(names)  # less what all share


def train(method: str, pixels: Tensor, ids: Tensor, vocabulary: int, steps: int = 120) -> None:
    """Both towers from nothing; how many pictures find their own text before and after."""
    torch.manual_seed(0)
    vision, text = VisionTower(), TextTower(vocabulary, ids.shape[1])
    start = 1 / 0.07 if method == "contrastive" else 10.0
    log_scale, bias = nn.Parameter(torch.tensor(math.log(start))), nn.Parameter(torch.tensor(-10.0))
    optimizer = torch.optim.AdamW([*vision.parameters(), *text.parameters(), log_scale, bias], lr=1e-3)
    losses, found = [], []
    for step in range(steps + 1):
        both = vision(pixels), text(ids)
        loss = contrastive(*both, log_scale) if method == "contrastive" else sigmoid(*both, log_scale, bias)
        losses.append(loss.item())
        found.append(int((cosines(*both).argmax(dim=1) == torch.arange(len(ids))).sum()))
        if step < steps:
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    show(f"{method}: loss", f"{losses[0]:.3f} → {losses[-1]:.3f}", f"nats, over {steps} steps")
    show(f"{method}: pictures right", f"{found[0]} → {found[-1]} of {len(ids)}", "own text nearest")
    show(f"{method}: scale", f"{start:.2f} → {log_scale.exp().item():.2f}", "learned")
    if method == "sigmoid":
        show("sigmoid: bias", f"-10.00 → {bias.item():.2f}", "learned")


def main() -> None:
    torch.manual_seed(0)
    pixels, ids, vocabulary = world()
    vision, text = VisionTower(), TextTower(vocabulary, ids.shape[1])
    n = len(pixels)

    print("Patches and ViT")
    show("pictures", tuple(pixels.shape), "batch, channels, rows, columns")
    show("patchify", tuple(patchify(pixels).shape), "batch, patches, values of one patch")
    show("vision tower", tuple(vision(pixels).shape), "batch, embedding: read at CLS, projected")

    print("Text, read at its end")
    show("texts", tuple(ids.shape), "batch, tokens: three words, END, padding")
    longer = torch.cat([ids[:, :4], torch.full_like(ids[:, :1], 5)], dim=1)  # other filling behind END
    moved = (text(longer) - text(ids)).abs().max()
    show("END token, other filling", f"moves by {moved:.1e}", "causal: what stands behind cannot reach it")
    moved = (text.tokens(longer).mean(1) - text.tokens(ids).mean(1)).abs().max()
    show("mean of tokens, other filling", f"moves by {moved:.1e}", "filling, and words that saw little")

    print("Two losses on one matrix")
    image, caption = vision(pixels), text(ids)
    scale, bias = torch.tensor(math.log(10)), torch.tensor(-10.0)
    show("cosines", tuple(cosines(image, caption).shape), "pictures × texts; the diagonal belongs together")
    loss = contrastive(image, caption, scale)
    show("contrastive at the start", f"{loss:.3f}", f"chance: {math.log(n):.3f}")
    show("… without its ½", f"{2 * loss:.3f}", "the sum of both directions, not their mean")
    with_bias, without = (sigmoid(image, caption, scale, b) for b in (bias, torch.tensor(0.0)))
    show("sigmoid at the start, bias -10", f"{with_bias:.3f}", "nearly all of it: N pairs to say yes to")
    show("… without bias", f"{without:.3f}", f"nearly all of it: {n * (n - 1)} pairs to say no to")
    show("… bias -10, mean over N²", f"{with_bias / n:.3f}", "N times smaller; it fades as batches grow")

    print("Training (the sigmoid is slower here: of so few pairs, saying no to all is already nearly right)")
    train("contrastive", pixels, ids, vocabulary)
    train("sigmoid", pixels, ids, vocabulary)

    print("Against the package")
    from sutura.losses.contrastive import clip_loss, sigmoid_loss

    difference = (loss - clip_loss(image, caption, scale)).abs()
    show("contrastive - sutura's", f"{difference:.1e}", "the same loss")
    difference = (with_bias - sigmoid_loss(image, caption, scale, bias)).abs()
    show("sigmoid - sutura's", f"{difference:.1e}", "the same loss")


if __name__ == "__main__":
    main()
