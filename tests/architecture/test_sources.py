"""Rules every source file keeps, read from its syntax tree."""

from __future__ import annotations

import ast
from collections.abc import Iterator

from architecture.repository import place, python_files, tree

HEAVY = {"transformers", "timm", "open_clip", "peft", "datasets", "matplotlib", "accelerate"}


def test_public_functions_and_classes_have_docstrings() -> None:
    """A method may rely on the docstring of the protocol or base class that it fills in."""
    public = [(path, owner, node) for path in python_files("src") for owner, node in _public(tree(path))]
    described = {node.name for _, owner, node in public if owner and ast.get_docstring(node)}
    missing = [
        f"{place(path, node.lineno)} {node.name}"
        for path, owner, node in public
        if not ast.get_docstring(node) and not (owner and node.name in described)
    ]
    assert missing == []


def test_heavy_libraries_are_imported_where_they_are_used() -> None:
    """Importing them takes 5 to 9 seconds together; the first line of progress is due after 3."""
    found = [
        f"{place(path, node.lineno)} {name}"
        for path in python_files("src")
        for node in _top_level(tree(path).body)
        for name in _imported(node)
        if name in HEAVY
    ]
    assert found == []


def test_nothing_is_unpickled() -> None:
    """Weights are safetensors; what must read a foreign pickle reads tensors only."""
    found = []
    for path in python_files("src", "benchmarks", "examples"):
        for node in ast.walk(tree(path)):
            if isinstance(node, (ast.Import, ast.ImportFrom)) and {"pickle", "joblib", "dill"} & set(
                _imported(node)
            ):
                found.append(place(path, node.lineno))
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "torch.save":
                found.append(place(path, node.lineno))
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "torch.load":
                only = [k.value for k in node.keywords if k.arg == "weights_only"]
                if not (only and isinstance(only[0], ast.Constant) and only[0].value is True):
                    found.append(place(path, node.lineno))
    assert found == []


def test_no_exception_is_swallowed() -> None:
    """A handler for everything may clean up, and then raises on."""
    broad = {"", "Exception", "BaseException"}
    found = [
        place(path, node.lineno)
        for path in python_files("src")
        for node in ast.walk(tree(path))
        if isinstance(node, ast.ExceptHandler)
        and (ast.unparse(node.type) if node.type else "") in broad
        and not isinstance(node.body[-1], ast.Raise)
    ]
    assert found == []


def test_global_seeds_are_set_in_one_place() -> None:
    seeders = {
        "torch.manual_seed",
        "np.random.seed",
        "numpy.random.seed",
        "random.seed",
        "torch.cuda.manual_seed_all",
    }
    found = {
        place(path)
        for path in python_files("src")
        for node in ast.walk(tree(path))
        if isinstance(node, ast.Call) and ast.unparse(node.func) in seeders
    }
    assert found == {"src/sutura/core/runtime.py"}


Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef


def _public(module: ast.Module) -> Iterator[tuple[str, Definition]]:
    """Public functions and classes with an empty owner, and public methods with their class's name."""
    for node in module.body:
        if isinstance(node, Definition) and not node.name.startswith("_"):
            yield "", node
            if isinstance(node, ast.ClassDef):
                for inner in node.body:
                    if (
                        isinstance(inner, ast.FunctionDef)
                        and not inner.name.startswith("_")
                        and not _inherited(inner)
                    ):
                        yield node.name, inner


def _inherited(method: ast.FunctionDef) -> bool:
    decorators = {ast.unparse(d) for d in method.decorator_list}
    return method.name in {"forward", "train"} or any(
        d.endswith((".setter", "overload", "override")) for d in decorators
    )


def _top_level(body: list[ast.stmt]) -> Iterator[ast.Import | ast.ImportFrom]:
    """Imports that run when the module is imported; `if TYPE_CHECKING:` does not run."""
    for node in body:
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            yield node
        elif isinstance(node, ast.If) and ast.unparse(node.test) != "TYPE_CHECKING":
            yield from _top_level([*node.body, *node.orelse])
        elif isinstance(node, (ast.Try, ast.With)):
            yield from _top_level(node.body)


def _imported(node: ast.Import | ast.ImportFrom) -> list[str]:
    """Top-level packages of an import."""
    if isinstance(node, ast.ImportFrom):
        return [] if node.level else [(node.module or "").partition(".")[0]]
    return [alias.name.partition(".")[0] for alias in node.names]
