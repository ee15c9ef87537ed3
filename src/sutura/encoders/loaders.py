"""From a name to an encoder."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from sutura.core.checkpoint import read_json
from sutura.core.config import parse
from sutura.core.errors import UserError
from sutura.core.fetch import fetch
from sutura.core.registry import Registry, suggest
from sutura.encoders.base import VisionEncoder
from sutura.encoders.catalog import BY_ID, Row, check_row, known_ids, zoo_folder, zoo_row
from sutura.encoders.config import EncoderConfig

Load = Callable[[Path, EncoderConfig, Mapping[str, Any]], VisionEncoder]

#: Encoders of other packages: a callable from an EncoderConfig, under the entry-point group
#: "sutura.encoders".
PLUGINS: Registry[Callable[[EncoderConfig], VisionEncoder]] = Registry("encoder", group="sutura.encoders")


def load_encoder(spec: str | EncoderConfig | Mapping[str, Any], **options: Any) -> VisionEncoder:
    """A frozen encoder with its transform.

    Args:
        spec: an id (see EncoderConfig), a config, or a config's values.
        options: further values of the config, such as `tokens=64` or `layer=-2`.

    Raises:
        UserError: an unknown name, a checkpoint that is not whole, or options that do not fit it.
    """
    if isinstance(spec, EncoderConfig):
        values: dict[str, Any] = spec.model_dump()
    else:
        values = {"id": spec} if isinstance(spec, str) else dict(spec)
    config = parse(EncoderConfig, {**values, **options}, where="the encoder")
    if config.fuse:
        return _fused(config)
    kind, _, rest = config.id.partition(":")
    if kind == "zoo" or config.id.startswith("zoo/"):
        return _from_zoo(rest or config.id.removeprefix("zoo/"), config)
    if config.id in BY_ID:
        return _from_row(BY_ID[config.id], config)
    if kind in _HUB and rest:
        format, find = _HUB[kind]
        return _from_hub(format, find(rest), config)
    folder = Path(config.id).expanduser()
    if folder.is_dir():
        from sutura.encoders.from_zoo import encoder_folder

        return _from_folder(encoder_folder(folder), config, {"source": "local folder", "revision": None})
    if config.id in PLUGINS:
        return _from_plugin(config)
    raise UserError(
        f"There is no encoder {config.id!r}: no such folder, and no such name. "
        f"{suggest(config.id, [*known_ids(), *PLUGINS.names()])} For another checkpoint of the Hub write "
        "hf:org/name, timm:NAME or open_clip:NAME/TAG."
    )


def _fused(config: EncoderConfig) -> VisionEncoder:
    """Every part with the tokens, and the untrained seed, of the whole."""
    from sutura.encoders.fused import FusedEncoder

    return FusedEncoder([load_encoder(part) for part in config.parts()], config)


def _from_zoo(name: str, config: EncoderConfig) -> VisionEncoder:
    from sutura.encoders.from_zoo import load_zoo

    row = zoo_row(name)
    encoder = load_zoo(zoo_folder(row.id), config, {"source": "zoo", "revision": None})
    return _checked(row, encoder)


def _from_row(row: Row, config: EncoderConfig) -> VisionEncoder:
    if row.loader == "open_clip":
        repo = open_clip_repo(row.id.partition(":")[2])
    else:
        repo = row.repo
    return _checked(row, _from_hub(row.loader, repo, config))


def _checked(row: Row, encoder: VisionEncoder) -> VisionEncoder:
    unchecked = check_row(row, encoder)
    told = {key: value for key, value in row.about().items() if value or key not in encoder.about}
    encoder.about |= {**told, "unchecked": unchecked}
    return encoder


def _from_hub(format: str, repo: str, config: EncoderConfig) -> VisionEncoder:
    """An encoder from a Hub repository; `any` format is found out from the files."""
    from sutura.encoders import from_open_clip, from_timm, from_transformers

    wanted: dict[str, tuple[str, ...]] = {
        "transformers": from_transformers.PATTERNS,
        "timm": from_timm.PATTERNS,
        "open_clip": from_open_clip.PATTERNS,
    }
    patterns = set(wanted[format] if format in wanted else sum(wanted.values(), ()))
    if config.trust_remote_code:
        patterns.add("*.py")
    fetched = fetch(repo, revision=config.revision, patterns=sorted(patterns))
    about = {"source": f"https://huggingface.co/{repo}", "revision": fetched.revision}
    return _from_folder(fetched.folder, config, about, format)


def timm_repo(name: str) -> str:
    """The Hub repository behind a timm name with its tag."""
    import timm
    from timm.models import get_pretrained_cfg

    known = timm.list_models(pretrained=True)
    if name not in known and not timm.is_model(name.split(".")[0]):
        raise UserError(f"timm knows no model {name!r}. {suggest(name, known)}")
    try:
        cfg = get_pretrained_cfg(name)
    except RuntimeError as error:
        raise UserError(f"timm knows no weights {name!r}: {error}") from None
    repo = getattr(cfg, "hf_hub_id", None)
    if not repo:
        raise UserError(f"timm has no weights of {name!r} on the Hub; save them to a folder and give that.")
    return repo


def open_clip_repo(name: str) -> str:
    """The Hub repository behind an open_clip name and tag."""
    import open_clip

    model, _, tag = name.partition("/")
    tags = open_clip.list_pretrained_tags_by_model(model)
    if not tags:
        raise UserError(f"open_clip knows no model {model!r}. {suggest(model, open_clip.list_models())}")
    if tag not in tags:
        raise UserError(f"open_clip knows no weights {tag!r} of {model!r}. {suggest(tag, tags)}")
    repo = str((open_clip.get_pretrained_cfg(model, tag) or {}).get("hf_hub") or "").rstrip("/")
    if not repo:
        raise UserError(f"open_clip has no weights {name!r} on the Hub; save them to a folder and give that.")
    return repo


def _from_folder(
    folder: Path, config: EncoderConfig, about: Mapping[str, Any], format: str = "any"
) -> VisionEncoder:
    loader, load = _reader(folder, format)
    return load(folder, config, {"loader": loader, **about})


def _reader(folder: Path, format: str) -> tuple[str, Load]:
    """Whose format a folder is in, by the files in it, unless it was asked for by name."""
    from sutura.encoders.from_open_clip import CONFIG, load_open_clip
    from sutura.encoders.from_timm import load_timm
    from sutura.encoders.from_transformers import load_transformers
    from sutura.encoders.from_zoo import load_zoo

    written = read_json(folder / "config.json") if (folder / "config.json").is_file() else {}
    found: dict[str, tuple[bool, Load]] = {
        "transformers": ("model_type" in written, load_transformers),
        "open_clip": ((folder / CONFIG).is_file(), load_open_clip),
        "timm": ("architecture" in written, load_timm),
        "zoo": (written.get("model") == "vit", load_zoo),
    }
    for name, (fits, load) in found.items():
        if fits and format in (name, "any"):
            return name, load
    raise UserError(
        f"{folder} is no encoder that can be read{'' if format == 'any' else f' in the format of {format}'}: "
        "it needs "
        "config.json with model_type (transformers), architecture (timm) or model: vit (the zoo), or "
        f"{CONFIG}."
    )


def _from_plugin(config: EncoderConfig) -> VisionEncoder:
    encoder = PLUGINS.get(config.id)(config)
    if not isinstance(encoder, VisionEncoder):
        raise UserError(
            f"The plug-in behind {config.id!r} returned {type(encoder).__name__}; it has to return a "
            "VisionEncoder."
        )
    return encoder


#: Prefix of an id → the format asked for, and how the rest names a repository.
_HUB: dict[str, tuple[str, Callable[[str], str]]] = {
    "hf": ("any", str),
    "timm": ("timm", timm_repo),
    "open_clip": ("open_clip", open_clip_repo),
}
