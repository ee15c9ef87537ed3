"""Downloads from the Hugging Face Hub, and their errors in sentences."""

from __future__ import annotations

import errno
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from sutura.core.errors import UserError


class Fetched(NamedTuple):
    """A repository's files on this machine.

    Args:
        folder: where they lie.
        revision: the commit they belong to.
    """

    folder: Path
    revision: str


def fetch(repo: str, *, revision: str | None = None, patterns: Sequence[str]) -> Fetched:
    """Files of a Hub repository; only what is missing from the local cache is downloaded.

    Args:
        repo: "org/name".
        revision: branch, tag or commit; the main branch by default.
        patterns: which files, as shell patterns.

    Raises:
        UserError: offline and not in the cache, no such repository or revision, gated, no space left.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, HTTPError  # pyright: ignore[reportPrivateImportUsage]

    try:
        folder = Path(snapshot_download(repo, revision=revision, allow_patterns=list(patterns)))
    except (HTTPError, HFValidationError, OSError, ValueError) as error:
        raise UserError(explain(repo, revision, error)) from None
    return Fetched(folder, folder.name)


def explain(repo: str, revision: str | None, error: Exception) -> str:
    """A sentence that says what went wrong with a download and what to do."""
    from huggingface_hub import errors

    at = f" at revision {revision!r}" if revision else ""
    if isinstance(error, errors.GatedRepoError):
        return (
            f"{repo!r} is gated: accept its terms on https://huggingface.co/{repo} and log in with `hf auth "
            "login`, "
            "then run again."
        )
    if isinstance(error, errors.RevisionNotFoundError):
        return f"{repo!r} has no revision {revision!r}; look at https://huggingface.co/{repo}/commits/main."
    if isinstance(error, errors.RepositoryNotFoundError):
        return (
            f"The Hub has no repository {repo!r}, or it is private and you are not logged in (hf auth login)."
        )
    if isinstance(error, errors.HFValidationError):
        return f"{repo!r} is not a repository's name; it has the form org/name."
    if isinstance(error, (errors.LocalEntryNotFoundError, errors.OfflineModeIsEnabled)):
        return (
            f"{repo!r}{at} is not in the local cache, and the Hub cannot be reached (offline, or "
            "HF_HUB_OFFLINE is "
            "set). Run once with a connection, or give a local folder instead."
        )
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        return (
            f"No space left on the disk while downloading {repo!r}; free some or move the cache with HF_HOME."
        )
    if isinstance(error, errors.HfHubHTTPError):
        status = getattr(error.response, "status_code", None)
        return f"The Hub answered {status} for {repo!r}{at}; try again later."
    reason = (str(error).strip() or repr(error)).splitlines()[0]
    return f"{repo!r}{at} could not be downloaded: {reason}"
