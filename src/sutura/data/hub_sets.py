"""Data sets of the Hub: one commit of them, whole or their first rows streamed, and errors in sentences."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sutura.core.errors import UserError
from sutura.core.fetch import commit_of, explain
from sutura.core.log import say
from sutura.core.secrets import hide
from sutura.data.sources import VqaSource

_COMMIT = re.compile(r"[0-9a-f]{40}")


def hub_rows(source: VqaSource) -> tuple[Any, str | None]:
    """The rows of a Hub set as a `datasets.Dataset`, and the commit they belong to.

    Without a connection the rows come from the cache of `datasets`, if they are there: those it got last, which are
    refused where the source names another commit.

    Raises:
        UserError: several sets in one source, no such set, subset, split or revision, gated, or out of reach and
            not in the cache.
    """
    from datasets import load_dataset

    name = _name(source)
    commit = commit_of(name, source.revision, "dataset")
    with _told(source):
        if source.stream is not None:
            return _streamed(source, name, commit, source.stream), commit
        pinned: dict[str, Any] = {"revision": commit or source.revision} if commit or source.revision else {}
        rows: Any = load_dataset(name, source.subset, split=source.split, **pinned)
    return rows, commit or _from_cache(source, name, rows)


def hub_places(source: VqaSource) -> tuple[Path, ...]:
    """Folders that files of a Hub set are downloaded to and unpacked in."""
    from datasets import config
    from huggingface_hub import constants
    from huggingface_hub.file_download import repo_folder_name

    own = repo_folder_name(repo_id=_name(source), repo_type="dataset")
    return Path(constants.HF_HUB_CACHE) / own, Path(config.DOWNLOADED_DATASETS_PATH)


def hub_splits(source: VqaSource) -> list[str]:
    """Names of the splits of a Hub set. Raises UserError when the Hub cannot be asked."""
    from datasets import get_dataset_split_names

    name = _name(source)
    commit = commit_of(name, source.revision, "dataset")
    with _told(source):
        return list(get_dataset_split_names(name, source.subset, revision=commit or source.revision))


def _name(source: VqaSource) -> str:
    given, *others = source.paths
    if others:
        raise UserError(f"{source.label!r}: one Hub set a source; join several with source: mixture.")
    return given.removeprefix("hf:")


def _streamed(source: VqaSource, name: str, commit: str | None, count: int) -> Any:
    """The first rows, read over the network once and kept on disk under the commit they came from."""
    from datasets import Dataset, load_dataset

    if commit is None:
        raise UserError(
            f"{name!r} is to be streamed (stream={count}), and the Hub cannot be reached (offline, or HF_HUB_OFFLINE "
            "is set). Run with a connection, or leave stream out and use what is in the cache."
        )
    stream: Any = load_dataset(name, source.subset, split=source.split, revision=commit, streaming=True)
    stream = stream.decode(False).take(count)
    say(f"{source.label}: the first {count:,} rows of {name} ({source.split}), streamed")
    key = f"{name}|{source.subset}|{source.split}|{commit}|{count}"
    rows: Any = Dataset.from_generator(
        _Rows(stream, key), features=stream.features, fingerprint=None, gen_kwargs={"key": key}
    )
    if len(rows) < count:
        say(f"{source.label}: the set has {len(rows):,} rows, not {count:,}")
    return rows


class _Rows:
    """A generator of rows whose hash, by which `datasets` finds what it wrote before, is that of the key alone."""

    def __init__(self, stream: Any, key: str) -> None:
        self.stream, self.key = stream, key

    def __call__(self, key: str) -> Iterator[Any]:
        yield from self.stream

    def __reduce__(self) -> tuple[Any, ...]:
        return (_Rows, (None, self.key))


def _from_cache(source: VqaSource, name: str, rows: Any) -> str | None:
    """The commit of rows from the cache, which `datasets` keeps under its name; said, since a branch may have moved."""
    places = [Path(file["filename"]).parts for file in rows.cache_files]
    found = {part for parts in places for part in parts if _COMMIT.fullmatch(part)}
    commit = found.pop() if len(found) == 1 else None
    if _COMMIT.fullmatch(source.revision or "") and commit != source.revision:
        raise UserError(
            f"{name!r} is wanted at commit {source.revision}, the Hub cannot be reached, and what the cache got last "
            f"is commit {commit or 'unknown'}. Run once with a connection, or name that one."
        )
    say(
        f"{source.label}: the Hub cannot be reached; rows of {name} at commit {commit or 'unknown'}, from the cache"
    )
    return commit


@contextmanager
def _told(source: VqaSource) -> Iterator[None]:
    from datasets.exceptions import DatasetsError
    from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled

    name = _name(source)
    where = f"The Hub set {name!r} (subset {source.subset}, split {source.split}) cannot be loaded"
    try:
        yield
    except UserError:
        raise
    except (HfHubHTTPError, OfflineModeIsEnabled) as error:
        raise UserError(hide(explain(name, source.revision, error, "dataset"))) from None
    except (DatasetsError, ConnectionError, OSError, ValueError) as error:
        text = hide((str(error).strip() or repr(error)).splitlines()[0])
        if "gated dataset" in text:
            raise UserError(
                f"{where}: it is gated. Accept its terms on https://huggingface.co/datasets/{name} and log in (`hf "
                "auth login`, or HF_TOKEN in the environment or in .env), then run again."
            ) from None
        if isinstance(error, ConnectionError):
            raise UserError(
                f"{where}: it is not in the cache, and the Hub cannot be reached (offline, or HF_HUB_OFFLINE is "
                "set). Run once with a connection, or give Parquet files instead."
            ) from None
        raise UserError(f"{where}: {text}") from None
