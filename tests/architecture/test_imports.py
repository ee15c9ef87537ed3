"""Who imports whom, and how little `import sutura` costs."""

from __future__ import annotations

import ast
import resource
import shutil
import subprocess
import sys
from collections.abc import Container
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

from architecture.repository import ROOT, SOURCE, python_files, tree

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


def _modules() -> dict[str, Path]:
    """Every module of the package but its `__init__` files, by name."""
    found = (path for path in python_files("src") if path.name != "__init__.py")
    return {".".join(path.relative_to(ROOT / "src").with_suffix("").parts): path for path in found}


def _imported(module: ast.AST, known: Container[str]) -> set[str]:
    """Modules that a syntax tree imports, inside functions too; what is there for types alone is left out."""
    found: set[str] = set()
    for node in ast.iter_child_nodes(module):
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            continue
        if isinstance(node, ast.ImportFrom):
            found |= {str(node.module), *(f"{node.module}.{name.name}" for name in node.names)}
        elif isinstance(node, ast.Import):
            found |= {name.name for name in node.names}
        else:
            found |= _imported(node, known)
    return {name for name in found if name in known}


def test_modules_import_each_other_in_no_circle() -> None:
    """Within a room too, where the layers' rules do not look, and whether at the top of a file or in a function."""
    known = _modules()
    TopologicalSorter({name: _imported(tree(path), known) for name, path in known.items()}).prepare()


def test_a_circle_would_be_noticed() -> None:
    known = {"a", "b"}
    lazy = "def f():\n    if True:\n        import b"
    typed = "if TYPE_CHECKING:\n    from a import x"
    assert _imported(ast.parse(lazy), known) == {"b"}
    assert _imported(ast.parse(typed), known) == set()
    with pytest.raises(CycleError):
        TopologicalSorter({"a": {"b"}, "b": _imported(ast.parse("from a import x"), known)}).prepare()


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
