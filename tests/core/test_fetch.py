"""Download errors as sentences."""

from __future__ import annotations

import errno
from types import SimpleNamespace
from typing import Any

import pytest
from huggingface_hub import errors

from sutura.core import fetch
from sutura.core.errors import UserError


def hub_error(kind: Any, status: int = 404) -> Any:
    """A Hub error without a request behind it."""
    error = kind.__new__(kind)
    error.args = ("raw text of the library",)
    error.response = SimpleNamespace(status_code=status)
    return error


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (hub_error(errors.GatedRepoError, 403), "gated: accept its terms"),
        (hub_error(errors.RepositoryNotFoundError), "no model repository 'org/name'"),
        (hub_error(errors.RevisionNotFoundError), "no revision 'v9'"),
        (errors.HFValidationError("bad"), "form org/name"),
        (errors.LocalEntryNotFoundError("gone"), r"not in the local cache.*local folder"),
        (hub_error(errors.HfHubHTTPError, 503), "answered 503"),
        (OSError(errno.ENOSPC, "full"), "No space left.*HF_HOME"),
        (ValueError("what else"), "could not be downloaded: what else"),
    ],
)
def test_every_failure_is_a_sentence(error: Exception, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any, **__: Any) -> str:
        raise error

    monkeypatch.setattr("huggingface_hub.snapshot_download", fail)
    with pytest.raises(UserError, match=said):
        fetch.fetch("org/name", revision="v9", patterns=["*.json"])


def test_the_revision_is_the_commit_the_files_belong_to(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("HF_ENDPOINT", raising=False)
    asked: dict[str, Any] = {}

    def download(repo: str, **options: Any) -> str:
        asked.update(options, repo=repo)
        return str(tmp_path / "snapshots" / "c0ffee")

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    fetched = fetch.fetch("org/name", patterns=("*.json",))
    assert fetched.revision == "c0ffee"
    expected = {"repo": "org/name", "repo_type": "model", "revision": None, "allow_patterns": ["*.json"]}
    assert asked == {**expected, "ignore_patterns": None, "endpoint": None}
