"""Directions of import that the linter's contracts cannot say."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import att_client

ROOT = Path(__file__).parents[2]


def imported(path: Path) -> Iterator[tuple[str, str]]:
    """Module and name of every import in the file; the name is empty for a plain import."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from ((alias.name, "") for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            yield from ((node.module or "", alias.name) for alias in node.names)


def files(folder: str) -> list[Path]:
    return sorted((ROOT / folder).rglob("*.py"))


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("path", files("att_server/supervisor"), ids=name_of)
def test_the_supervisor_needs_only_the_standard_library(path: Path) -> None:
    own = "att_server.supervisor"
    for module, _ in imported(path):
        assert (
            module.split(".")[0] in sys.stdlib_module_names
            or f"{module}.".startswith(f"{own}.")
            # It does without, as tests/supervisor/test_checksum.py shows.
            or (path.name == "checksum.py" and module == "isal.isal_zlib")
        )


@pytest.mark.parametrize("name", ["app.py", "test_app.py"])
def test_the_example_app_needs_only_the_standard_library(name: str) -> None:
    for module, _ in imported(ROOT / "att_client/example" / name):
        assert module in {"app", *sys.stdlib_module_names} or module.split(".")[0] in (
            sys.stdlib_module_names
        )


USERS = {"cli": ("cli", "example", "mcp"), "mcp": ("mcp",)}
"""What stands on the SDK, and which parts beside the SDK it may use."""


@pytest.mark.parametrize(
    "path", [path for user in USERS for path in files(f"att_client/{user}")], ids=name_of
)
def test_commands_and_bridge_use_public_names_of_the_sdk_only(path: Path) -> None:
    parts = USERS[path.relative_to(ROOT / "att_client").parts[0]]
    for module, name in imported(path):
        if module == "att_client" and name:
            assert name in att_client.__all__ or name in parts, name
        elif module.startswith("att_client."):
            assert module.split(".")[1] in parts, module


@pytest.mark.parametrize("path", files("att_client/mcp"), ids=name_of)
def test_the_bridge_uses_public_names_of_the_mcp_sdk_only(path: Path) -> None:
    for module, name in imported(path):
        if module.split(".")[0] in ("mcp", "mcp_types"):
            assert not any(part.startswith("_") for part in (*module.split("."), name)), module
