"""The command line: commands explain themselves, and a mistake is answered with a sentence and code 2."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from sutura.cli import app, main

COMMANDS = (
    "compare",
    "plan",
    "stitch",
    "eval",
    "ask",
    "describe",
    "pretrain",
    "probe",
    "report",
    "power",
    "resample",
    "push",
    "pull",
    "export",
    "encoders",
    "encoders compare",
    "benchmarks",
    "extra",
    "export-samples",
    "rate sheet",
    "rate read",
    "doctor",
    "zoo list",
    "zoo build",
    "jepa train",
    "jepa eval",
    "jepa ablate",
    "data cc3m",
    "data cc12m",
    "data manifest",
    "data check",
)
HEAVY = {"torch", "transformers", "timm", "open_clip", "peft", "datasets", "matplotlib", "numba"}
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Run:
    """Start the program in an empty folder: arguments → exit code, stdout, stderr."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "2000")

    def start(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["sutura", *arguments])
        with pytest.raises(SystemExit) as left:
            main()
        out, err = capsys.readouterr()
        return int(left.value.code or 0), out, err

    return start


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(command: str) -> None:
    result = CliRunner().invoke(app, [*command.split(), "--help"])
    assert result.exit_code == 0, result.output
    assert "Usage" in result.output


def test_no_command_is_missing_here() -> None:
    listed = CliRunner().invoke(app, ["--help"]).output
    groups = {command.split()[0] for command in COMMANDS}
    assert all(group in listed for group in groups)
    assert len(app.registered_commands) + len(app.registered_groups) == len(groups)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["compare", "--preset", "wrld"], "Did you mean 'world'"),
        (["compare", "--preset", "nowhere.yaml"], "No preset file at 'nowhere.yaml'"),
        (["compare", "seed=[0]"], "Did you mean 'seeds'"),
        (["compare", "optim.learning_rate=1"], "optim.learning_rate: unknown key"),
        (["compare", "optim.lr=fast"], "found 'fast'"),
        (["compare", "optim"], "not of the form section.key=value"),
        (["compare", "seeds=[1, 1]"], "a repeated seed is the same run twice"),
        (["compare", "--limit", "1"], "at least 2 pictures"),
        (["ask", "--stitch", "nowhere"], "Nothing was asked"),
        (["ask", "--stitch", "nowhere", "--image", "x.png", "What is it?"], "is no stitch"),
        (["eval", "--stitch", "nowhere", "--benchmark", "wrld/test"], "Did you mean 'world/test'"),
        (
            ["eval", "--stitch", "nowhere", "--benchmark", "world/test", "split=train", "limit=2"],
            "training data",
        ),
        (["probe", "--encoder", "zoo:clip", "--data", "nowhere"], "no labelled data at 'nowhere'"),
        (["probe", "--encoder", "zoo:clip", "--kind", "liner"], "Did you mean 'linear'"),
        (["pretrain", "--objective", "clpi"], "Did you mean 'clip'"),
        (["pretrain", "--objective", "mae", "--data", "no where"], "no pictures at 'no where'"),
        (["pretrain", "--objective", "mae", "pictures.shfit=2"], "Did you mean 'shift'"),
        (["plan", "plan.utilization=1"], "Did you mean 'utilisation'"),
        (["plan", "--gpu", "h20"], "Did you mean 'h200'"),
        (["ask", "What is it?"], "name a directory with --stitch, or a repository with --from-hub"),
        (["push", "nowhere", "--repo", "org/name"], "is nothing to send"),
        (["pull", "org/name"], "the Hub cannot be reached"),
        (["export", "nowhere", "--out", "here"], "is no stitch"),
        (["report", "nowhere"], "nowhere"),
        (["encoders", "compare", "nowhere.png", "--encoders", "zoo:clip", "zoo:mae"], "no picture or folder"),
        (["encoders", "compare", "nowhere.png", "--encoders", "zoo:clip"], "nothing to compare"),
        (["report", "a", "b"], "say where it goes: --into"),
        (["zoo", "build", "clpi"], "Did you mean 'clip'"),
    ],
)
def test_a_mistake_is_answered_with_a_sentence(run: Run, arguments: list[str], sentence: str) -> None:
    code, out, err = run(*arguments)
    assert (code, out) == (2, "")
    assert sentence in err
    assert "Traceback" not in err


def test_an_unknown_option_is_refused(run: Run) -> None:
    code, _, err = run("compare", "--encoder", "x")
    assert code == 2
    assert "No such option" in err


@pytest.mark.parametrize("command", ["encoders", "benchmarks"])
def test_the_tables_are_printed(run: Run, command: str) -> None:
    code, out, _ = run(command)
    assert code == 0
    row = {"encoders": "openai/clip-vit-large-patch14", "benchmarks": "world/compositional"}[command]
    assert row in out


def test_doctor_tells_that_there_is_a_token_and_not_which(
    run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    secret = "hf_" + "planted" * 5
    (tmp_path / "token").write_text(secret)
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    monkeypatch.setenv("HF_TOKEN", secret)
    code, out, err = run("doctor")
    assert code == 0
    assert "planted" not in out + err
    words = " ".join(out.split())
    assert all(
        name in words for name in ("python", "torch", "transformers", "torch threads", "cuda", "Hub cache")
    )
    assert "Hub token │ set" in words.replace("┃", "│")


def test_a_dry_run_prints_the_config_and_starts_nothing(tmp_path: Path) -> None:
    """Importing torch, transformers, timm, open_clip and PEFT takes seconds; a dry run needs none of them."""
    code = (
        "import sys; from sutura.cli import main\n"
        "sys.argv = ['sutura', 'compare', '--dry-run', '--limit', '3']\n"
        "try: main()\n"
        "except SystemExit as left: assert not left.code, left.code\n"
        f"heavy = {HEAVY} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    result = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        env=os.environ,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    config = yaml.safe_load(result.stdout)
    assert config["name"] == "world-limit-3"
    assert config["data"]["train"]["limit"] == 3
    assert "cells: 3 seeds" in result.stdout
    assert list(tmp_path.iterdir()) == []


def test_the_first_line_comes_before_the_heavy_imports(monkeypatch: pytest.MonkeyPatch) -> None:
    """The person at the keyboard sees within a moment that something has begun."""
    seen: list[bool] = []
    monkeypatch.setitem(sys.modules, "sutura.hub.run", None)  # any import of it fails from here on
    monkeypatch.setattr(sys, "argv", ["sutura", "compare"])
    monkeypatch.setattr("builtins.print", lambda *words, **options: seen.append("preset world" in words[0]))
    with pytest.raises(ImportError):
        main()
    assert seen == [True]
