"""One cycle's work with git in a process of its own, told step by step, to be killed anywhere."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path

from att_server.adapters.git import Git, GitRepository
from att_server.core.repository import Checkout, Merged, MergeMethod, Reverted, WriteFile
from tests.contract.git_projects import CYCLE, note, settings

STEPS = ("fetch", "apply", "worktree", "commit", "push", "clone", "merge", "export", "pin",
         "revert", "delete", "discard", "done")  # fmt: skip


def say(step: str) -> None:
    print(step, flush=True)


async def cycle(state: Path, remote: Path, base: str) -> None:
    facts = Checkout(
        directory=state, remote="origin", url=str(remote), object_format="sha1", branch="main",
        head=None, shallow=False, submodules=False, dirty=False,
    )  # fmt: skip
    repository = GitRepository(Git(settings()), state, facts)
    say("fetch")
    await repository.fetch("main")
    say("apply")
    edits = [WriteFile(path="app.py", content=b"new\n")]
    tree = (await repository.apply(CYCLE, base, edits)).tree
    say("worktree")
    await repository.worktree(CYCLE, base, tree)
    say("commit")
    commit = await repository.commit(CYCLE, tree, base, note("Change"))
    say("push")
    await repository.push("att/x", commit, expected=None)
    say("clone")
    await repository.clone(CYCLE, commit)
    say("merge")
    merged = await repository.merge(
        CYCLE, "main", commit, expected=base, method=MergeMethod.MERGE, note=note("Merge")
    )
    assert isinstance(merged, Merged), merged
    say("export")
    await repository.export(merged.commit, state / "release")
    say("pin")
    await repository.pin(merged.commit)
    say("revert")
    words = note("Undo")
    undone = await repository.revert(CYCLE, "main", before=base, after=merged.commit, note=words)
    assert isinstance(undone, Reverted), undone
    say("delete")
    await repository.delete_branch("att/x", expected=commit)
    say("discard")
    await repository.discard(CYCLE)
    say("done")


if __name__ == "__main__":
    told = json.loads(sys.argv[1])
    asyncio.run(cycle(Path(told["state"]), Path(told["remote"]), told["base"]))
