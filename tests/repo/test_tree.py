"""What may not stand in a tracked file."""

from __future__ import annotations

import ast
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
GENERATED = re.compile(r"_pb2(_grpc)?\.pyi?$|^att_client/_proto/")
LONGEST_MODULE = 480  # lines; about 400 fit in a head, more hold more than one noun

# A path of somebody's machine: below a home, a workspace or a temporary directory.
MACHINE_PATH = re.compile(r"(?<![\w.$~}/-])/(home|root|Users|work|opt)/[\w.-]+")
# A place that packages come from: installing them is the business of each machine.
REGISTRY = re.compile(r"registry\.\w+|/simple/|\w*pypi\w*\.org|pythonhosted|--(extra-)?index-url\s")


def tracked() -> list[str]:
    """Files that git tracks or would take, that exist."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    ).stdout.split("\0")
    return [name for name in listed if name and (ROOT / name).is_file()]


FILES = tracked()
WRITTEN = [name for name in FILES if not GENERATED.search(name)]


def found(pattern: re.Pattern[str], names: list[str]) -> list[str]:
    return [
        f"{name}:{number}: {line.strip()[:100]}"
        for name in names
        for number, line in enumerate(text(name).splitlines(), 1)
        if pattern.search(line)
    ]


def text(name: str) -> str:
    return (ROOT / name).read_text(errors="replace")


def test_no_file_names_a_path_of_a_machine() -> None:
    assert found(MACHINE_PATH, [name for name in FILES if name != "tests/repo/test_tree.py"]) == []


def test_no_file_names_a_place_that_packages_come_from() -> None:
    assert found(REGISTRY, [name for name in FILES if name != "tests/repo/test_tree.py"]) == []


def test_no_written_file_holds_unfinished_work() -> None:
    unfinished = re.compile(r"\b(TODO|FIXME|XXX|NotImplementedError)\b|mark\.(skip|xfail)")
    assert found(unfinished, [n for n in WRITTEN if n.endswith(".py") and "/repo/" not in n]) == []


def test_every_ignore_carries_its_code_and_a_reason() -> None:
    ignore = re.compile(
        r"#\s*(noqa|type: ignore)"
        r"(?!(: [A-Z]+\d+(, ?[A-Z]+\d+)*|\[[\w, -]+\])[ \t]+[#-]* *\w)"
    )
    python = [n for n in WRITTEN if n.endswith(".py") and n != "tests/repo/test_tree.py"]
    assert found(ignore, python) == []


def sleeps(name: str) -> list[str]:
    """Sleeps of the test file that no loop repeats until a condition holds."""
    polled: set[ast.AST] = set()
    tree = ast.parse(text(name))
    for loop in ast.walk(tree):
        if isinstance(loop, ast.While):
            polled.update(ast.walk(loop))
    return [
        f"{name}:{node.lineno}"
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        and ast.unparse(node.func) in {"time.sleep", "asyncio.sleep"}
        and ast.unparse(node) != "asyncio.sleep(0)"
        and node not in polled
    ]


def test_no_test_sleeps_but_to_ask_again_for_a_condition() -> None:
    names = [n for n in WRITTEN if re.fullmatch(r"tests/.*/(test_\w+|conftest)\.py", n)]
    assert [place for name in names for place in sleeps(name)] == []


@pytest.mark.parametrize(
    "name", [n for n in WRITTEN if n.endswith(".py") and not n.startswith("tests/")]
)
def test_the_module_fits_in_a_head(name: str) -> None:
    assert len(text(name).splitlines()) <= LONGEST_MODULE
    assert Path(name).stem not in {"utils", "util", "common", "helpers", "base", "misc"}
