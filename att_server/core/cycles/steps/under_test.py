"""What is tested: the change on its base, or the merge that is to be pushed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from att_server.core.cycles.gate_files import touched_gate_files
from att_server.core.cycles.model import CycleFacts
from att_server.core.repository import FileEdit, Repository, WriteFile

_GATE_FILE_BYTES = 16 * 1024 * 1024
_FILES = {"100644": False, "100755": True}


@dataclass(frozen=True, slots=True, kw_only=True)
class UnderTest:
    """A tree, the base that it is compared with, and its commit; empty before COMMIT."""

    base: str
    tree: str
    commit: str


def under_test(facts: CycleFacts) -> UnderTest:
    """What tests, checks and gates look at now."""
    if facts.candidate:
        return UnderTest(
            base=facts.candidate_base, tree=facts.candidate_tree, commit=facts.candidate
        )
    if facts.merged_commit == facts.commit != "":
        # It is on the base already: nothing that judges it is changed by it.
        return UnderTest(base=facts.commit, tree=facts.tree, commit=facts.commit)
    return UnderTest(base=facts.base_commit, tree=facts.tree, commit=facts.commit)


async def tree_with_old_gates(
    repository: Repository, cycle_id: str, what: UnderTest, command: Sequence[str]
) -> str | None:
    """The tree, with the files that `command` runs as they are in the base.

    None where the change leaves them alone. A change that edits what judges it is
    judged by that as it was, too. What is no file in the base cannot be restored
    and is left to whoever approves. Raises AttError EDIT_PATH_INVALID where the
    change has put something else in the place of such a file.
    """
    changed = {each.path: each for each in await repository.changed_paths(what.base, what.tree)}
    edits: list[FileEdit] = []
    for path in touched_gate_files([command], changed):
        mode = changed[path].old_mode
        if mode not in _FILES:
            continue
        content = await repository.read_file(what.base, path, max_bytes=_GATE_FILE_BYTES)
        if content is not None:
            edits.append(WriteFile(path=path, content=content, executable=_FILES[mode]))
    if not edits:
        return None
    judged = await repository.apply(cycle_id, what.tree, edits)
    # The cycle's own tree is kept in the other's place again.
    await repository.apply(cycle_id, what.tree, [])
    return judged.tree
