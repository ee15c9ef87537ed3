"""Frozen config sections, YAML presets with one level of `base:`, and `section.key=value` overrides."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from sutura.core.errors import UserError
from sutura.core.hashing import fingerprint
from sutura.core.registry import suggest


class Section(BaseModel):
    """A frozen part of a config. Unknown keys are refused with a suggestion.

    A section inside it may be given in part: what is not said keeps the default that the section has here, which
    may be another than the section's own.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())

    @model_validator(mode="before")
    @classmethod
    def _laid_over_defaults(cls, values: Any) -> Any:
        """A section of which a part is said keeps, for the rest, the default it has in this config."""
        if not isinstance(values, Mapping):
            return values
        laid = {
            name: merge(field.default.model_dump(exclude_unset=True), given)
            for name, field in cls.model_fields.items()
            if isinstance(field.default, Section) and isinstance(given := values.get(name), Mapping)
        }
        return {**values, **laid}

    def resolved(self) -> dict[str, Any]:
        """Every value, defaults included, as JSON-able data."""
        return self.model_dump(mode="json")

    def hash(self) -> str:
        """Fingerprint of the resolved values."""
        return fingerprint(self.resolved())


C = TypeVar("C", bound=Section)


def parse(cls: type[C], values: Mapping[str, Any], where: str = "the config") -> C:
    """Validate plain data into a section.

    Raises:
        UserError: one line for each fault, with the path of the key and, for an unknown key, a suggestion.
    """
    try:
        return cls.model_validate(dict(values))
    except ValidationError as error:
        raise UserError(_explain(cls, error, where)) from None


def _explain(cls: type[Section], error: ValidationError, where: str) -> str:
    lines = []
    for fault in error.errors():
        path = ".".join(str(part) for part in fault["loc"])
        if fault["type"] == "extra_forbidden":
            lines.append(
                f"  {path}: unknown key. {suggest(str(fault['loc'][-1]), _keys(cls, fault['loc'][:-1]))}"
            )
        else:
            lines.append(f"  {path}: {fault['msg']} (found {fault['input']!r})")
    return f"{where} does not fit {cls.__name__}:\n" + "\n".join(lines)


def _keys(cls: type[BaseModel], path: Sequence[int | str]) -> list[str]:
    """Field names of the section at a path; an index or a union label in it is stepped over."""
    here: type[BaseModel] = cls
    for part in path:
        field = here.model_fields.get(str(part))
        if field is None:
            continue
        found = _section_in(field.annotation)
        if found is not None:
            here = found
    return list(here.model_fields)


def _section_in(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    for inner in getattr(annotation, "__args__", ()):
        found = _section_in(inner)
        if found is not None:
            return found
    return None


def merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Deep merge of mappings; lists and scalars of `over` replace those of `base`.

    A mapping whose keys are places in a list (`{0: …}`) changes those places and leaves the others.
    """
    merged = dict(base)
    for key, value in over.items():
        old = merged.get(key)
        if isinstance(old, list) and isinstance(value, Mapping):
            merged[key] = _merge_places(key, old, value)
        else:
            merged[key] = (
                merge(old, value) if isinstance(old, Mapping) and isinstance(value, Mapping) else value
            )
    return merged


def _merge_places(name: str, old: list[Any], value: Mapping[str, Any]) -> list[Any]:
    items = list(old)
    for place, change in value.items():
        if not str(place).isdigit() or int(place) >= len(items):
            raise UserError(
                f"{name} is a list of {len(items)}; {place!r} is no place in it (0 to {len(items) - 1})."
            )
        here = items[int(place)]
        items[int(place)] = (
            merge(here, change) if isinstance(here, Mapping) and isinstance(change, Mapping) else change
        )
    return items


def apply_overrides(values: Mapping[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    """Apply `section.key=value` strings; the value is read as YAML (`3`, `true`, `[a, b]`, text).

    Raises:
        UserError: no `=` in an override, or a value that is not YAML.
    """
    result = merge(values, {})
    for override in overrides:
        path, equals, text = override.partition("=")
        if not equals or not path.strip():
            raise UserError(f"Override {override!r} is not of the form section.key=value.")
        keys = path.strip().split(".")
        try:
            nested: Any = yaml.safe_load(text)
        except yaml.YAMLError:
            raise UserError(f"Override {override!r}: {text!r} is not valid YAML; quote it.") from None
        for key in reversed(keys):
            nested = {key: nested}
        result = merge(result, nested)
    return result


def preset_names(folder: str = "") -> list[str]:
    """Names of the shipped presets, as `load_preset` takes them."""
    root = Path(str(files("sutura"))) / "presets" / folder
    return sorted(p.relative_to(root).with_suffix("").as_posix() for p in root.rglob("*.yaml"))


def preset_path(name: str) -> Path:
    """A shipped preset's name, or a path to a YAML file. Raises UserError with a suggestion."""
    if name.endswith((".yaml", ".yml")):
        path = Path(name)
        if not path.is_file():
            raise UserError(
                f"No preset file at {name!r}. Give a path to a YAML file or a shipped preset's name."
            )
        return path
    path = Path(str(files("sutura"))) / "presets" / f"{name}.yaml"
    if not path.is_file():
        raise UserError(f"There is no preset named {name!r}. {suggest(name, preset_names())}")
    return path


def read_preset(name: str) -> dict[str, Any]:
    """A preset as plain data, its `base:` (one level) merged in.

    Raises:
        UserError: not a mapping, not YAML, or a base that has a base.
    """
    values = _read_yaml(preset_path(name))
    base = values.pop("base", None)
    if base is None:
        return values
    below = _read_yaml(preset_path(base))
    if "base" in below:
        raise UserError(
            f"Preset {name!r} builds on {base!r}, which has a base itself; one level is the rule."
        )
    return merge(below, values)


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise UserError(f"{path.name} is not valid YAML: {error}") from None
    if not isinstance(values, dict):
        raise UserError(f"{path.name} holds {type(values).__name__}; a preset is a mapping of sections.")
    return values


def load_config(cls: type[C], preset: str, overrides: Sequence[str] = ()) -> C:
    """A validated config from a preset and overrides."""
    return parse(cls, apply_overrides(read_preset(preset), overrides), where=f"preset {preset!r}")
