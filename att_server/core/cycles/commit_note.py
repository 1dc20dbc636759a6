"""What commits of a cycle say of themselves."""

from __future__ import annotations

import re
from collections.abc import Sequence

from att_server.core.cycles.model import Cycle
from att_server.core.cycles.settings import BootstrapSettings
from att_server.core.repository import CommitNote, Identity, MergeMethod

IDENTITY = Identity(name="ATT", email="att@localhost")
"""Makes all commits of cycles. Who asked for one stands in its trailer `Requested-by`."""

_REQUESTED_BY = re.compile(r"(?im)^(?=[ \t]*requested-by[ \t]*:)")
_SHOWN = 3  # paths in a message that nobody gave


def commit_note(cycle: Cycle, message: str) -> CommitNote:
    """The note of a commit of this cycle: the same whenever it is made again.

    message: lines that read as the trailer of who asked are quoted.
    """
    printable = "".join(
        letter if letter.isprintable() or letter in "\n\t" else "\N{REPLACEMENT CHARACTER}"
        for letter in message.replace("\r\n", "\n")
    )
    text = _REQUESTED_BY.sub("> ", printable.strip()) or "Change"
    asked = "".join(filter(str.isprintable, cycle.requested_by)) or "unknown"
    return CommitNote(
        message=f"{text}\n\nRequested-by: {asked}", identity=IDENTITY, time=cycle.create_time
    )


def change_message(cycle: Cycle, paths: Sequence[str]) -> str:
    """The message that was asked for, or one that names what is changed."""
    if cycle.request.commit_message.strip():
        return cycle.request.commit_message
    named = ", ".join(paths[:_SHOWN])
    more = len(paths) - _SHOWN
    return f"Change {named or 'the project'}" + (f" and {more} more" if more > 0 else "")


def merge_note(cycle: Cycle, settings: BootstrapSettings) -> CommitNote:
    """The note of the commit that brings the change into the base."""
    if settings.merge_method is MergeMethod.SQUASH:
        return commit_note(cycle, change_message(cycle, cycle.request.edited_paths))
    merged = f"Merge {cycle.facts.branch or cycle.facts.commit} into {cycle.facts.base_branch}"
    subject = cycle.request.commit_message.strip().partition("\n")[0].strip()
    return commit_note(cycle, f"{merged}\n\n{subject}" if subject else merged)
