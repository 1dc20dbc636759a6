"""Which names of branches are used at all: what git takes, without what misleads."""

from __future__ import annotations

import re
import unicodedata

MAX_BYTES = 200
"""Bytes of a name; the file of a ref has it as its path, with `.lock` behind it."""

_FORBIDDEN = re.compile(r"[\x00-\x20\x7f~^:?*\[\\]|\.\.|//|@\{")
_FULL_SHA = re.compile(r"[0-9a-fA-F]{40}([0-9a-fA-F]{24})?")


def branch_violation(name: str) -> str | None:
    """The rule that `name`, without `refs/heads/`, breaks; None if it may be used.

    Every name that passes passes `git check-ref-format --branch` as well.
    """
    for broken, rule in (
        (not name, "is empty"),
        (name.startswith("-"), "begins with a hyphen, as an option does"),
        (name.startswith("refs/"), "begins with refs/; give the branch's name alone"),
        (name in {"HEAD", "@"}, "means something else to git"),
        (_FULL_SHA.fullmatch(name), "reads as the id of a commit"),
        (_FORBIDDEN.search(name), "holds a space, a control character or one of ~^:?*[\\ .. // @{"),
        (name.startswith("/") or name.endswith(("/", ".")), "begins with / or ends with / or ."),
        (any(part.startswith(".") for part in name.split("/")), "has a part that begins with a ."),
        (any(part.endswith(".lock") for part in name.split("/")), "has a part that ends in .lock"),
        (any(_invisible(letter) for letter in name), "holds an invisible character"),
    ):
        if broken:
            return rule
    if len(name.encode()) > MAX_BYTES:
        return f"has more than {MAX_BYTES} bytes"
    return None


def _invisible(letter: str) -> bool:
    # Controls, direction marks, lone surrogates, spaces that are no ASCII space.
    return unicodedata.category(letter) in {"Cc", "Cf", "Cs", "Co", "Zs", "Zl", "Zp"}
