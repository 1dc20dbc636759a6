"""The launcher is small enough to be right, and needs nothing that a release brings along."""

from __future__ import annotations

import ast
import io
import sys
import tokenize
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LAUNCHER = sorted((ROOT / "att_server/launcher").glob("*.py"))
BESIDE = ("att_server/sd_notify.py", "att_server/stand_in.py")
_LAYOUT = (
    *(tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE),
    *(tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER),
)


def lines_of_code(path: Path) -> int:
    """Lines that hold code: neither empty, nor a comment, nor of a docstring."""
    source = path.read_text()
    held: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type not in _LAYOUT:
            held.update(range(token.start[0], token.end[0] + 1))
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            held -= set(range(node.lineno, (node.end_lineno or node.lineno) + 1))
    return len(held)


def test_the_launcher_has_fewer_than_300_lines_and_its_package_405_of_code() -> None:
    source = (ROOT / "att_server/launcher/launcher.py").read_text()
    assert len(source.splitlines()) < 300
    assert sum(map(lines_of_code, LAUNCHER)) < 405


@pytest.mark.parametrize(
    "path", [*LAUNCHER, *(ROOT / name for name in BESIDE)], ids=lambda p: p.name
)
def test_the_launcher_needs_only_the_standard_library(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text())):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        for name in names:
            own = name.startswith(
                (
                    "att_server.launcher.",
                    "att_server.supervisor.",
                    "att_server.sd_notify",
                    "att_server.stand_in",
                )
            )
            assert own or name.split(".")[0] in sys.stdlib_module_names, name
