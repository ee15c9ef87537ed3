"""`.env`, and keys that nobody gets to see."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from sutura.core.errors import UserError
from sutura.core.secrets import (
    HIDDEN,
    LARGEST,
    NAMES,
    SECRET,
    hide,
    looks_secret,
    masked,
    read_env,
    refuse_secrets,
)

KEY = "hf_planted00000000000000"


@pytest.fixture(autouse=True)
def _bare(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
    for name in {*NAMES, *SECRET}:
        monkeypatch.setenv(name, "")  # so that what read_env sets is taken away again


def test_lines_are_read_and_the_environment_wins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_API_KEY", "from-the-environment")
    (tmp_path / ".env").write_text(
        f"# comment\n\nexport HF_TOKEN='{KEY}'\nWANDB_API_KEY=from-the-file\n"
        "HF_REPO_ID = org/name # where to\nPATH=/evil\n"
    )
    path = os.environ["PATH"]
    assert read_env(tmp_path / ".env") == ["HF_TOKEN", "HF_REPO_ID"]
    assert os.environ["HF_TOKEN"] == KEY
    assert os.environ["HF_REPO_ID"] == "org/name"
    assert os.environ["WANDB_API_KEY"] == "from-the-environment"
    assert os.environ["PATH"] == path, "a file in a folder may not change where programs are found"


def test_no_file_is_no_fault(tmp_path: Path) -> None:
    assert read_env(tmp_path / ".env") == []


@pytest.mark.parametrize("line", [KEY, f"HF_TOKEN={KEY} {KEY}", f'HF_TOKEN="{KEY}\x07"'])
def test_a_bad_line_is_told_without_what_it_holds(tmp_path: Path, line: str) -> None:
    (tmp_path / ".env").write_text(f"{line}\n")
    with pytest.raises(UserError, match="not shown here") as told:
        read_env(tmp_path / ".env")
    assert KEY not in str(told.value)


def test_secrets_are_hidden_and_short_values_are_no_secrets(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HF_TOKEN", KEY)
    monkeypatch.setenv("WANDB_API_KEY", "a")
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "token").write_text("hf_savedsavedsaved\n")
    assert hide(f"a token {KEY}, hf_savedsavedsaved") == "a token (hidden), (hidden)"


def test_a_folder_with_a_secret_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "weights.bin").write_bytes(b"\0\1" + KEY.encode() + b"\2")
    refuse_secrets(tmp_path)
    monkeypatch.setenv("HF_TOKEN", KEY)
    with pytest.raises(
        UserError, match=r"deep/weights.bin holds the value of HF_TOKEN; nothing was sent"
    ) as told:
        refuse_secrets(tmp_path)
    assert KEY not in str(told.value)


def test_the_example_names_what_is_read(root: Path) -> None:
    keys = [
        line.partition("=")[0] for line in (root / ".env.example").read_text().splitlines() if "=" in line
    ]
    assert sorted(keys) == sorted(NAMES)


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
        "hub": {"token": HIDDEN, "repo": "me/mine"},
        "urls": [f"https://{HIDDEN}@host/x", 3],
        "encoder": {"tokens": 16},
        "login": {"password": None},
    }


def test_a_secret_of_any_name_and_one_that_begins_with_another_are_hidden(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Faults: only the Hub's keys are known, so another tracker's goes into a card; half a key is left over."""
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "planted-0123456789")
    monkeypatch.setenv("HF_TOKEN", KEY)
    monkeypatch.setenv("WANDB_API_KEY", f"{KEY}-and-more")
    assert hide(f"planted-0123456789 {KEY}-and-more {KEY}") == "(hidden) (hidden) (hidden)"
    (tmp_path / "card.md").write_text("planted-0123456789")
    with pytest.raises(UserError, match="holds the value of MLFLOW_TRACKING_PASSWORD"):
        refuse_secrets(tmp_path)


@pytest.mark.parametrize("home", ["HF_HOME", "XDG_CACHE_HOME"])
def test_the_saved_token_is_looked_for_where_the_hubs_library_keeps_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, home: str
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("HF_HOME", "")
    monkeypatch.setenv(home, "~/place")
    folder = tmp_path / "place" if home == "HF_HOME" else tmp_path / "place" / "huggingface"
    folder.mkdir(parents=True)
    (folder / "token").write_text("hf_savedsavedsaved")
    assert hide("hf_savedsavedsaved") == HIDDEN


def test_files_that_are_no_list_of_keys(tmp_path: Path) -> None:
    """Faults: a virtual environment called .env; a file that fills the memory; a value that os.environ refuses."""
    place = tmp_path / ".env"
    place.mkdir()
    assert read_env(place) == []
    place.rmdir()
    with place.open("wb") as file:
        file.truncate(LARGEST + 1)
    with pytest.raises(UserError, match="it was not read"):
        read_env(place)
    for value in (f"{KEY}\0", f"{KEY}\u00e9"):
        place.write_text(f"HF_TOKEN={value}\n", encoding="utf-8")
        with pytest.raises(UserError, match="no key has") as told:
            read_env(place)
        assert KEY not in str(told.value)
    place.write_text(f"HF_TOKEN={KEY}\n", encoding="utf-8-sig")  # as some editors begin a file
    assert read_env(place) == ["HF_TOKEN"]
