"""Gate files: what a command runs out of the tree that it judges.

A command runs a file by its path (`./run`, `env X=1 tools/check`), as the script of
an interpreter (`sh ci.sh`, `python tools/x.py`, `. ci/env`), as the module of a
`python -m`, as what `make` and its like read, and as any `*.sh` it is told of; all
that in the script of a `sh -c` too, below a `cd` or `-C`. What it is given to look
at (`grep -q x app.py`, `pytest tests`) is judged and judges nothing. Files that a
gate file reads in turn are not known here: `protected_paths` is for them.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Collection, Iterable, Iterator, Sequence
from itertools import pairwise
from pathlib import PurePosixPath

_SHELL = re.compile(r"(?:ba|da|z|k|a|fi)?sh|busybox")
_PYTHON = re.compile(r"(?:python|pypy)[\d.]*")
_OTHERS = re.compile(
    r"(?:node|nodejs|deno|bun|tsx|ts-node|ruby|perl|php|lua|Rscript|bats|tclsh)[\d.]*"
)
_WITH_VALUE = {"-W", "-X", "-o", "-O", "-r", "--require", "--import", "-I"}
"""Options of interpreters that take the next word."""
_BEFORE_A_COMMAND = frozenset(
    (
        "env",
        "exec",
        "command",
        "time",
        "nice",
        "nohup",
        "timeout",
        "setsid",
        "sudo",
        "stdbuf",
        "ionice",
        "xvfb-run",
        "chronic",
        "run",
        "then",
        "do",
        "else",
        "if",
        "while",
        "until",
        "!",
        "{",
        "(",
    )
)
"""Words behind which a command stands, maybe after options, numbers and assignments."""
_READ_BY = {
    "make": ("GNUmakefile", "makefile", "Makefile"),
    "gmake": ("GNUmakefile", "makefile", "Makefile"),
    "just": ("justfile", "Justfile", ".justfile"),
    "npm": ("package.json",),
    "npx": ("package.json",),
    "pnpm": ("package.json",),
    "yarn": ("package.json",),
    "tox": ("tox.ini",),
    "nox": ("noxfile.py",),
    "task": ("Taskfile.yml", "Taskfile.yaml"),
    "cmake": ("CMakeLists.txt",),
    "rake": ("Rakefile",),
}
_NAMES_A_FILE = frozenset({"-f", "--file", "--makefile", "--justfile", "--rakefile", "--taskfile"})
"""Options of those above, which name another file."""
_ENTERS = frozenset({"cd", "pushd", "-C", "--directory", "--prefix", "--cwd"})
_SCRIPT = re.compile(r".+\.(?:sh|bash|bats)")
_MODULE = re.compile(r"\w+(?:\.\w+)*")
_SKIPPED = re.compile(r"-.*|[\d.]+[smhd]?|\w+=.*")
_ENDS = re.compile(r"[;&|()\n]+")
_MOST_NESTED = 5


def touched_gate_files(
    commands: Iterable[Sequence[str]], changed: Collection[str]
) -> tuple[str, ...]:
    """Those of the changed paths that one of the commands runs, sorted.

    Also where the base has no such file: from then on it would be run.
    """
    run = frozenset[str]().union(*(gate_files(command) for command in commands))
    return tuple(path for path in sorted(changed) if path in run)


def gate_files(command: Sequence[str]) -> frozenset[str]:
    """The paths, against the top of the tree, that the command would run."""
    return frozenset(_in_simple(list(command), [""], 0))


def _in_script(script: str, directories: list[str], nested: int) -> Iterator[str]:
    lexer = shlex.shlex(script.replace("\n", " ; "), posix=True, punctuation_chars=True)
    lexer.whitespace_split = True
    try:
        words = list(lexer)
    except ValueError:  # a quote that is not closed, which a shell refuses too
        words = script.split()
    simple: list[str] = []
    for word in [*words, ";"]:
        if _ENDS.fullmatch(word):
            yield from _in_simple(simple, directories, nested)
            simple = []
        else:
            simple.append(word)


def _in_simple(words: list[str], directories: list[str], nested: int) -> Iterator[str]:
    """Of a command without `;` and the like. directories: where it may be; grows by a `cd`."""
    for name in _named(words, directories, nested):
        for directory in directories:
            if path := _in_tree(f"{directory}/{name}" if directory else name):
                yield path


def _named(words: list[str], directories: list[str], nested: int) -> Iterator[str]:
    for word, entered in pairwise(words):
        if word in _ENTERS:
            # One after the other, or each from the top: both are looked at.
            directories += [f"{each}/{entered}" if each else entered for each in directories[:8]]
    commands = _command_positions(words)
    reads = any(PurePosixPath(word).name in _READ_BY for word in words)
    for place, word in enumerate(words):
        rest = words[place + 1 :]
        name = PurePosixPath(word).name
        option, _, value = word.partition("=")
        if reads and option in _NAMES_A_FILE:
            yield from [value] if value else rest[:1]
        if place in commands and word in {".", "source"}:
            yield from rest[:1]
        if place in commands and "/" in word:
            yield word
        if _SCRIPT.fullmatch(word):
            yield word
        yield from _READ_BY.get(name, ())
        if _SHELL.fullmatch(name) or _PYTHON.fullmatch(name) or _OTHERS.fullmatch(name):
            yield from _interpreted(name, rest, directories, nested)


def _interpreted(
    interpreter: str, rest: list[str], directories: list[str], nested: int
) -> Iterator[str]:
    """What an interpreter with these arguments runs."""
    place = 0
    while place < len(rest):
        word, behind = rest[place], rest[place + 1 :]
        if _SHELL.fullmatch(interpreter) and re.fullmatch(r"-[a-z]*c[a-z]*", word):
            if behind and nested < _MOST_NESTED:
                yield from _in_script(behind[0], directories, nested + 1)
            return
        if _PYTHON.fullmatch(interpreter) and re.fullmatch(r"-[A-Za-z]*m", word):
            yield from _module_files(behind[0] if behind else "")
            return
        if word in {"-c", "-e", "--eval", "-"}:
            return
        if word in _WITH_VALUE:
            place += 2
        elif word.startswith(("-", "+")) or word == "run":
            place += 1
        else:
            yield word
            return


def _command_positions(words: Sequence[str]) -> frozenset[int]:
    found = set()
    expected = True
    for place, word in enumerate(words):
        if word in _BEFORE_A_COMMAND:
            expected = True
        elif expected and not _SKIPPED.fullmatch(word):
            found.add(place)
            expected = False
    return frozenset(found)


def _module_files(module: str) -> Iterator[str]:
    """What Python would take for the module, were it in the tree."""
    if _MODULE.fullmatch(module):
        parts = module.split(".")
        yield "/".join(parts) + ".py"
        yield "/".join([*parts, "__main__.py"])
        for count in range(1, len(parts) + 1):
            yield "/".join([*parts[:count], "__init__.py"])


def _in_tree(name: str) -> str:
    """The path against the top of the tree; empty where it leads out of it."""
    parts: list[str] = []
    for part in name.split("/"):
        if part == ".." and parts:
            parts.pop()
        elif part == "..":
            return ""
        elif part not in {"", "."}:
            parts.append(part)
    return "" if name.startswith("/") else "/".join(parts)
