"""The pictures of docs/foundations.md, drawn by the package's own code.

    python examples/foundation_figures.py DIR

Whatever encoders lie in the zoo are shown; the similarity matrix is of the zoo's CLIP with its text tower.
"""

from __future__ import annotations

import sys
import textwrap
from pathlib import Path

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.colors import ListedColormap
from matplotlib.offsetbox import AnnotationBbox, OffsetImage
from matplotlib.patches import Rectangle
from torch import Tensor

from sutura.data.scenes import captions
from sutura.data.world_vqa import ScenePicture
from sutura.encoders.catalog import zoo_root
from sutura.encoders.own_text import load_towers
from sutura.losses.contrastive import likeness, sigmoid_loss
from sutura.models.vit import ViT
from sutura.models.zoo_format import load_zoo_vit
from sutura.nn.masking import BlockMask, MultiBlock, RandomMask
from sutura.nn.patch import patchify, unpatchify

SHOWN = ("supervised", "clip", "siglip", "mae", "eva", "ijepa")
SEEN, PREDICTED, BLUE = "#A6D8F5", "#D55E00", "#0072B2"
MAP = "cividis"  # made to look the same under the common colour-vision deficiencies


def pictures(count: int, split: str = "test", objects: tuple[int, int] = (4, 6)) -> tuple[Tensor, list[str]]:
    """Scenes as colours in 0 to 1 (B 3 64 64), each with a caption."""
    shown = [ScenePicture(0, split, i, 64, *objects) for i in range(count)]
    pixels = np.stack([np.array(one.open()) for one in shown])
    texts = [captions(one.scene(), 0, 1)[0] for one in shown]
    return torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255, texts


def members() -> dict[str, tuple[ViT, Tensor, Tensor]]:
    """Encoders by name with the mean and deviation of their colours; the untrained one first."""
    loaded = {
        name: load_zoo_vit(zoo_root() / name)
        for name in SHOWN
        if (zoo_root() / name / "model.safetensors").is_file()
    }
    _, some = next(iter(loaded.values()))
    torch.manual_seed(0)
    encoders = {"untrained": (ViT(**some["args"]).eval(), some), **loaded}
    return {
        name: (vit, *(torch.tensor(about["transform"][key]).view(3, 1, 1) for key in ("mean", "std")))
        for name, (vit, about) in encoders.items()
    }


def attention_of(vit: ViT, pixels: Tensor) -> Tensor:
    """Who looks where in the last block, mean over heads: B, patch that looks, patch looked at."""
    last = vit.blocks[-1]
    x = last.norm_attention(vit(pixels)[1][f"block_{vit.depth - 2}"])
    q, k, _ = last.attention.qkv(x).unflatten(2, (3, vit.heads, -1)).permute(2, 0, 3, 1, 4)
    shares = (q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5).softmax(dim=-1).mean(dim=1)
    return shares[:, vit.num_prefix_tokens :, vit.num_prefix_tokens :]


def draw_patches(path: Path) -> None:
    """A picture, the same cut into patches, and some of them as the row that a transformer reads."""
    image = pictures(1)[0]
    pieces = patchify(image, 8)[0].view(8, 8, 3, 8, 8)
    apart = torch.ones(3, 8 * 10, 8 * 10)
    for row, column in np.ndindex(8, 8):
        apart[:, 10 * row : 10 * row + 8, 10 * column : 10 * column + 8] = pieces[row, column]
    line = torch.ones(3, 8, 16 * 10)
    for i in range(16):
        line[:, :, 10 * i : 10 * i + 8] = pieces[2 + i // 8, i % 8]
    figure = plt.figure(figsize=(7.2, 4.2))
    grid = figure.add_gridspec(2, 2, height_ratios=[4, 1])
    parts = (
        (grid[0, 0], image[0], "a picture of 64 × 64 pixels"),
        (grid[0, 1], apart, "64 patches of 8 × 8 pixels"),
        (grid[1, :], line, "patches 17 to 32 of the row, 192 numbers each"),
    )
    for place, content, title in parts:
        show(figure.add_subplot(place), content, title)
    save(figure, path)


def draw_attention(path: Path, encoders: dict[str, tuple[ViT, Tensor, Tensor]]) -> None:
    """Where one patch looks, for every encoder."""
    images = pictures(3)[0]
    asked = patchify(images, 8).std(dim=2).argmax(dim=1)  # the patch with the most in it
    figure, axes = plt.subplots(3, 1 + len(encoders), figsize=(1.25 * (1 + len(encoders)), 4.1))
    for row in range(3):
        show(axes[row, 0], images[row], "picture" if row == 0 else "")
    for column, (name, (vit, mean, std)) in enumerate(encoders.items(), start=1):
        shares = attention_of(vit, (images - mean) / std)
        for row in range(3):
            axes[row, column].imshow(shares[row, asked[row]].view(vit.grid), cmap=MAP)
            show(axes[row, column], None, name if row == 0 else "")
    for row, column in np.ndindex(axes.shape):
        size = 8 if column == 0 else 1
        at = (int(asked[row]) % 8 * size - 0.5, int(asked[row]) // 8 * size - 0.5)
        axes[row, column].add_patch(Rectangle(at, size, size, fill=False, edgecolor=PREDICTED, linewidth=2))
    save(figure, path)


def draw_masks(path: Path) -> None:
    """What MAE, EVA and I-JEPA see (light) and predict (dark), two draws each."""
    side, draw = (14, 14), torch.Generator().manual_seed(3)
    random = RandomMask(side, 0.75).sample(2, draw)[1].int()
    block = BlockMask(side, 0.4, least=16).sample(2, draw).int()
    context, targets = MultiBlock(side).sample(2, draw)
    titles = ("random, 75 % (MAE)", "block-wise, 40 % (EVA)", "multi-block (I-JEPA)\nwhite: neither")
    figure, axes = plt.subplots(2, 3, figsize=(7.2, 5.2))
    for row in range(2):
        multi = torch.full((196,), 2)
        multi[context[row]] = 0
        multi[targets[:, row].flatten()] = 1
        for column, mask in enumerate((random[row], block[row], multi)):
            colours = ListedColormap([SEEN, PREDICTED, "white"])
            axes[row, column].imshow(mask.view(side), cmap=colours, vmin=0, vmax=2)
            show(axes[row, column], None, titles[column] if row == 0 else "", grid=14)
        for index in targets[:, row]:
            rows, columns = index // 14, index % 14
            corner = (int(columns.min()) - 0.5, int(rows.min()) - 0.5)
            size = (int(columns.max() - columns.min()) + 1, int(rows.max() - rows.min()) + 1)
            axes[row, 2].add_patch(Rectangle(corner, *size, fill=False, edgecolor="black", linewidth=1.6))
    save(figure, path)


def draw_mae(path: Path) -> None:
    """What MAE sees, and the pixels it is to paint, each patch in units of its own spread."""
    images = pictures(2)[0]
    _, hidden = RandomMask((8, 8), 0.75).sample(2, torch.Generator().manual_seed(0))
    cut = patchify(images, 8)
    unit = (cut - cut.mean(-1, keepdim=True)) / (cut.var(-1, keepdim=True) + 1e-6).sqrt()
    seen = unpatchify(torch.where(hidden[:, :, None], torch.tensor(0.93), cut), 8, (8, 8))
    target = torch.where(hidden[:, :, None], (0.5 + unit / 5).clamp(0, 1), torch.tensor(0.93))
    target = unpatchify(target, 8, (8, 8))
    figure, axes = plt.subplots(2, 3, figsize=(6.4, 4.4))
    titles = ("picture", "what the encoder sees", "target, normalised")
    for row, column in np.ndindex(axes.shape):
        show(axes[row, column], (images, seen, target)[column][row], titles[column] if row == 0 else "")
    save(figure, path)


def draw_similarity(path: Path) -> None:
    """Every text of a batch against every picture: cosines, and what CLIP's softmax makes of them."""
    images, texts = pictures(8, objects=(2, 2))
    own = load_towers(zoo_root() / "clip")
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (own.transform.mean, own.transform.std))
    with torch.no_grad():
        image, text = own.model.encode_image((images - mean) / std), own.encode(texts)
        scale = own.model.log_scale.exp()
        cosines = likeness(image, text).T  # texts × pictures
        chosen = (scale * cosines).softmax(dim=0)
    figure, axes = plt.subplots(1, 2, figsize=(9.0, 4.3))
    parts = ((cosines, "cosine"), (chosen, f"each picture's choice of text\nsoftmax at scale {scale:.0f}"))
    for axis, (values, title) in zip(axes, parts, strict=True):
        axis.imshow(values, cmap=MAP)
        for row, column in np.ndindex(values.shape):
            value = values[row, column]
            colour = "white" if value < (values.min() + values.max()) / 2 else "black"
            axis.text(column, row, f"{value:.2f}", ha="center", va="center", fontsize=6, color=colour)
        for i, picture in enumerate(images):
            small = OffsetImage(picture.permute(1, 2, 0).numpy(), zoom=0.4)
            axis.add_artist(AnnotationBbox(small, (i, -1.05), frameon=False, annotation_clip=False))
        show(axis, None, "")
        axis.set_xlabel(title, fontsize=8)
    axes[0].set_yticks(range(8), [textwrap.fill(text, 34) for text in texts], fontsize=6)
    figure.subplots_adjust(top=0.8)
    save(figure, path)


def draw_sigmoid(path: Path) -> None:
    """The sigmoid loss of embeddings that know nothing, by batch size: value, and pull on one embedding."""
    sizes, draw = [8, 16, 32, 64, 128, 256, 512], torch.Generator().manual_seed(0)
    names = ("SigLIP: bias −10, sum / N", "no bias, sum / N", "no bias, mean over N²")
    rows: dict[str, list[tuple[float, float]]] = {name: [] for name in names}
    for size in sizes:
        for name, bias, less in zip(rows, (-10.0, 0.0, 0.0), (1, 1, size), strict=True):
            image = torch.nn.functional.normalize(torch.randn(size, 64, generator=draw), dim=1)
            image.requires_grad_()
            text = torch.randn(size, 64, generator=draw)
            loss = sigmoid_loss(image, text, torch.tensor(10.0).log(), torch.tensor(bias)) / less
            loss.backward()
            rows[name].append((loss.item(), size * image.grad.norm(dim=1).mean().item()))
    figure, axes = plt.subplots(1, 2, figsize=(8.0, 3.1))
    for (name, values), colour, style in zip(rows.items(), (BLUE, PREDICTED, "black"), "os^", strict=True):
        for axis, measured in zip(axes, zip(*values, strict=True), strict=True):
            axis.plot(sizes, measured, color=colour, marker=style, markersize=4, label=name)
    titles = ("loss at the first step, nats", "N × gradient of one picture")
    for axis, title in zip(axes, titles, strict=True):
        axis.set(xscale="log", yscale="log", xlabel="batch size N")
        axis.set_title(title, fontsize=9)
        axis.set_xticks(sizes, map(str, sizes), fontsize=7)
        axis.minorticks_off()
    axes[0].legend(fontsize=7)
    save(figure, path)


def draw_pca(path: Path, encoders: dict[str, tuple[ViT, Tensor, Tensor]]) -> None:
    """The first two principal components of patches, over 48 pictures, less each place's own mean."""
    images = pictures(48)[0]
    figure, axes = plt.subplots(6, 1 + len(encoders), figsize=(1.1 * (1 + len(encoders)), 6.6))
    for column, (name, (vit, mean, std)) in enumerate(encoders.items(), start=1):
        patches = vit((images - mean) / std)[1]["normed"]  # B N D
        flat = (patches - patches.mean(dim=0)).flatten(0, 1)
        _, sizes, directions = torch.linalg.svd(flat, full_matrices=False)
        found = flat @ directions[:2].T
        found = found * found.gather(0, found.abs().argmax(dim=0)[None]).sign()  # the largest is positive
        share = float(sizes[:2].square().sum() / sizes.square().sum())
        maps = found.view(len(images), *vit.grid, 2)
        for row in range(6):
            limit = float(maps[:3, ..., row % 2].abs().max())
            axes[row, column].imshow(maps[row // 2, ..., row % 2], cmap=MAP, vmin=-limit, vmax=limit)
            show(axes[row, column], None, f"{name}\n{100 * share:.0f} %" if row == 0 else "")
    for row in range(6):
        show(axes[row, 0], images[row // 2] if row % 2 == 0 else None, "picture\n" if row == 0 else "")
        axes[row, 0].set_ylabel(f"component {row % 2 + 1}", fontsize=7)
    save(figure, path)


def show(axis: mpl.axes.Axes, image: Tensor | None, title: str, grid: int = 0) -> None:
    """A picture, or whatever is already drawn, without ticks."""
    if image is not None:
        axis.imshow(image.permute(1, 2, 0).numpy())
    axis.set_xticks(np.arange(grid) - 0.5 if grid else [], [""] * grid)
    axis.set_yticks(np.arange(grid) - 0.5 if grid else [], [""] * grid)
    axis.tick_params(length=0)
    if grid:
        axis.grid(color="white", linewidth=0.5)
    for side in axis.spines.values():
        side.set_visible(False)
    axis.set_title(title, fontsize=8)


def save(figure: mpl.figure.Figure, path: Path) -> None:
    """As PNG, without a date in it, so that the same picture is the same file."""
    figure.savefig(path, dpi=100, bbox_inches="tight", metadata={"Software": None})
    plt.close(figure)
    print(path)


def main(folder: Path) -> None:
    mpl.use("Agg")
    folder.mkdir(parents=True, exist_ok=True)
    draw_masks(folder / "masks.png")
    draw_sigmoid(folder / "sigmoid.png")
    with torch.no_grad():
        encoders = members()
        draw_patches(folder / "patches.png")
        draw_attention(folder / "attention.png", encoders)
        draw_mae(folder / "mae.png")
        draw_pca(folder / "pca.png", encoders)
        draw_similarity(folder / "similarity.png")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
