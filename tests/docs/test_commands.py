"""Every command in the documents is one the program has; those that can be run here are run."""

from __future__ import annotations

import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer

from docs.conftest import FEW
from docs.documents import DOCUMENTS, ROOT, commands, name_of
from sutura.cli import app, main

#: Their whole work is a table or a picture's answer, or they go through the `small` comparison.
RUNNABLE = (
    "compare",
    "plan",
    "report",
    "power",
    "ask",
    "describe",
    "eval",
    "encoders",
    "benchmarks",
    "doctor",
    "zoo list",
    "probe",
    "jepa train",
)
SHOWN = [(block, words) for path in DOCUMENTS for block, words in commands(path)]
SUTURA = [(block, words[1:]) for block, words in SHOWN if words[0] == "sutura"]
MAKE = [(block, words[1:]) for block, words in SHOWN if words[0] == "make"]


def _ids(shown: list[tuple[Any, list[str]]]) -> list[str]:
    return [f"{block} {' '.join(words)[:50]}" for block, words in shown]


@pytest.mark.parametrize(("block", "words"), SUTURA, ids=_ids(SUTURA))
def test_a_command_parses(block: Any, words: list[str]) -> None:
    """Options and their values as the program knows them; for a comparison the whole config too."""
    command: Any = typer.main.get_command(app)
    context = command.make_context("sutura", list(words))
    while hasattr(command, "resolve_command") and (rest := [*context._protected_args, *context.args]):
        name, command, rest = command.resolve_command(context, rest)
        context = command.make_context(name, list(rest), parent=context)
    if words[0] in ("compare", "stitch"):
        from sutura.compare.settings import settings

        given = context.params
        settings(given["preset"], given["overrides"] or (), limit=given["limit"])
    if context.info_name == "plan":
        from sutura.compare.plan_config import split_overrides
        from sutura.compare.settings import settings

        given = context.params
        rest = split_overrides(given["overrides"] or ())[1]
        if given["preset"].startswith("jepa/"):
            _parse_jepa(given["preset"], rest)
        else:
            settings(given["preset"], rest)
    if context.info_name == "pretrain":
        from sutura.train.pretrain_config import pretrain_settings

        given = context.params
        pretrain_settings(given["objective"], given["data"], given["preset"], given["overrides"] or ())
    if words[0] == "jepa" and context.info_name in ("train", "ablate"):
        _parse_jepa(context.params["preset"], context.params["overrides"] or ())
    if context.info_name == "probe":
        from sutura.evals.probe_config import probe_config

        given = context.params
        probe_config(given["encoder"], "world", given["kind"], given["overrides"] or ())


def _parse_jepa(preset: str, overrides: list[str]) -> None:
    from sutura.core.config import apply_overrides, parse, read_preset
    from sutura.evals.jepa_ablate import AblateConfig
    from sutura.train.align_config import AlignConfig
    from sutura.train.answer_config import AnswerConfig
    from sutura.train.conditioned_config import ConditionedConfig

    values = apply_overrides(read_preset(preset), overrides)
    form = values.pop("form")
    known = {
        "align": AlignConfig,
        "conditioned": ConditionedConfig,
        "answer": AnswerConfig,
        "ablation": AblateConfig,
    }
    parse(known[form], values, where=preset)


@pytest.mark.parametrize(("block", "words"), MAKE, ids=_ids(MAKE))
def test_a_make_target_exists(block: Any, words: list[str]) -> None:
    result = subprocess.run(
        ["make", "--dry-run", *words], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr


@pytest.mark.timeout(900)  # a few seconds of work, but a busy machine stretches five small cells
@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("path", DOCUMENTS, ids=name_of)
def test_the_commands_of_a_document_run(
    path: Path,
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """In order, in one folder; what needs data or checkpoints that the reader has to bring is parsed only."""
    shown = [_as_program(words) for _, words in commands(path)]
    shown = [w for w in shown if " ".join(w[1:3]).startswith(RUNNABLE) and "DIR" not in " ".join(w)]
    shown = [w for w in shown if not any(one.startswith("jepa/") and one not in FEW for one in w)]
    if not shown:
        return
    monkeypatch.chdir(request.getfixturevalue("place"))
    for words in shown:
        monkeypatch.setattr(sys, "argv", words)
        with pytest.raises(SystemExit) as left:
            main()
        assert not left.value.code, f"{' '.join(words)}: {capsys.readouterr().err}"


def _as_program(words: list[str]) -> list[str]:
    """`make compare` as the command it starts; a target that starts none is nothing to run."""
    if words[0] == "sutura":
        return words
    given = " ".join(word.removeprefix("ARGS=") for word in words if word.startswith("ARGS="))
    return ["sutura", "compare", *shlex.split(given)] if words[1:2] == ["compare"] else []


def test_ci_runs_the_test_command_of_the_readme() -> None:
    script = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    assert "\nmake test" in script
    assert ["make", "test"] in [words for _, words in commands(ROOT / "README.md")]


def test_the_readme_begins_with_the_two_commands() -> None:
    shown = [" ".join(words) for _, words in commands(ROOT / "README.md")]
    assert set(shown[:2]) == {"make compare", "make test"}
