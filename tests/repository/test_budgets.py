"""Files and functions stay small enough to be read in one sitting."""

from __future__ import annotations

import ast
import functools
from collections.abc import Iterator
from pathlib import Path

FILE_LINES = 400
FILE_LINES_AT_MOST = 600
FUNCTION_LINES = 40
LONG_FILES: dict[str, str] = {
    "src/erp/main.py": "the composition root: a line for each part, and every part is there",
    "src/erp/runtime/calls.py": "the pipeline is read in one piece: each of its steps is a few lines that call what does the work",
}
"""Files over 400 lines, each with its reason. The list only gets shorter."""
DRAWERS = {"utils", "util", "helpers", "helper", "common", "misc", "base", "manager"}

Function = ast.FunctionDef | ast.AsyncFunctionDef
STATEMENTS = (ast.stmt, ast.excepthandler, ast.match_case)


def line_count(path: Path) -> int:
    return len(path.read_text().splitlines())


@functools.cache
def definitions(path: Path) -> list[Function | ast.ClassDef]:
    """Functions and classes wherever they are: only statements have any, and most nodes are expressions."""
    found: list[Function | ast.ClassDef] = []
    waiting: list[ast.AST] = [ast.parse(path.read_text())]
    while waiting:
        node = waiting.pop()
        if isinstance(node, Function | ast.ClassDef):
            found.append(node)
        waiting += [child for child in ast.iter_child_nodes(node) if isinstance(child, STATEMENTS)]
    return found


def functions(path: Path) -> Iterator[Function]:
    return (node for node in definitions(path) if isinstance(node, Function))


def body_lines(function: Function) -> int:
    """Count the lines of a function without decorators and docstring."""
    first = function.body[0]
    is_documented = ast.get_docstring(function, clean=False) is not None
    documentation = (first.end_lineno or 0) - first.lineno + 1 if is_documented else 0
    return (function.end_lineno or 0) - function.lineno + 1 - documentation


def test_no_file_is_over_six_hundred_lines(python_files: list[Path], root: Path) -> None:
    lengths = {str(path.relative_to(root)): line_count(path) for path in python_files}
    assert {name: lines for name, lines in lengths.items() if lines > FILE_LINES_AT_MOST} == {}


def test_every_file_over_four_hundred_lines_has_its_reason_listed(python_files: list[Path], root: Path) -> None:
    long = {str(path.relative_to(root)) for path in python_files if line_count(path) > FILE_LINES}
    assert long == set(LONG_FILES)


def test_no_function_is_over_forty_lines(python_files: list[Path], root: Path) -> None:
    long = [
        f"{path.relative_to(root)}:{function.lineno} {function.name} has {body_lines(function)} lines"
        for path in python_files
        for function in functions(path)
        if body_lines(function) > FUNCTION_LINES
    ]
    assert long == []


def test_no_file_or_folder_is_a_drawer_for_anything(repository_files: list[Path], root: Path) -> None:
    relative = [path.relative_to(root) for path in repository_files]
    hidden = [str(p) for p in relative if DRAWERS.intersection(part.split(".")[0].lower() for part in p.parts)]
    assert hidden == []


def test_no_class_is_called_base_or_manager(python_files: list[Path], root: Path) -> None:
    named = [
        f"{path.relative_to(root)}:{node.lineno} {node.name}"
        for path in python_files
        for node in definitions(path)
        if isinstance(node, ast.ClassDef)
        and (node.name.startswith("Base") or node.name.endswith(("Manager", "Helper")))
    ]
    assert named == []


def test_body_lines_leave_out_the_docstring() -> None:
    tree = ast.parse('def f():\n    """One.\n\n    Two.\n    """\n    return 1\n')
    assert body_lines(next(node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef))) == 2
