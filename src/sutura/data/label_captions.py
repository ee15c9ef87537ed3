"""Captions made of labels: a set without texts can train what learns from texts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from sutura.core.errors import UserError
from sutura.data.picture_source import PictureSource


def label_captions(
    labels: Sequence[Any], names: Sequence[str], source: PictureSource
) -> Callable[[int], list[str]]:
    """For a row, the source's templates with the name of its label in them; of several labels, each in turn.

    Two pictures of one class have the same captions, so that one's text is a positive of the other.

    Args:
        labels: of every row a number, a name, or a list of them.
        names: of the labels by number.
        source: has the templates.

    Raises:
        UserError: the labels are bare numbers, which say nothing in a sentence.

    Source: the templates' form: Radford et al. 2021, arXiv:2103.00020, section 3.1.4.
    """
    if all(name.isdigit() for name in names):
        raise UserError(
            f"The labels of {source.path!r} are numbers, and captions are made of their names "
            "(pictures.source.caption_templates). Give a label column with names."
        )

    def captions(row: int) -> list[str]:
        label = labels[row]
        listed = label if isinstance(label, list | tuple) else [label]
        shown = [names[one] if isinstance(one, int) and str(one) not in names else str(one) for one in listed]
        return [template.format(name) for template in source.caption_templates for name in shown]

    return captions
