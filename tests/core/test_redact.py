"""Secrets are masked, and words that only look like them are not."""

from __future__ import annotations

import pytest

from sutura.core.redact import MASK, looks_secret, masked


@pytest.mark.parametrize(
    "name",
    [
        "token",
        "hf_token",
        "HF_TOKEN",
        "api_key",
        "WANDB_API_KEY",
        "apikey",
        "secret",
        "aws-secret-key",
        "password",
    ],
)
def test_names_of_secrets(name: str) -> None:
    assert looks_secret(name)


@pytest.mark.parametrize(
    "name", ["tokens", "max_tokens", "max_new_tokens", "num_tokens", "key", "keyboard", "seed"]
)
def test_names_of_other_things(name: str) -> None:
    assert not looks_secret(name)


def test_masked_at_any_depth_and_wherever_it_stands(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_API_KEY", "planted-0123456789")
    values = {
        "hub": {"token": "abc", "repo": "me/mine"},
        "urls": ["https://planted-0123456789@host/x", 3],
        "encoder": {"tokens": 16},
        "login": {"password": None},
    }
    assert masked(values) == {
        "hub": {"token": MASK, "repo": "me/mine"},
        "urls": [f"https://{MASK}@host/x", 3],
        "encoder": {"tokens": 16},
        "login": {"password": None},
    }
