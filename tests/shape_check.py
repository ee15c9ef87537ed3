"""The checker that jaxtyping's import hook calls: beartype on the array shapes of a signature, nothing else.

Plain types are the type checker's business (basedpyright); checking them at run time too would refuse the
small stand-ins that tests put in the place of models and data.
"""

from __future__ import annotations

from collections.abc import Callable
from inspect import isclass
from typing import Any, get_args

from beartype import beartype
from jaxtyping import AbstractArray


def check(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function with its array annotations enforced; itself where it has none."""
    shapes = {name: hint for name, hint in function.__annotations__.items() if _has_shape(hint)}
    if not shapes:
        return function
    function.__annotations__ = shapes
    return beartype(function)


def _has_shape(hint: Any) -> bool:
    if isclass(hint) and issubclass(hint, AbstractArray):
        return True
    return any(_has_shape(part) for part in get_args(hint))
