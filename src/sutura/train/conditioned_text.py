"""Captions as the hidden states of a frozen text network: made once, kept on disk, read back a batch at a time."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from sutura.core.checkpoint import atomic_directory, read_json, write_json
from sutura.core.errors import UserError
from sutura.core.hashing import fingerprint, fingerprint_file
from sutura.core.log import progress_bars, say
from sutura.core.runtime import pick_device
from sutura.stitch.config import LlmConfig
from sutura.stitch.language import load_tokenizer, place_of
from sutura.train.conditioned_config import TextConfig

STATES, STARTS, FACTS = "states.bin", "starts.npy", "facts.json"
#: Raised when states are made in another way: since 2 a text that is cut keeps its last special token.
FORMAT = 2
#: First parts of names that a text checkpoint may hold beside its trunk: heads of its pre-training.
HEADS = ("cls.", "lm_head.", "pooler.", "bert.pooler.", "vocab_", "predictions.", "score.", "classifier.")


class TextStore:
    """Hidden states of many texts, one after the other in a file, with no padding between them.

    Args:
        directory: as `text_states` wrote it.

    Attributes:
        width: of a token.
        cut: texts that were longer than the network was let read.
        parameters: of the network.
        fingerprint: of network, settings and texts.
    """

    def __init__(self, directory: Path) -> None:
        facts = read_json(directory / FACTS)
        self.width: int = facts["width"]
        self.cut: int = facts["cut"]
        self.parameters: int = facts["parameters"]
        self.fingerprint: str = facts["fingerprint"]
        self.starts = np.load(directory / STARTS)
        shape = (int(self.starts[-1]), self.width)
        if (directory / STATES).stat().st_size != 2 * shape[0] * shape[1]:
            raise UserError(f"{directory / STATES} was cut short; remove {directory} and run again.")
        self._states = np.memmap(directory / STATES, np.float16, "r", shape=shape)

    def __len__(self) -> int:
        return len(self.starts) - 1

    def rows(
        self, wanted: Sequence[int | None]
    ) -> tuple[Float[Tensor, "texts length width"], Bool[Tensor, "texts length"]]:
        """States of some texts, padded to the longest, and where they are padded; None is no text at all."""
        ends = [(0, 0) if i is None else (int(self.starts[i]), int(self.starts[i + 1])) for i in wanted]
        longest = max((last - first for first, last in ends), default=0)
        out = torch.zeros(len(ends), longest, self.width)
        padding = torch.ones(len(ends), longest, dtype=torch.bool)
        for row, (first, last) in enumerate(ends):
            out[row, : last - first] = torch.from_numpy(np.array(self._states[first:last])).float()
            padding[row, : last - first] = False
        return out, padding


def text_key(config: TextConfig) -> str:
    """Fingerprint of the text network's files and of how it is read. Raises UserError when it is not there."""
    folder = Path(place_of(LlmConfig(id=config.id, revision=config.revision))[0])
    files = sorted(p for p in folder.iterdir() if p.suffix in (".safetensors", ".json", ".txt", ".model"))
    if not any(p.suffix == ".safetensors" for p in files):
        raise UserError(f"Text network {config.id!r} has no safetensors in {folder}.")
    return fingerprint([FORMAT, [(p.name, fingerprint_file(p)) for p in files], config.layer, config.longest])


def text_states(config: TextConfig, texts: Sequence[str], directory: Path, device: str) -> TextStore:
    """Hidden states of texts, from disk where they are there.

    Args:
        config: which network, and how it is read.
        texts: in the order in which they will be asked for.
        directory: of all such stores.
        device: that encodes.

    Raises:
        UserError: no such network, weights that are missing, or states that do not fit float16.
    """
    key = fingerprint(["text states", 1, text_key(config), fingerprint(list(texts))])
    place = directory / f"text-{key}"
    if not place.is_dir():
        with atomic_directory(place, replace=True) as temporary:
            _encode_all(config, texts, temporary, device, key)
    store = TextStore(place)
    if store.cut:
        say(
            f"{store.cut:,} of {len(store):,} captions are longer than text.longest={config.longest} tokens and were "
            "cut."
        )
    return store


@torch.inference_mode()
def _encode_all(config: TextConfig, texts: Sequence[str], folder: Path, device: str, key: str) -> None:
    tokenizer, model = load_text_network(config)
    on = pick_device(device)
    model.to(on)
    lengths, cut, width = [], 0, 0
    with (folder / STATES).open("wb") as file, progress_bars() as bars:
        bar = bars.add_task("text states", total=len(texts), note="")
        for start in range(0, len(texts), config.batch):
            ids = [tokenizer(text)["input_ids"] for text in texts[start : start + config.batch]]
            cut += sum(len(one) > config.longest for one in ids)
            states = _states(
                model, [shorten(one, config.longest, tokenizer) for one in ids], tokenizer, config.layer
            )
            width = states[0].shape[1]
            for one in states:
                half = one.to(torch.float16).cpu()
                if not bool(torch.isfinite(half).all()):
                    raise UserError(
                        f"Hidden states of {config.id!r} at layer {config.layer} do not fit float16; choose another "
                        "text.layer."
                    )
                file.write(half.numpy().tobytes())
                lengths.append(len(one))
            bars.update(bar, completed=min(start + config.batch, len(texts)))
    np.save(folder / STARTS, np.cumsum([0, *lengths]))
    size = sum(p.numel() for p in model.parameters())
    facts = {"width": width, "cut": cut, "parameters": size, "fingerprint": key, "id": config.id}
    write_json(folder / FACTS, facts)


def shorten(ids: Sequence[int], longest: int, tokenizer: Any) -> list[int]:
    """At most so many tokens; a text that ends in a special token (BERT's [SEP]) keeps it."""
    if len(ids) <= longest:
        return list(ids)
    ends = longest > 1 and ids[-1] in set(tokenizer.all_special_ids)
    return [*ids[: longest - 1], ids[-1]] if ends else list(ids[:longest])


def _states(model: Any, ids: Sequence[Sequence[int]], tokenizer: Any, layer: int) -> list[Tensor]:
    """Hidden states of every text without its padding."""
    longest = max(map(len, ids))
    pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else 0
    rows = torch.tensor([[*one, *[pad] * (longest - len(one))] for one in ids])
    valid = torch.tensor([[1] * len(one) + [0] * (longest - len(one)) for one in ids])
    on = next(model.parameters()).device
    out = model(input_ids=rows.to(on), attention_mask=valid.to(on), output_hidden_states=layer != -1)
    if layer == -1:
        found = out.last_hidden_state
    else:
        depth = len(out.hidden_states) - 1
        if not -depth - 1 <= layer <= depth:
            raise UserError(
                f"text.layer={layer}: the text network has {depth} blocks, so it is one of -{depth + 1} to {depth}."
            )
        found = out.hidden_states[layer]
    return [found[i, : len(one)].float() for i, one in enumerate(ids)]


def load_text_network(config: TextConfig) -> tuple[Any, Any]:
    """Tokenizer and trunk, frozen and in eval mode, with every weight of the trunk loaded.

    Raises:
        UserError: not there, not safetensors, or weights of the trunk missing or left over.
    """
    from transformers import AutoModel
    from transformers.utils import logging

    named = LlmConfig(id=config.id, revision=config.revision)
    tokenizer = load_tokenizer(named)
    logging.disable_progress_bar()
    before = logging.get_verbosity()
    logging.set_verbosity_error()  # the heads left out are counted below
    try:
        loaded: Any = AutoModel.from_pretrained(
            place_of(named)[0], use_safetensors=True, output_loading_info=True, dtype=torch.float32
        )
    except (OSError, ValueError) as error:
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise UserError(f"Text network {config.id!r} could not be loaded: {first}") from None
    finally:
        logging.set_verbosity(before)
    model, info = loaded
    missing = [k for k in info.get("missing_keys") or () if not k.startswith("pooler.")]
    extra = [k for k in info.get("unexpected_keys") or () if not k.startswith(HEADS)]
    if missing or extra or info.get("mismatched_keys"):
        raise UserError(
            f"Weights of text network {config.id!r} do not fit its architecture (missing: "
            f"{', '.join(missing[:3]) or '–'}; left over: {', '.join(extra[:3]) or '–'}; of another shape: "
            f"{len(info.get('mismatched_keys') or ())})."
        )
    return tokenizer, model.requires_grad_(False).eval()
