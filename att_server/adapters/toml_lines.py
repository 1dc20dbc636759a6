"""Where the keys of a TOML document are.

tomllib does not say, so the text, which tomllib has found to be valid, is cut
into statements, and tomllib reads each of them alone.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence

Key = tuple[str, ...]

_TOKEN = re.compile(
    r'"""(?:\\.|[^\\])*?"""(?:"{0,2})'
    r"|'''.*?'''(?:'{0,2})"
    r'|"(?:\\.|[^"\\])*"'
    r"|'[^']*'"
    r"|#[^\n]*"
    r"|(?P<open>[\[{])|(?P<close>[\]}])|(?P<newline>\n)",
    re.DOTALL,
)


def _statements(text: str) -> Iterator[tuple[int, str]]:
    """The statements of a valid document, each with its line."""
    start, line, depth = 0, 1, 0
    for token in _TOKEN.finditer(text):
        depth += (token["open"] is not None) - (token["close"] is not None)
        if token["newline"] is not None and depth == 0:
            yield line, text[start : token.end()]
            line += text.count("\n", start, token.end())
            start = token.end()
    yield line, text[start:]


def lines_of(text: str) -> dict[Key, int]:
    """The line of each table and key of a valid document, the first where there are several."""
    lines: dict[Key, int] = {}
    table: Key = ()
    for line, statement in _statements(text):
        keys = list(_keys(tomllib.loads(statement)))
        if statement.lstrip().startswith("["):
            table = max(keys, key=len)
            keys = [table[: end + 1] for end in range(len(table))]
        else:
            keys = [table + key for key in keys]
        for key in keys:
            lines.setdefault(key, line)
    return lines


def _keys(value: object) -> Iterator[Key]:
    """The path of every key within `value`; elements of arrays have their array's."""
    if isinstance(value, dict):
        for name, inner in value.items():
            yield (name,)
            yield from ((name, *key) for key in _keys(inner))
    elif isinstance(value, list):
        for inner in value:
            yield from _keys(inner)


def line_of(lines: Mapping[Key, int], key: Sequence[str | int]) -> int:
    """The line of the longest part of `key` that the document has."""
    names = tuple(part for part in key if isinstance(part, str))
    return next((lines[names[:end]] for end in range(len(names), 0, -1) if names[:end] in lines), 1)
