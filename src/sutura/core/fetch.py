"""Access to the Hugging Face Hub: downloads, commits behind names, and the Hub's errors in sentences."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, NamedTuple

from sutura.core.errors import UserError
from sutura.core.log import say
from sutura.core.secrets import hide

Kind = Literal["model", "dataset"]


class Fetched(NamedTuple):
    """A repository's files on this machine.

    Args:
        folder: where they lie.
        revision: the commit they belong to.
    """

    folder: Path
    revision: str


def endpoint() -> str | None:
    """Another address than the Hub's own, from HF_ENDPOINT; None where there is none."""
    return os.environ.get("HF_ENDPOINT", "").rstrip("/") or None


def offline() -> bool:
    """Whether HF_HUB_OFFLINE was set when the program began."""
    from huggingface_hub import constants

    return bool(constants.HF_HUB_OFFLINE)


def hub_api() -> Any:
    """The Hub's API at our endpoint; it takes its token from the environment or from `hf auth login`."""
    from huggingface_hub import HfApi

    return HfApi(endpoint=endpoint())


def fetch(
    repo: str,
    *,
    revision: str | None = None,
    patterns: Sequence[str],
    ignore: Sequence[str] = (),
    kind: Kind = "model",
) -> Fetched:
    """Files of a Hub repository; only what is missing from the local cache is downloaded, with progress bars.

    A connection that breaks off is taken up again where it broke; after a kill, files that are whole are kept.

    Args:
        repo: "org/name".
        revision: branch, tag or commit; the main branch by default.
        patterns: which files, as shell patterns.
        ignore: which of those not.
        kind: what the repository holds.

    Raises:
        UserError: offline and not in the cache or not whole there, no such repository or revision, gated, a token
            that is refused, too many requests, a fault of the Hub, no space left.
    """
    from huggingface_hub import snapshot_download

    with told(repo, revision, kind):
        folder = Path(
            snapshot_download(
                repo,
                repo_type=kind,
                revision=revision,
                allow_patterns=list(patterns),
                ignore_patterns=list(ignore) or None,
                endpoint=endpoint(),
            )
        )
    if revision != folder.name:
        _tell_new_name(repo, kind)
    return Fetched(folder, folder.name)


def commit_of(repo: str, revision: str | None, kind: Kind = "model") -> str | None:
    """The commit that a branch, a tag or the main branch stands for at this moment; None when the Hub is out of reach.

    Raises:
        UserError: the Hub is there and says no.
    """
    from huggingface_hub.errors import HfHubHTTPError, HTTPError, OfflineModeIsEnabled  # pyright: ignore[reportPrivateImportUsage]

    with told(repo, revision, kind):
        try:
            info = hub_api().repo_info(repo, revision=revision, repo_type=kind)
        except HfHubHTTPError:
            raise
        except (OfflineModeIsEnabled, HTTPError, ConnectionError):
            return None
    _new_name(repo, str(info.id))
    return str(info.sha)


def _tell_new_name(repo: str, kind: Kind) -> None:
    """A word about a repository that was renamed: the Hub still answers to the old name, until it is taken again."""
    from huggingface_hub.errors import HTTPError, OfflineModeIsEnabled  # pyright: ignore[reportPrivateImportUsage]

    try:
        _new_name(repo, str(hub_api().repo_info(repo, repo_type=kind).id))
    except (HTTPError, OfflineModeIsEnabled, OSError):
        return  # the files are here; whether the name is still the newest is not worth an error


def _new_name(repo: str, now: str) -> None:
    if now.lower() != repo.lower():
        say(f"{repo} has moved: on the Hub it is called {now} now. Write the new name in your config.")


@contextmanager
def told(repo: str, revision: str | None, kind: Kind = "model", *, write: bool = False) -> Iterator[None]:
    """Within it, what goes wrong with the Hub becomes a UserError, without the secrets that a message may hold."""
    from huggingface_hub.errors import HFValidationError, HTTPError  # pyright: ignore[reportPrivateImportUsage]

    try:
        yield
    except UserError:
        raise
    except (HTTPError, HFValidationError, OSError, ValueError, RuntimeError) as error:
        raise UserError(hide(explain(repo, revision, error, kind, write=write))) from None


def explain(
    repo: str, revision: str | None, error: BaseException, kind: Kind = "model", *, write: bool = False
) -> str:
    """A sentence that says what went wrong with a download, or with an upload, and what to do."""
    from huggingface_hub import errors

    error = _root(error)
    at = f" at revision {revision!r}" if revision else ""
    page = f"{endpoint() or 'https://huggingface.co'}/{'datasets/' if kind == 'dataset' else ''}{repo}"
    if isinstance(error, errors.GatedRepoError):
        return (
            f"{repo!r} is gated: accept its terms on {page} and log in (`hf auth login`, or HF_TOKEN in the "
            "environment or in .env), then run again."
        )
    if isinstance(error, errors.RevisionNotFoundError):
        return f"{repo!r} has no revision {revision!r}; look at {page}/commits/main."
    if isinstance(error, errors.RepositoryNotFoundError):
        return (
            f"The Hub has no {kind} repository {repo!r}, or it is private and you are not logged in. Look for it on "
            f"{page}, or log in (`hf auth login`, or HF_TOKEN in the environment or in .env)."
        )
    if isinstance(error, errors.HFValidationError):
        return f"{repo!r} is not a repository's name; it has the form org/name."
    if isinstance(error, errors.HfHubHTTPError):
        return _status(repo, at, error, write)
    half = getattr(errors, "IncompleteSnapshotError", None)
    if half is not None and isinstance(error, half):
        return (
            f"{repo!r}{at} is only half in the local cache: its download was broken off, and the Hub cannot be "
            "reached now (offline, or HF_HUB_OFFLINE is set). Run once with a connection; what is there is kept."
        )
    if isinstance(error, (errors.LocalEntryNotFoundError, errors.OfflineModeIsEnabled)):
        return (
            f"{repo!r}{at} is not in the local cache, and the Hub cannot be reached (offline, or HF_HUB_OFFLINE is "
            "set). Run once with a connection, or give a local folder instead."
        )
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        return (
            f"No space left on the disk while downloading {repo!r}; free some or move the cache with HF_HOME."
        )
    reason = (str(error).strip() or repr(error)).splitlines()[0]
    broken = isinstance(error, (errors.HTTPError, TimeoutError)) or reason.startswith("Consistency check")  # pyright: ignore[reportPrivateImportUsage]
    if broken:
        return (
            f"The connection broke off while {'sending to' if write else 'downloading'} {repo!r}{at} "
            f"({type(error).__name__}). Run the same command again: what is complete is kept."
        )
    return f"{repo!r}{at} could not be {'written' if write else 'downloaded'}: {reason}"


def _root(error: BaseException) -> BaseException:
    """The Hub's own answer, where the library wrapped it in a guess about the connection."""
    from huggingface_hub.errors import HfHubHTTPError

    seen: BaseException | None = error
    while seen is not None and not isinstance(seen, HfHubHTTPError):
        seen = seen.__cause__
    return error if seen is None else seen


def _status(repo: str, at: str, error: Any, write: bool) -> str:
    status = getattr(error.response, "status_code", None)
    if status == 401:
        return (
            f"The Hub refuses the token for {repo!r}: it is missing, wrong or has expired. Renew HF_TOKEN (or `hf auth "
            "login`), or take it away where the repository is public."
        )
    if status == 403:
        return (
            f"The Hub lets you not {'write to' if write else 'read'} {repo!r}{at}: the token lacks the right to. "
            "Make one with that right on https://huggingface.co/settings/tokens."
        )
    if status == 429:
        return f"The Hub had too many requests from here ({repo!r}{at}); wait some minutes, or log in, then run again."
    if status is not None and status >= 500:
        return f"The Hub answered {status} for {repo!r}{at}, a fault on its side; try again later."
    return f"The Hub answered {status} for {repo!r}{at}; try again later."
