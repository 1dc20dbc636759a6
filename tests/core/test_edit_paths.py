"""A change touches only files of the tree, whatever its paths look like to some file system."""

from __future__ import annotations

import posixpath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from att_server.core import edit_paths
from att_server.core.edit_paths import check_edits, check_size, path_violation
from att_server.core.errors import AttError, Reason
from att_server.core.repository import DeleteFile, FileEdit, SetMode, WriteFile


@pytest.mark.parametrize(
    "path",
    [
        "app.py", "a/b/c.txt", ".gitignore", ".gitattributes", ".github/workflows/ci.yml",
        "git", "x.git", ".git2", "a:b", "with space.txt", "ünïcode/名前", "-x", "--upload-pack=x",
        "...", "..a", "a..", "git~", "name~1", "x" * 255, "/".join(["y" * 200] * 20),
    ],
)  # fmt: skip
def test_a_path_of_the_tree_may_be_touched(path: str) -> None:
    assert path_violation(path) is None


@pytest.mark.parametrize(
    "path",
    [
        "", "/", "/etc/passwd", "..", "../x", "a/../b", "a/..", "./a", "a/.", "a//b", "a/",
        ".git", ".git/config", "a/.git/hooks/x", ".GIT/config", ".Git", ".git ", ".git.",
        ".git . .", "git~1", "GIT~1/config", "git~2", ".g\u200cit/config", ".git\u200d",
        "\ufeff.git", ".gi\u00adt", "\u202e.git", "\uff0egit", ".ｇｉｔ", ".git::$INDEX_ALLOCATION",
        ".git:x/config", "git~1:x", "a\\b", ".git\\config", "..\\x", "C:\\x", "\\\\host\\x", "a\0b",
        "a\nb", "a\x7f", "a\x1b[2J", "a\u0085b", "\ud800", "x" * 256, "é" * 128,
        "/".join(["y" * 200] * 21), "n" * 300,
    ],
)  # fmt: skip
def test_a_path_that_is_not_only_of_the_tree_is_refused(path: str) -> None:
    assert path_violation(path) is not None
    with pytest.raises(AttError) as refused:
        check_edits([WriteFile(path=path, content=b"")])
    assert refused.value.reason is Reason.EDIT_PATH_INVALID
    refused.value.message.encode()


_IGNORED = "\u200b\u200c\u200d\u200e\u200f\u202a\u202e\u206a\u206f\ufeff\u00ad"


@given(st.data())
def test_no_spelling_of_git_is_let_through(data: st.DataObject) -> None:
    noise = st.text(alphabet=_IGNORED, max_size=3)
    spelled = "".join(
        data.draw(noise) + data.draw(st.sampled_from([letter, letter.upper()])) for letter in ".git"
    )
    spelled += data.draw(noise) + data.draw(st.text(alphabet=". ", max_size=4))
    spelled += data.draw(st.sampled_from(["", ":", ":x", "::$DATA"]))
    parts = data.draw(st.lists(st.sampled_from(["a", "src", "x.y"]), max_size=3))
    parts.insert(data.draw(st.integers(0, len(parts))), spelled)
    assert path_violation("/".join(parts)) is not None


@given(st.text(alphabet=st.sampled_from([*"ab./\\.:~ -", "\u200c", "\0", "\n"]), max_size=12))
def test_what_is_let_through_stays_below_the_top(path: str) -> None:
    if path_violation(path) is None:
        assert posixpath.normpath(f"/top/{path}") == f"/top/{path}"
        assert ".git" not in path.casefold().replace("\u200c", "").split("/")


@given(st.text())
def test_every_text_gets_an_answer_that_can_be_sent(path: str) -> None:
    (path_violation(path) or "").encode()


@pytest.mark.parametrize(
    "edits",
    [
        [DeleteFile(path="a"), WriteFile(path="a", content=b"")],
        [SetMode(path="a", executable=True), SetMode(path="a", executable=False)],
        [WriteFile(path="a", content=b""), WriteFile(path="a/b", content=b"")],
        [WriteFile(path="a/b/c", content=b""), SetMode(path="a", executable=True)],
    ],
)
def test_edits_that_contradict_each_other_are_refused(edits: list[FileEdit]) -> None:
    with pytest.raises(AttError) as refused:
        check_edits(edits)
    assert refused.value.reason is Reason.EDIT_PATH_INVALID


def test_a_file_may_make_room_for_a_directory() -> None:
    check_edits([DeleteFile(path="a"), WriteFile(path="a/b", content=b"")])


def test_a_change_of_the_largest_size_is_taken_and_no_larger_one() -> None:
    largest = [WriteFile(path=f"f{number}", content=b"") for number in range(edit_paths.MAX_FILES)]
    check_edits(largest)
    check_size(1, edit_paths.MAX_TOTAL_BYTES)
    for files, total in (
        (edit_paths.MAX_FILES + 1, 0),
        (1, edit_paths.MAX_TOTAL_BYTES + 1),
    ):
        with pytest.raises(AttError) as refused:
            check_size(files, total)
        assert refused.value.reason is Reason.EDIT_PATH_INVALID
    with pytest.raises(AttError):
        check_edits([*largest, DeleteFile(path="one more")])
