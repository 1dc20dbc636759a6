"""A change becomes a tree: exactly what was asked for, and nothing that leaves it."""

from __future__ import annotations

import base64
import os
import subprocess
import tempfile
import zlib
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from att_server.adapters.git.symlinks import leads_out
from att_server.core import edit_paths
from att_server.core.errors import AttError, Reason
from att_server.core.repository import (
    Change,
    DeleteFile,
    FileEdit,
    Patch,
    RepositoryError,
    RepositoryFailure,
    SetMode,
    WriteFile,
)
from tests.contract.git_projects import CYCLE, GitProject, Special, git, make_project


@pytest.fixture
async def project(tmp_path: Path) -> GitProject:
    return await make_project(tmp_path)


async def files_of(project: GitProject, tree: str) -> dict[str, str]:
    """The modes of the tree's files, by path."""
    listed = git(project.state / "repository.git", "ls-tree", "-r", tree)
    return {line.split("\t")[1]: line.split(" ")[0] for line in listed.splitlines()}


async def refusal(project: GitProject, change: Change, base: str | None = None) -> AttError:
    with pytest.raises(AttError) as refused:
        await project.repository.apply(CYCLE, base or project.base, change)
    return refused.value


def content(project: GitProject, tree: str, path: str) -> bytes:
    shown = subprocess.run(
        ["git", "cat-file", "blob", f"{tree}:{path}"],
        cwd=project.state / "repository.git", check=True, capture_output=True,
    )  # fmt: skip
    return shown.stdout


# Edits ------------------------------------------------------------------------


async def test_edits_become_the_tree_they_describe(project: GitProject) -> None:
    edits: list[FileEdit] = [
        WriteFile(path="app.py", content=b"new\n"),
        WriteFile(path="tools/new", content=b"", executable=True),
        WriteFile(path="bin/run", content=b"kept executable"),
        DeleteFile(path="docs/guide.md"),
        WriteFile(path="docs/guide.md/part", content=b"a file became a directory"),
    ]
    applied = await project.repository.apply(CYCLE, project.base, edits)
    assert await files_of(project, applied.tree) == {
        "app.py": "100644",
        "bin/run": "100755",
        "docs/guide.md/part": "100644",
        "tools/new": "100755",
    }
    assert {changed.path for changed in applied.paths} == {
        "app.py", "bin/run", "docs/guide.md", "docs/guide.md/part", "tools/new",
    }  # fmt: skip


async def test_the_same_change_of_the_same_base_is_the_same_tree(project: GitProject) -> None:
    edits = [WriteFile(path="app.py", content=b"new\n")]
    first = await project.repository.apply(CYCLE, project.base, edits)
    assert await project.again().apply(CYCLE, project.base, edits) == first


async def test_contents_are_kept_byte_for_byte(project: GitProject) -> None:
    base = project.commit_on_remote({".gitattributes": b"* text=auto eol=lf ident\n"})
    await project.repository.fetch("main")
    contents = {"crlf.txt": b"a\r\nb\r\n$Id$\r\n", "binary": os.urandom(5000) + b"\0", "empty": b""}
    edits = [WriteFile(path=path, content=data) for path, data in contents.items()]
    applied = await project.repository.apply(CYCLE, base, edits)
    assert {path: content(project, applied.tree, path) for path in contents} == contents
    tree = await project.repository.worktree(CYCLE, base, applied.tree)
    assert {path: (tree / path).read_bytes() for path in contents} == contents


async def test_an_edit_to_what_is_there_already_changes_nothing(project: GitProject) -> None:
    edits: list[FileEdit] = [
        WriteFile(path="docs/guide.md", content=b"guide\n"),
        SetMode(path="bin/run", executable=True),
    ]
    applied = await project.repository.apply(CYCLE, project.base, edits)
    assert applied.paths == ()
    assert (await project.repository.apply(CYCLE, project.base, [])).tree == applied.tree


async def test_the_mode_alone_can_be_changed(project: GitProject) -> None:
    edits = [SetMode(path="app.py", executable=True), SetMode(path="bin/run", executable=False)]
    applied = await project.repository.apply(CYCLE, project.base, edits)
    modes = await files_of(project, applied.tree)
    assert (modes["app.py"], modes["bin/run"]) == ("100755", "100644")


@pytest.mark.parametrize(
    "edit",
    [
        WriteFile(path="../x", content=b""),
        WriteFile(path="a/.g\u200cit/config", content=b""),
        WriteFile(path="docs", content=b""),
        WriteFile(path="app.py/x", content=b""),
        WriteFile(path="out", content=b"over a link"),
        WriteFile(path="out/x", content=b"through a link"),
        WriteFile(path="in/x", content=b"through a link"),
        WriteFile(path="sub/x", content=b"into a submodule"),
        DeleteFile(path="no such file"),
        DeleteFile(path="docs"),
        DeleteFile(path="sub"),
        SetMode(path="in", executable=True),
        SetMode(path="no such file", executable=True),
    ],
    ids=lambda edit: f"{type(edit).__name__} {edit.path!a}",
)
async def test_an_edit_that_the_base_has_no_place_for_is_refused(
    project: GitProject, edit: FileEdit
) -> None:
    base = base_with_links(project)
    await project.repository.fetch("main")
    refused = await refusal(project, [WriteFile(path="fine", content=b""), edit], base)
    assert refused.reason is Reason.EDIT_PATH_INVALID
    assert project.left_in_state() == []


async def test_a_link_can_be_removed(project: GitProject) -> None:
    base = base_with_links(project)
    await project.repository.fetch("main")
    applied = await project.repository.apply(CYCLE, base, [DeleteFile(path="out")])
    assert "out" not in await files_of(project, applied.tree)


def base_with_links(project: GitProject) -> str:
    """A base with links `out` (of the tree) and `in`, and the submodule `sub`."""
    return project.commit_on_remote(
        {
            "out": Special("120000", "/tmp"),
            "in": Special("120000", "docs"),
            "sub": Special("160000", project.base),
        }
    )


async def test_ten_thousand_files_are_one_change(project: GitProject) -> None:
    edits = [
        WriteFile(path=f"many/{number % 100}/{number}", content=b"")
        for number in range(edit_paths.MAX_FILES)
    ]
    applied = await project.repository.apply(CYCLE, project.base, edits)
    assert len(applied.paths) == edit_paths.MAX_FILES
    too_many = [*edits, WriteFile(path="one more", content=b"")]
    assert (await refusal(project, too_many)).reason is Reason.EDIT_PATH_INVALID


async def test_a_change_that_is_too_large_is_refused(
    project: GitProject, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(edit_paths, "MAX_TOTAL_BYTES", 1000)
    edits = [WriteFile(path=str(number), content=bytes(400)) for number in range(3)]
    assert (await refusal(project, edits)).reason is Reason.EDIT_PATH_INVALID
    assert (await project.repository.apply(CYCLE, project.base, edits[:2])).paths


async def test_a_base_that_is_not_here_is_told_apart(project: GitProject) -> None:
    with pytest.raises(RepositoryError) as failed:
        await project.repository.apply(CYCLE, "1" * 40, [])
    assert failed.value.failure is RepositoryFailure.NOT_FOUND
    with pytest.raises(ValueError, match="full id"):
        await project.repository.apply(CYCLE, "main", [])
    with pytest.raises(ValueError, match="id of a cycle"):
        await project.repository.apply("../x", project.base, [])


# Patches ----------------------------------------------------------------------


def diff(project: GitProject, *arguments: str) -> bytes:
    """What a person's checkout says of its changes, which are then undone."""
    git(project.checkout, "add", "-A")
    said = git(project.checkout, "diff", "--cached", "--binary", *arguments)
    git(project.checkout, "reset", "-q", "--hard")
    return said.encode(errors="surrogateescape") + b"\n"


async def test_a_patch_becomes_the_tree_it_was_made_from(project: GitProject) -> None:
    top = project.checkout
    (top / "app.py").write_text((top / "app.py").read_text().replace("line 3\n", "LINE 3\n"))
    (top / "data").write_bytes(os.urandom(3000))
    (top / "docs/guide.md").rename(top / "docs/manual.md")
    (top / "bin/run").chmod(0o644)
    (top / "link").symlink_to("docs/manual.md")
    git(top, "add", "-A")
    tree = git(top, "write-tree")
    applied = await project.repository.apply(CYCLE, project.base, Patch(diff=diff(project, "-M")))
    assert applied.tree == tree


async def test_a_patch_without_git_headers_applies_too(project: GitProject) -> None:
    text = b"--- a/docs/guide.md\n+++ b/docs/guide.md\n@@ -1 +1 @@\n-guide\n+manual\n"
    applied = await project.repository.apply(CYCLE, project.base, Patch(diff=text))
    assert [changed.path for changed in applied.paths] == ["docs/guide.md"]


@pytest.mark.parametrize(
    ("text", "path", "line"),
    [
        (b"--- a/app.py\n+++ b/app.py\n@@ -3 +3 @@\n-other\n+new\n", "app.py", "3"),
        (b"--- a/app.py\n+++ b/app.py\n@@ -1,2 +1 @@\n-line 0\n", "", "5"),
        (b"--- a/app.py\n+++ b/app.py\n@@ -1 +1 @@\n-line 0\r\n+new\r\n", "app.py", "1"),
        (b"--- a/none\n+++ b/none\n@@ -1 +1 @@\n-a\n+b\n", "", ""),
        (b"not a patch", "", ""),
        (b"", "", ""),
        (b" \n", "", ""),
    ],
    ids=["conflict", "corrupt", "crlf", "missing", "no patch", "empty", "blank"],
)
async def test_a_patch_that_does_not_fit_says_where(
    project: GitProject, text: bytes, path: str, line: str
) -> None:
    refused = await refusal(project, Patch(diff=text))
    assert refused.reason is Reason.PATCH_DOES_NOT_APPLY
    assert (refused.metadata["path"], refused.metadata["line"]) == (path, line)


def new_file(path: str, text: str = "x", mode: str = "100644") -> bytes:
    return (
        f"diff --git a/{path} b/{path}\nnew file mode {mode}\n--- /dev/null\n+++ b/{path}\n"
        f"@@ -0,0 +1 @@\n+{text}\n\\ No newline at end of file\n"
    ).encode()


@pytest.mark.parametrize(
    "path",
    [
        "../x", ".git/config", ".GIT/config", "a/.git/x", "git~1/config", ".g\u200cit/config",
        ".git /x", ".git./x", ".git::$INDEX_ALLOCATION/x", "a\\b",
    ],
)  # fmt: skip
async def test_a_patch_cannot_touch_what_an_edit_cannot(project: GitProject, path: str) -> None:
    refused = await refusal(project, Patch(diff=new_file(path)))
    assert refused.reason is Reason.EDIT_PATH_INVALID


@pytest.mark.parametrize(
    "links",
    [
        {"l": "/etc"},
        {"l": ".."},
        {"l": "docs/../../x"},
        {"docs/l": "../../x"},
        {"l": "l"},
        {"docs/a/b/up": "../../..", "l": "docs/a/b/up/../x"},
        {"a/up": "..", "b": "a/up/../x"},
    ],
    ids=str,
)
async def test_links_that_lead_out_of_the_tree_are_refused(
    project: GitProject, links: dict[str, str]
) -> None:
    text = b"".join(new_file(path, target, "120000") for path, target in links.items())
    refused = await refusal(project, Patch(diff=text))
    assert refused.reason is Reason.EDIT_PATH_INVALID


@settings(max_examples=100)
@given(
    st.dictionaries(
        st.sampled_from(["a", "b", "d/a", "d/b", "d/e/a", "d/e/b"]),
        st.lists(st.sampled_from(["a", "b", "d", "e", "..", "."]), min_size=1, max_size=5).map(
            "/".join
        ),
    )
)
def test_a_link_that_is_let_through_ends_below_the_top(links: dict[str, str]) -> None:
    with tempfile.TemporaryDirectory() as made:
        top = os.path.realpath(made)
        os.makedirs(f"{top}/d/e")
        for path, target in links.items():
            os.symlink(target, f"{top}/{path}")
        for path in links:
            if not leads_out(path, links):
                ends = os.path.realpath(f"{top}/{path}")
                assert ends == top or ends.startswith(f"{top}/")


async def test_links_within_the_tree_and_those_of_the_base_are_taken(project: GitProject) -> None:
    base = base_with_links(project)
    await project.repository.fetch("main")
    text = new_file("docs/up", "../app.py", "120000") + new_file("a/b", "../docs/up", "120000")
    applied = await project.repository.apply(CYCLE, base, Patch(diff=text))
    assert (await files_of(project, applied.tree))["a/b"] == "120000"


@pytest.mark.parametrize("link", ["in", "out"])
async def test_a_patch_cannot_write_through_a_link(project: GitProject, link: str) -> None:
    base = base_with_links(project)
    await project.repository.fetch("main")
    refused = await refusal(project, Patch(diff=new_file(f"{link}/x")), base)
    assert refused.reason is Reason.EDIT_PATH_INVALID


async def test_a_patch_cannot_bring_a_submodule(project: GitProject) -> None:
    refused = await refusal(
        project, Patch(diff=new_file("sub", f"Subproject commit {project.base}", "160000"))
    )
    assert refused.reason is Reason.EDIT_PATH_INVALID


async def test_a_small_patch_cannot_become_a_large_file(project: GitProject) -> None:
    size = edit_paths.MAX_TOTAL_BYTES + 1
    packed = zlib.compress(bytes(1000))
    line = bytes([ord("A") + 25]) + base64.b85encode(packed.ljust(28, b"\0"))
    text = b"diff --git a/z b/z\nnew file mode 100644\nindex 0000000..1111111\n"
    text += b"GIT binary patch\nliteral %d\n%s\n\n" % (size, line)
    assert (await refusal(project, Patch(diff=text))).reason is Reason.EDIT_PATH_INVALID


async def test_a_patch_is_never_applied_in_part(project: GitProject) -> None:
    good = b"--- a/docs/guide.md\n+++ b/docs/guide.md\n@@ -1 +1 @@\n-guide\n+manual\n"
    bad = b"--- a/app.py\n+++ b/app.py\n@@ -3 +3 @@\n-other\n+new\n"
    refused = await refusal(project, Patch(diff=good + bad))
    assert refused.reason is Reason.PATCH_DOES_NOT_APPLY
    assert project.left_in_state() == []
