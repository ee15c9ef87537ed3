"""`sutura data` from the command line."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from data.test_caption_source import jsonl
from sutura.cli import app, main

COMMANDS = ("cc3m", "cc12m", "manifest", "check", "overlap")


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(command):
    result = CliRunner().invoke(app, ["data", command, "--help"])
    assert result.exit_code == 0, result.output
    assert "Usage" in result.output


def test_a_set_is_checked(tmp_path):
    result = CliRunner().invoke(
        app, ["data", "check", jsonl(tmp_path / "x").path, "captions_each=1", "--show", "0"]
    )
    assert result.exit_code == 0, result.output
    assert "| train | 0 |" not in result.stdout
    assert result.stdout.startswith("# ")


def test_a_list_is_prepared_and_its_command_shown(tmp_path):
    (tmp_path / "given.tsv").write_text("a cat\thttp://x.org/1.jpg\n")
    result = CliRunner().invoke(
        app, ["data", "cc3m", str(tmp_path / "out"), "--list", str(tmp_path / "given.tsv"), "--size", "64"]
    )
    assert result.exit_code == 0, result.output
    assert "\nimg2dataset --url_list " in result.stdout
    assert "--image_size 64 " in result.stdout


def test_mistakes_are_answered_with_a_sentence(tmp_path, monkeypatch, capsys):
    (tmp_path / "set.tsv").write_text("a\tb\tc\n")
    (tmp_path / "one.jsonl").write_text(json.dumps({"image": "a.jpg", "caption": "text"}))
    for words, message in (
        (["check", "nowhere.tsv"], "There are no pictures at 'nowhere.tsv'"),
        (["check", "set.tsv"], "has 3 columns in line 1"),
        (["check", "one.jsonl"], "1 missing"),
        (["check", "one.jsonl", "captoins_each=1"], "captions_each"),
        (["manifest", "none"], "There is no folder"),
        (["cc12m", "x", "--list", "none.tsv"], "There is no list"),
    ):
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "argv", ["sutura", "data", *words])
        with pytest.raises(SystemExit) as left:
            main()
        assert left.value.code == 2
        assert message in capsys.readouterr().err
    assert sorted(Path.cwd().iterdir()) == [tmp_path / "one.jsonl", tmp_path / "set.tsv"]
