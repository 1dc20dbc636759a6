"""Parses TOML files that people write, and says what is wrong with them, and where."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from att_server.core.errors import AttError, Reason

MAX_FILE_BYTES = 1 << 20

Finding = tuple[int, str, str]
"""A line, a key with dots, and the rule that it breaks; the rule goes on from the key."""


def parsed(path: Path, content: bytes) -> tuple[str, dict[str, Any]]:
    """The text and the document of a file. Raises SETTINGS_INVALID with the line."""
    try:
        # As tomllib does it, so that lines are counted in the same text.
        text = content.decode().replace("\r\n", "\n")
        return text, tomllib.loads(text)
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise invalid(path, f"line {line}: not UTF-8", line=line) from error
    except tomllib.TOMLDecodeError as error:
        at = re.search(r"at line (\d+)", str(error))
        line = int(at[1]) if at else text.rstrip().count("\n") + 1
        raise invalid(path, f"line {line}: {error}", line=line) from error
    except RecursionError as error:
        raise invalid(path, "is nested too deeply") from error


def broken(path: Path, findings: Iterable[Finding]) -> AttError:
    """The error for a file that breaks rules, of which there is at least one."""
    found = sorted(findings)
    line, key, _ = found[0]
    rules = "; ".join(f"line {line}: {key} {rule}" for line, key, rule in found[:10])
    return invalid(path, rules, line=line, key=key)


def invalid(path: Path, what: str, *, line: int | None = None, key: str = "") -> AttError:
    """The error for a file with something wrong; `what` goes on from its path."""
    return AttError(
        Reason.SETTINGS_INVALID,
        f"{path}: {what}. Correct the file and call again.",
        path=path,
        line="" if line is None else line,
        key=key,
    )


def dotted(key: Iterable[object]) -> str:
    """A key as TOML writes it."""
    return ".".join(str(part) for part in key)
