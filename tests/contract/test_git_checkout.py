"""A checkout is looked at as it is, and neither changed nor allowed to run anything."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from att_server.adapters.git import Git, inspect_checkout
from att_server.adapters.git.checkout import usable_url
from att_server.core.errors import AttError, Reason
from att_server.core.repository import Checkout
from tests.contract.git_projects import GitProject, git, make_project, settings


@pytest.fixture
async def project(tmp_path: Path) -> GitProject:
    return await make_project(tmp_path)


async def look(directory: Path, remote: str | None = None) -> Checkout:
    return await inspect_checkout(Git(settings()), directory, project_id="web", remote=remote)


async def refusal(directory: Path, remote: str | None = None) -> AttError:
    with pytest.raises(AttError) as refused:
        await look(directory, remote)
    return refused.value


def contents(directory: Path) -> dict[str, str]:
    return {
        str(path.relative_to(directory)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in directory.rglob("*")
        if path.is_file()
    }


async def test_a_plain_checkout_is_described(project: GitProject) -> None:
    facts = await look(project.checkout)
    assert facts == Checkout(
        directory=project.checkout,
        remote="origin",
        url=str(project.remote),
        object_format="sha1",
        branch="main",
        head=project.base,
        shallow=False,
        submodules=False,
        dirty=False,
    )


async def test_looking_changes_no_file(project: GitProject) -> None:
    (project.checkout / "app.py").write_text("changed\n")
    before = contents(project.checkout)
    assert (await look(project.checkout)).dirty
    assert contents(project.checkout) == before


async def test_staged_changes_are_dirt_and_untracked_files_are_not(project: GitProject) -> None:
    (project.checkout / "new").write_text("new\n")
    assert not (await look(project.checkout)).dirty
    git(project.checkout, "add", "new")
    assert (await look(project.checkout)).dirty


async def test_a_detached_head_has_no_branch(project: GitProject) -> None:
    git(project.checkout, "checkout", "-q", "--detach")
    facts = await look(project.checkout)
    assert (facts.branch, facts.head) == (None, project.base)


async def test_before_the_first_commit_there_is_no_head(tmp_path: Path) -> None:
    git(tmp_path, "init", "-q", "-b", "trunk", "empty")
    git(tmp_path / "empty", "remote", "add", "origin", "https://example.com/r.git")
    facts = await look(tmp_path / "empty")
    assert (facts.branch, facts.head, facts.dirty) == ("trunk", None, False)


async def test_a_shallow_checkout_says_so(project: GitProject, tmp_path: Path) -> None:
    project.commit_on_remote({"x": b"x"})
    git(tmp_path, "clone", "-q", "--depth=1", f"file://{project.remote}", "shallow")
    assert (await look(tmp_path / "shallow")).shallow


async def test_submodules_are_seen_and_not_entered(project: GitProject, tmp_path: Path) -> None:
    git(project.checkout, "submodule", "--quiet", "add", str(project.remote), "sub")
    facts = await look(project.checkout)
    assert facts.submodules


async def test_a_linked_worktree_is_a_top_too(project: GitProject, tmp_path: Path) -> None:
    git(project.checkout, "worktree", "add", "-q", "-b", "other", str(tmp_path / "linked"))
    facts = await look(tmp_path / "linked")
    assert (facts.branch, facts.url) == ("other", str(project.remote))


@pytest.mark.parametrize("place", ["below", "none", "bare", "inside .git"])
async def test_what_is_no_top_of_a_checkout_is_refused(
    project: GitProject, tmp_path: Path, place: str
) -> None:
    (tmp_path / "none").mkdir()
    directory = {
        "below": project.checkout / "docs",
        "none": tmp_path / "none",
        "bare": project.remote,
        "inside .git": project.checkout / ".git",
    }[place]
    refused = await refusal(directory)
    assert refused.reason is Reason.PROJECT_NOT_REPOSITORY_ROOT
    assert refused.metadata == {"project_id": "web", "path": str(directory)}


async def test_without_a_remote_there_is_no_cycle(project: GitProject) -> None:
    assert (await refusal(project.checkout, "other")).reason is Reason.PROJECT_HAS_NO_REMOTE
    git(project.checkout, "remote", "remove", "origin")
    assert (await refusal(project.checkout)).reason is Reason.PROJECT_HAS_NO_REMOTE


async def test_the_only_remote_is_used_and_of_several_the_named_one(project: GitProject) -> None:
    git(project.checkout, "remote", "rename", "origin", "upstream")
    assert (await look(project.checkout)).remote == "upstream"
    git(project.checkout, "remote", "add", "fork", "https://example.com/fork.git")
    assert (await refusal(project.checkout)).reason is Reason.PROJECT_HAS_NO_REMOTE
    assert (await look(project.checkout, "fork")).url == "https://example.com/fork.git"


async def test_the_address_to_push_to_counts(project: GitProject) -> None:
    git(project.checkout, "remote", "set-url", "--push", "origin", "ssh://git@example.com/r.git")
    assert (await look(project.checkout)).url == "ssh://git@example.com/r.git"


async def test_a_relative_address_is_against_the_checkout(project: GitProject) -> None:
    git(project.checkout, "remote", "set-url", "origin", "../remote.git")
    assert Path((await look(project.checkout)).url).samefile(project.remote)


PROTOCOLS = ("file", "https", "ssh")


@pytest.mark.parametrize(
    "url",
    ["https://example.com/r.git", "ssh://git@example.com:22/r", "git@example.com:team/r.git"],
)
def test_an_address_of_an_allowed_transport_is_used_as_it_is(url: str) -> None:
    assert usable_url(url, directory=Path("/x"), protocols=PROTOCOLS) == url


REFUSED = (
    "", " https://example.com/r", "ext::sh -c touch% x", "-x", "--upload-pack=touch x",
    "http://example.com/r.git", "git://example.com/r", "ftp://x/y", "fd::3", "a\nb", "a\0b",
    "ssh://-oProxyCommand=x/r", "-oProxyCommand=x:r", "git@-x:r", "host:-r",
)  # fmt: skip


@pytest.mark.parametrize("url", REFUSED)
def test_an_address_that_could_run_something_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        usable_url(url, directory=Path("/x"), protocols=PROTOCOLS)


async def test_a_remote_with_such_an_address_is_none(project: GitProject) -> None:
    for url in REFUSED:
        if url and "\0" not in url:
            git(project.checkout, "config", "remote.origin.url", url)
            assert (await refusal(project.checkout)).reason is Reason.PROJECT_HAS_NO_REMOTE


async def test_a_password_in_an_address_is_not_shown(project: GitProject) -> None:
    git(project.checkout, "config", "remote.origin.url", "ftp://me:secret@example.com/r")
    refused = await refusal(project.checkout)
    assert "secret" not in refused.message
    git(project.checkout, "config", "remote.origin.url", "https://me:secret@example.com/r")
    assert "secret" not in repr(await look(project.checkout))


async def test_nothing_that_the_checkout_configures_is_run(
    project: GitProject, tmp_path: Path
) -> None:
    proof = tmp_path / "ran"
    program = tmp_path / "program"
    program.write_text(f"#!/bin/sh\ntouch {proof}\ncat\n")
    program.chmod(0o755)
    for key in (
        "core.fsmonitor", "core.pager", "core.editor", "core.askPass", "core.sshCommand",
        "diff.external", "filter.x.clean", "filter.x.smudge", "filter.x.process", "gpg.program",
        "credential.helper", "alias.status", "alias.rev-parse",
    ):  # fmt: skip
        git(project.checkout, "config", key, f"!{program}" if "alias" in key else str(program))
    git(project.checkout, "config", "filter.x.required", "true")
    (project.checkout / ".git" / "info" / "attributes").write_text("* filter=x diff=x\n")
    hooks = project.checkout / ".git" / "hooks"
    hooks.mkdir(exist_ok=True)
    for name in ("post-index-change", "post-checkout", "reference-transaction", "pre-commit"):
        (hooks / name).symlink_to(program)
    (project.checkout / "app.py").write_text("changed\n")
    assert (await look(project.checkout)).dirty
    assert not proof.exists()
