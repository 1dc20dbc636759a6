"""A JSON object in a file that is replaced as a whole."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Mapping
from typing import Any


def read(path: str) -> dict[str, Any]:
    """The object in the file. Raises OSError, ValueError."""
    with open(path, "rb") as file:
        try:
            form = json.load(file)
        except RecursionError as error:
            raise ValueError(f"{path} is nested too deep") from error
    if not isinstance(form, dict):
        raise ValueError(f"{path} is not a JSON object")
    return form


def read_or_empty(path: str) -> dict[str, Any]:
    """The object in the file; an empty one where there is none that can be read."""
    with contextlib.suppress(OSError, ValueError):
        return read(path)
    return {}


def replace(path: str, form: Mapping[str, object], *, durable: bool = False) -> None:
    """Replaces the file, readable by its owner only. durable: the disk has it on return.

    Raises OSError.
    """
    # The old file stays whole until the new one is: a reader never sees half of it.
    draft = path + ".new"
    data = json.dumps(form).encode()
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        while data:
            data = data[os.write(descriptor, data) :]
        if durable:
            os.fsync(descriptor)
    finally:
        os.close(descriptor)
    os.replace(draft, path)
