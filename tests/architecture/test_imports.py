"""Who imports whom, and how little `import sutura` costs."""

from __future__ import annotations

import resource
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from architecture.repository import ROOT, SOURCE

HEAVY = ("torch", "transformers", "timm", "open_clip", "peft", "datasets", "polars", "matplotlib", "numba")


def _child_seconds() -> float:
    """Processor time of all children so far; unlike the clock's, a busy machine does not stretch it."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _lint(directory: Path) -> subprocess.CompletedProcess[str]:
    program = Path(sys.executable).with_name("lint-imports")
    return subprocess.run(
        [str(program), "--no-logo", "--no-cache"], cwd=directory, capture_output=True, text=True, check=False
    )


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """The package's sources and rules in a place where they may be broken."""
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    shutil.copytree(
        SOURCE, tmp_path / "sutura", ignore=lambda folder, names: {n for n in names if n == "zoo"}
    )
    return tmp_path


def test_the_import_rules_hold() -> None:
    result = _lint(ROOT)
    assert result.returncode == 0, result.stdout + result.stderr


def test_the_import_rules_have_teeth(copy: Path) -> None:
    planted = {
        "core/errors.py": "sutura.evals.answers",
        "data/images.py": "sutura.models.vit",
        "nn/pool.py": "transformers",
        "models/vit.py": "sutura.core.config",
    }
    for module, imported in planted.items():
        path = copy / "sutura" / module
        path.write_text(path.read_text().rstrip() + f"\n\nimport {imported}\n")
    result = _lint(copy)
    assert result.returncode == 1
    broken = [text for text in result.stdout.splitlines() if text.endswith("BROKEN")]
    assert len(broken) == 2, result.stdout
    for module, imported in planted.items():
        name = "sutura." + module.removesuffix(".py").replace("/", ".")
        assert f"{name} -> {imported} (" in result.stdout, result.stdout


@pytest.mark.parametrize("module", ["sutura", "sutura.cli"])
def test_importing_is_quick_and_loads_nothing_heavy(module: str) -> None:
    code = f"import sys, {module}; print(*[m for m in {HEAVY} if m in sys.modules])"
    seconds = []
    for _ in range(2):  # the first start may have to compile
        before = _child_seconds()
        result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        seconds.append(_child_seconds() - before)
        assert result.stdout.split() == []
    assert min(seconds) < 1.0


def test_every_public_name_is_there() -> None:
    import sutura

    for name in sutura.__all__:
        assert getattr(sutura, name) is not None
    assert set(sutura.__all__) <= set(dir(sutura))
    with pytest.raises(AttributeError, match="no attribute 'load_nothing'"):
        sutura.load_nothing  # noqa: B018


def test_compare_can_be_called_whatever_was_imported_before() -> None:
    """The package of that name takes the attribute's place as soon as a part of it is imported."""
    import sutura
    import sutura.compare.config
    from sutura.core.errors import UserError

    with pytest.raises(UserError, match="Did you mean 'world'"):
        sutura.compare("wrld")
