"""Reads a file of environment variables in dotenv form.

What is wrong is told by the line, and never with what the line holds: it may
be part of a secret.
"""

from __future__ import annotations

from collections.abc import Iterator
from io import StringIO

from att_server.core import settings_rules

MAX_FILE_BYTES = 1 << 20


class EnvFileInvalid(Exception):
    """The file's content breaks a rule. line: counted from 1; 0: the file as a whole."""

    def __init__(self, line: int, rule: str) -> None:
        super().__init__(rule)
        self.line = line
        self.rule = rule


def variables(content: bytes) -> dict[str, str]:
    """The variables of the file. The last of equal names wins. Raises EnvFileInvalid.

    Nothing is put in for `$NAME` in a value: a password may hold a dollar.
    """
    try:
        text = content.decode()
    except UnicodeDecodeError as error:
        raise EnvFileInvalid(content.count(b"\n", 0, error.start) + 1, "is not UTF-8") from error
    found: dict[str, str] = {}
    for number, (line, name, value) in enumerate(_bindings(text)):
        if number == settings_rules.MAX_ENV_ENTRIES:
            raise EnvFileInvalid(0, f"has more than {number:,} entries")
        if name is None or value is None:
            raise EnvFileInvalid(line, "is not NAME=VALUE, or a quote is not closed")
        rule = settings_rules.variable_rule(name, value)
        if rule:
            raise EnvFileInvalid(line, rule)
        found[name] = value
    rule = settings_rules.environment_rule(found)
    if rule:
        raise EnvFileInvalid(0, rule)
    return found


def _bindings(text: str) -> Iterator[tuple[int, str | None, str | None]]:
    """The line, name and value of each variable; None where there is none."""
    # Costs memory that a server without such files does not need.
    from dotenv.parser import parse_stream

    for binding in parse_stream(StringIO(text)):
        whole = binding.original.string
        if binding.key is None and not binding.error:
            continue
        # The parser counts the empty lines before a variable as its own.
        before = whole[: len(whole) - len(whole.lstrip())]
        yield binding.original.line + before.count("\n"), binding.key, binding.value
