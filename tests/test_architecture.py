"""Imports point down only, extras are imported where used, files and functions stay short."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FILES = sorted([*(ROOT / "sparseprune").rglob("*.py"), *(ROOT / "kernels").rglob("*.py")])

# From the ground up: a part may import itself and what stands before it.
LAYERS = [
    {"ops", "kernels", "files", "measure", "results", "paired"},
    {"shards"},
    {"sampling", "nn", "prunable", "replica"},
    {"speeds"},
    {"calibrate"},
    {"masks", "paths", "densities", "inputs", "scores", "select", "prune", "methods", "nodes", "ntk", "theory"},
    {"models", "data", "training"},
    {"doctor"},
    {"harness"},
    {"summary", "live"},
    {"plots"},
    {"papers"},
    {"cli", "__main__"},
]
EXTRAS = {"triton", "matplotlib", "typer", "rich", "safetensors", "sklearn", "PIL", "scipy", "ray"}
MAY_IMPORT_EXTRAS = {"kernels", "cli"}


def part(path: Path) -> str:
    if path.is_relative_to(ROOT / "kernels"):
        return "kernels"
    return path.relative_to(ROOT / "sparseprune").parts[0].removesuffix(".py")


def imported_parts(path: Path) -> set[str]:
    """Parts of the package that a file imports, at any depth of its code."""
    package = ["sparseprune", *path.relative_to(path.parents[len(path.parts) - len(ROOT.parts) - 2]).parts[:-1]]
    if path.is_relative_to(ROOT / "kernels"):
        package = ["sparseprune", "kernels"]
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            module = [*base, *(node.module.split(".") if node.module else [])]
            names = [[*module, alias.name] for alias in node.names]
        elif isinstance(node, ast.Import):
            names = [alias.name.split(".") for alias in node.names]
        else:
            continue
        found |= {name[1] for name in names if name[0] == "sparseprune" and len(name) > 1}
    return found


LEVEL = {name: level for level, names in enumerate(LAYERS) for name in names}


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_point_down(path):
    name = part(path)
    if name == "__init__":
        return
    assert name in LEVEL, f"{name} has no place in tests/test_architecture.py's LAYERS"
    up = {other for other in imported_parts(path) & LEVEL.keys() if LEVEL[other] > LEVEL[name]}
    assert not up, f"{name} imports upward: {up}"


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_extras_are_imported_where_used(path):
    if part(path) in MAY_IMPORT_EXTRAS:
        return
    tree = ast.parse(path.read_text())
    top = [node for node in tree.body if isinstance(node, (ast.Import, ast.ImportFrom))]
    names = {alias.name.split(".")[0] for node in top if isinstance(node, ast.Import) for alias in node.names}
    names |= {(node.module or "").split(".")[0] for node in top if isinstance(node, ast.ImportFrom) and not node.level}
    assert not names & EXTRAS


def code_lines(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Lines of a function without its signature and docstring."""
    return (function.end_lineno or 0) - function.body[0].lineno + 1 - docstring_lines(function)


def docstring_lines(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    first = function.body[0]
    return (first.end_lineno or 0) - first.lineno + 1 if ast.get_docstring(function) else 0


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_files_and_functions_stay_short(path):
    text = path.read_text()
    assert text.count("\n") <= 400
    functions = [n for n in ast.walk(ast.parse(text)) if isinstance(n, (ast.FunctionDef, ast.AsyncFunctionDef))]
    assert not {function.name: code_lines(function) for function in functions if code_lines(function) > 60}
