"""`.env`, and keys that nobody gets to see."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from sutura.core.errors import UserError
from sutura.core.secrets import NAMES, SECRET, hide, read_env, refuse_secrets

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
