"""What the compared encoders do not share: said in the report, so that nobody reads it into a ranking."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

#: Facts that explain a difference as well as "the encoder" does: key → how it is called.
CONFOUNDERS = {
    "num_tokens": "visual tokens given to the language model",
    "image_size": "picture size in pixels",
    "params": "encoder parameters",
    "width": "feature width (and with it the projector's size)",
    "objective": "pre-training objective",
    "data": "pre-training data",
    "source": "source of the weights",
}
#: Parameter counts closer than this share count as equal.
CLOSE = 0.05


def not_matched(facts: Mapping[str, Mapping[str, Any]], encoders: Sequence[str]) -> list[str]:
    """One sentence for each fact that differs, or is unknown, between the named encoders.

    Args:
        facts: encoder name to its facts.
        encoders: those that were compared with one another.
    """
    if len(encoders) < 2:
        return []
    sentences = []
    for key, title in CONFOUNDERS.items():
        values = {name: facts.get(name, {}).get(key) for name in encoders}
        known = {name: value for name, value in values.items() if value not in (None, "")}
        if known and not _alike(key, list(known.values())):
            listing = ", ".join(f"{name} {show_fact(key, value)}" for name, value in known.items())
            sentences.append(f"Not matched – {title}: {listing}.")
        unknown = [name for name in values if name not in known]
        if unknown and (known or key in ("objective", "data")):
            sentences.append(f"Not known – {title}: {', '.join(unknown)}.")
    return sentences


def trains_encoder(cells: Sequence[Mapping[str, Any]]) -> list[str]:
    """Names of encoders that were trained along with the stitch, so that their rows do not isolate them."""
    return sorted({str(cell["encoder"]) for cell in cells if cell.get("encoder_trained_along")})


def show_fact(key: str, value: Any) -> str:
    """A fact as a table cell; an unknown one as a dash."""
    if value in (None, ""):
        return "–"
    if key == "params":
        return count_words(int(value))
    if isinstance(value, (list, tuple)):
        return "×".join(str(part) for part in value)
    return str(value)


def count_words(count: int) -> str:
    """1234567 as "1.23 M"."""
    for size, letter in ((10**9, "B"), (10**6, "M"), (10**3, "k")):
        if count >= size:
            return f"{count / size:.3g} {letter}"
    return str(count)


def _alike(key: str, values: list[Any]) -> bool:
    if key == "params":
        return max(values) <= (1 + CLOSE) * min(values)
    return all(value == values[0] for value in values)
