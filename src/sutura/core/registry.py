"""A table of names one can read: a wrong name gets a suggestion, a taken name is refused."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator
from importlib.metadata import entry_points
from typing import Generic, TypeVar

from sutura.core.errors import UserError

T = TypeVar("T")


def suggest(name: str, known: Iterable[str]) -> str:
    """A sentence with the nearest known names, for the end of an error message."""
    names = sorted(known)
    near = difflib.get_close_matches(name, names, n=3, cutoff=0.5)
    if near:
        return "Did you mean " + " or ".join(repr(n) for n in near) + "?"
    return "Known: " + ", ".join(names[:40]) + (" …" if len(names) > 40 else "") + "."


class Registry(Generic[T]):
    """Names to things, filled in this project and by other packages' entry points.

    Args:
        kind: what the names stand for, used in messages ("encoder", "benchmark").
        group: entry-point group that other packages may fill; read at the first look-up of a name
            that is not known here, or when all names are listed.
    """

    def __init__(self, kind: str, group: str | None = None) -> None:
        self.kind = kind
        self.group = group
        self._items: dict[str, T] = {}
        self._plugins_read = False

    def add(self, name: str, item: T) -> T:
        """Enter a name. Raises UserError when it is taken."""
        if name in self._items:
            raise UserError(f"{self.kind} {name!r} is already registered; choose another name.")
        self._items[name] = item
        return item

    def get(self, name: str) -> T:
        """The thing behind a name. Raises UserError with a suggestion when there is none."""
        if name not in self._items:
            self._read_plugins()
        if name not in self._items:
            raise UserError(f"There is no {self.kind} named {name!r}. {suggest(name, self._items)}")
        return self._items[name]

    def names(self) -> list[str]:
        """All names, sorted, plug-ins included."""
        self._read_plugins()
        return sorted(self._items)

    def __contains__(self, name: str) -> bool:
        if name not in self._items:
            self._read_plugins()
        return name in self._items

    def __iter__(self) -> Iterator[str]:
        return iter(self.names())

    def _read_plugins(self) -> None:
        if self._plugins_read or self.group is None:
            return
        self._plugins_read = True
        for point in entry_points(group=self.group):
            self.add(point.name, point.load())
