"""Code is read as it is kept, whatever it is called and whatever it says of itself."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path

import pytest

from att_server.adapters.git import GitRepository
from att_server.adapters.git.code import GitCodeReader
from att_server.adapters.git.code_search import MAX_FILE_BYTES, MAX_LINE_BYTES
from att_server.core.code_reader import Matches
from att_server.core.repository import RepositoryError, RepositoryFailure
from tests.contract.git_projects import BASE_FILES, GitProject, Special, git, make_project

MIB = 1 << 20
LONG = timedelta(seconds=30)
LINE_AFTER_LINE = b"".join(b"line %d\n" % number for number in range(1, 1001))


@pytest.fixture
async def project(tmp_path: Path) -> GitProject:
    return await make_project(tmp_path)


def reader_of(project: GitProject) -> GitCodeReader:
    return GitRepository(project.git, project.state, project.facts).code


async def committed(
    project: GitProject, files: Mapping[str, bytes | Special | None]
) -> tuple[GitCodeReader, str]:
    """A reader, and a commit on the base with these files, brought here."""
    reader = reader_of(project)
    sha = project.commit_on_remote(files)
    assert await reader.commit(sha) == sha
    return reader, sha


async def listed(
    reader: GitCodeReader, tree: str, *, directory: str = "", after: str = "", limit: int = 1000
) -> list[str]:
    files = await reader.files(tree, directory=directory, after=after, limit=limit)
    assert files is not None
    return [file.path for file in files]


async def content(
    reader: GitCodeReader, tree: str, path: str, *, first: int = 1, limit: int = 0, most: int = MIB
) -> tuple[bytes, bool]:
    part = await reader.read(tree, path, first_line=first, line_limit=limit, max_bytes=most)
    assert part is not None
    return part.content, part.has_more


async def found(
    reader: GitCodeReader, tree: str, pattern: str, *, directory: str = "", limit: int = 100
) -> list[tuple[str, int, bytes]]:
    answer = await reader.search(tree, pattern, directory=directory, limit=limit, within=LONG)
    assert isinstance(answer, Matches)
    return [(match.path, match.line_number, match.line) for match in answer.matches]


# Revisions -------------------------------------------------------------------


async def test_a_branch_is_what_it_is_at_now(project: GitProject) -> None:
    reader = reader_of(project)
    assert await reader.resolve("main") == project.base
    moved = project.commit_on_remote({"new.py": b""})
    assert await reader.resolve("main") == moved
    assert await listed(reader, moved) == sorted([*BASE_FILES, "new.py"])


@pytest.mark.parametrize("annotated", [False, True])
async def test_a_tag_is_the_commit_that_it_names(project: GitProject, annotated: bool) -> None:
    sha = project.commit_on_remote({"new.py": b""}, branch="topic")
    options = ["-a", "-m", "Release"] if annotated else []
    git(project.remote, "tag", *options, "v1.0", sha)
    git(project.remote, "branch", "-q", "-D", "topic")
    assert await reader_of(project).resolve("v1.0") == sha


async def test_a_branch_comes_before_a_tag_of_its_name(project: GitProject) -> None:
    git(project.remote, "tag", "both", project.base)
    sha = project.commit_on_remote({"new.py": b""}, branch="both")
    assert await reader_of(project).resolve("both") == sha


async def test_a_name_that_only_ends_like_one_is_not_found(project: GitProject) -> None:
    project.commit_on_remote({"x": b""}, branch="topic/main2")
    reader = reader_of(project)
    assert await reader.resolve("main2") is None
    assert await reader.resolve("nothing") is None


async def test_a_tag_of_something_else_than_a_commit_is_no_revision(project: GitProject) -> None:
    blob = git(project.remote, "hash-object", "-w", "--stdin", input=b"text")
    git(project.remote, "tag", "odd", blob)
    assert await reader_of(project).resolve("odd") is None


async def test_a_commit_that_nobody_has_is_none(project: GitProject) -> None:
    assert await reader_of(project).commit("1" * 40) is None


async def test_a_remote_that_is_gone_is_told_and_what_is_here_can_be_read(
    project: GitProject,
) -> None:
    project.remote.rename(project.remote.with_name("elsewhere"))
    reader = reader_of(project)
    with pytest.raises(RepositoryError) as caught:
        await reader.resolve("main")
    assert caught.value.failure is RepositoryFailure.REMOTE_NOT_FOUND
    assert await reader.commit(project.base) == project.base
    assert await listed(reader, project.base) == sorted(BASE_FILES)


# Files -----------------------------------------------------------------------


async def test_files_are_told_as_what_they_are(project: GitProject) -> None:
    reader, sha = await committed(
        project,
        {
            "link": Special("120000", "../../etc/passwd"),
            "module": Special("160000", "1" * 40),
            "empty": b"",
        },
    )
    files = await reader.files(sha, directory="", after="", limit=100)
    assert files is not None
    told = {f.path: (f.size_bytes, f.executable, f.symlink) for f in files}
    assert told == {
        "app.py": (len(BASE_FILES["app.py"]), False, False),
        "bin/run": (len(BASE_FILES["bin/run"]), True, False),
        "docs/guide.md": (len(BASE_FILES["docs/guide.md"]), False, False),
        "empty": (0, False, False),
        "link": (16, False, True),
    }


async def test_pages_hold_every_file_once_by_the_bytes_of_their_paths(
    project: GitProject,
) -> None:
    names = ["a", "a-b", "a.b", "a/z", "a/é", "a0", "B", "ä", "日本", "z/y/x", "z/y.x"]
    names.remove("a")
    reader, sha = await committed(project, dict.fromkeys(names, b"x"))
    pages: list[str] = []
    after = ""
    while page := await listed(reader, sha, after=after, limit=3):
        assert len(page) <= 3
        pages += page
        after = page[-1]
    assert pages == sorted([*names, *BASE_FILES], key=str.encode)


async def test_a_directory_holds_what_is_below_it_and_nothing_beside(project: GitProject) -> None:
    reader, sha = await committed(project, {"docs-more/x": b"", "docs/a/b": b"", "docs.md": b""})
    assert await listed(reader, sha, directory="docs") == ["docs/a/b", "docs/guide.md"]
    assert await listed(reader, sha, directory="docs/a") == ["docs/a/b"]
    assert await listed(reader, sha, directory="docs", after="docs/a/b") == ["docs/guide.md"]


@pytest.mark.parametrize("path", ["doc", "app.py", "app.py/x", "nothing", "*", ":(top)docs", "-r"])
async def test_what_is_no_directory_is_not_listed(project: GitProject, path: str) -> None:
    reader = reader_of(project)
    assert await reader.files(project.base, directory=path, after="", limit=1) is None
    assert await reader.search(project.base, "x", directory=path, limit=1, within=LONG) is None


@pytest.mark.parametrize(
    "name",
    [
        "with space", "new\nline", "tab\tname", 'quo"te', "back\\slash", "-option", "*glob?[x]",
        ":(exclude)x", "größe", "\udcff\udcfe", "e\u0301", "n" * 250, "#", "a\x7f", "\u202eevil",
    ],
)  # fmt: skip
async def test_a_file_of_any_name_is_listed_found_and_read(project: GitProject, name: str) -> None:
    tree = tree_with(project, name.encode(errors="surrogateescape"), b"needle\n")
    reader = reader_of(project)
    assert await listed(reader, tree) == [name]
    assert await content(reader, tree, name) == (b"needle\n", False)
    assert await found(reader, tree, "needle") == [(name, 1, b"needle")]
    assert await listed(reader, tree, after=name) == []


async def test_a_tree_that_is_not_here_is_told(project: GitProject) -> None:
    with pytest.raises(RepositoryError) as caught:
        await listed(reader_of(project), "1" * 40)
    assert caught.value.failure is RepositoryFailure.NOT_FOUND


# Content ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("first", "limit", "lines", "has_more"),
    [
        (1, 0, range(1, 1001), False),
        (1, 1, range(1, 2), True),
        (999, 2, range(999, 1001), False),
        (999, 1, range(999, 1000), True),
        (500, 3, range(500, 503), True),
        (1000, 10, range(1000, 1001), False),
        (1001, 1, range(0), False),
        (2**31 - 1, 2**31 - 1, range(0), False),
    ],
)
async def test_lines_are_those_that_were_asked_for(
    project: GitProject, first: int, limit: int, lines: range, has_more: bool
) -> None:
    reader, sha = await committed(project, {"long.txt": LINE_AFTER_LINE})
    expected = b"".join(b"line %d\n" % number for number in lines)
    assert await content(reader, sha, "long.txt", first=first, limit=limit) == (expected, has_more)


async def test_going_on_line_by_line_reads_the_whole_file(project: GitProject) -> None:
    kept = LINE_AFTER_LINE + b"the last without an end"
    reader, sha = await committed(project, {"long.txt": kept})
    parts, first, more = b"", 1, True
    while more:
        part, more = await content(reader, sha, "long.txt", first=first, most=1000)
        assert 0 < len(part) <= 1000
        parts += part
        first += part.count(b"\n")
    assert parts == kept


@pytest.mark.parametrize(
    "kept",
    [b"", b"\n", b"a\r\nb\rc\n", bytes(range(256)) * 4, b"\xef\xbb\xbfbom\n", b"x" * 5000],
)
async def test_content_is_byte_for_byte_as_it_is_kept(project: GitProject, kept: bytes) -> None:
    reader, sha = await committed(project, {"file": kept})
    assert await content(reader, sha, "file") == (kept, False)


async def test_a_line_that_is_too_long_is_cut_and_can_be_passed(project: GitProject) -> None:
    reader, sha = await committed(project, {"file": b"x" * 5000 + b"\nnext\n"})
    assert await content(reader, sha, "file", most=1000) == (b"x" * 1000, True)
    assert await content(reader, sha, "file", first=2, most=1000) == (b"next\n", False)


async def test_a_huge_file_is_read_in_parts(project: GitProject) -> None:
    reader, sha = await committed(project, {"huge": b"0123456789abcde\n" * (100 * MIB // 16)})
    part, more = await content(reader, sha, "huge")
    assert (len(part), more) == (MIB, True)
    last = 100 * MIB // 16
    assert await content(reader, sha, "huge", first=last) == (b"0123456789abcde\n", False)


async def test_of_a_link_the_target_is_read_and_never_what_it_names(project: GitProject) -> None:
    reader, sha = await committed(project, {"link": Special("120000", "app.py")})
    assert await content(reader, sha, "link") == (b"app.py", False)


@pytest.mark.parametrize(
    "path", ["docs", "module", "nothing", "link/x", "app.py/", "*.py", "APP.PY"]
)
async def test_what_is_no_file_is_not_read(project: GitProject, path: str) -> None:
    reader, sha = await committed(
        project, {"module": Special("160000", "1" * 40), "link": Special("120000", "docs")}
    )
    assert await reader.read(sha, path, first_line=1, line_limit=0, max_bytes=MIB) is None


# Search ----------------------------------------------------------------------


async def test_lines_that_match_are_told_by_path_and_number(project: GitProject) -> None:
    reader, sha = await committed(
        project, {"a.py": b"one\ntwo needle\n\nneedle needle\n", "b/c.py": b"needle"}
    )
    assert await found(reader, sha, "needle") == [
        ("a.py", 2, b"two needle"),
        ("a.py", 4, b"needle needle"),
        ("b/c.py", 1, b"needle"),
    ]
    assert await found(reader, sha, "needle", directory="b") == [("b/c.py", 1, b"needle")]


@pytest.mark.parametrize(
    ("pattern", "lines"),
    [
        ("^b", [2]),
        ("a$", [1, 4]),
        ("^$", [3]),
        ("(?i)BB", [2]),
        ("a[^x]*b", []),
        ("a\\s+b", []),
        ("a\\nb", []),
        ("^a|b$", [1, 2, 4]),
        ("", [1, 2, 3, 4]),
        ("z*", [1, 2, 3, 4]),
        (".", [1, 2, 4]),
        ("\\x{e9}", []),
    ],
)
async def test_a_pattern_is_about_single_lines(
    project: GitProject, pattern: str, lines: list[int]
) -> None:
    for ends in (b"aa\nbb\n\na\n", b"aa\r\nbb\r\n\r\na\r\n", b"aa\nbb\n\na"):
        reader, sha = await committed(project, {"one/file": ends})
        answer = await found(reader, sha, pattern, directory="one")
        assert [number for _, number, _ in answer] == lines


async def test_numbers_are_right_far_into_a_file(project: GitProject) -> None:
    lines = [b"%d %s" % (n, b"x" * (n % 97)) for n in range(1, 20_001)]
    reader, sha = await committed(project, {"long": b"\n".join(lines)})
    answer = await found(reader, sha, "^[0-9]*000 ", limit=1000)
    assert [number for _, number, _ in answer] == list(range(1000, 20_001, 1000))
    assert all(line.startswith(b"%d " % number) for _, number, line in answer)


async def test_binary_files_links_and_very_large_files_are_not_searched(
    project: GitProject,
) -> None:
    reader, sha = await committed(
        project,
        {
            "binary": b"needle\0\nneedle\n",
            "link": Special("120000", "needle"),
            "large": b"needle\n" * (MAX_FILE_BYTES // 7 + 1),
            "plain": b"needle \xff\xfe\n",
        },
    )
    assert await found(reader, sha, "needle") == [("plain", 1, b"needle \xff\xfe")]


async def test_a_long_line_is_cut_and_many_matches_too(project: GitProject) -> None:
    reader, sha = await committed(project, {"x": (b"y" * 5000 + b"needle\n") * 10})
    answer = await reader.search(sha, "needle", directory="", limit=3, within=LONG)
    assert answer is not None
    assert [len(match.line) for match in answer.matches] == [MAX_LINE_BYTES] * 3
    assert answer.truncated
    exactly = await reader.search(sha, "needle", directory="", limit=10, within=LONG)
    assert exactly is not None
    assert (len(exactly.matches), exactly.truncated) == (10, False)


async def test_a_search_that_is_out_of_time_tells_that_there_may_be_more(
    project: GitProject,
) -> None:
    reader, sha = await committed(project, {"x": b"needle\n"})
    answer = await reader.search(sha, "needle", directory="", limit=3, within=timedelta())
    assert answer is not None
    assert answer.truncated


# Differences -----------------------------------------------------------------


async def test_a_difference_is_a_patch_that_makes_one_tree_of_the_other(
    project: GitProject, tmp_path: Path
) -> None:
    reader, sha = await committed(
        project,
        {
            "app.py": BASE_FILES["app.py"].replace(b"line 3\n", b"line three\r\n"),
            "docs/guide.md": None,
            "new/file": b"no end",
            "link": Special("120000", "app.py"),
        },
    )
    difference = await reader.diff(project.base, sha, paths=(), max_bytes=MIB)
    assert not difference.truncated
    project.checkout.joinpath(".git/info/attributes").write_text("* -text\n")
    git(project.checkout, "reset", "-q", "--hard", project.base)
    git(project.checkout, "apply", "--index", "-", input=difference.diff)
    written = git(project.checkout, "write-tree")
    assert written == git(project.remote, "rev-parse", f"{sha}^{{tree}}")


async def test_a_difference_of_paths_is_of_those_alone(project: GitProject) -> None:
    reader, sha = await committed(project, {"app.py": b"", "docs/guide.md": b"", "*": b"x\n"})
    for paths, shown in ((["docs"], {b"docs/guide.md"}), (["*"], {b"*"}), (["nothing"], set())):
        difference = await reader.diff(project.base, sha, paths=paths, max_bytes=MIB)
        names = {
            line[6:]
            for line in difference.diff.splitlines()
            if line.startswith((b"+++ b/", b"--- a/"))
        }
        assert names == shown


async def test_a_large_difference_is_cut_behind_a_line(project: GitProject) -> None:
    reader, sha = await committed(project, {"long": LINE_AFTER_LINE})
    difference = await reader.diff(project.base, sha, paths=(), max_bytes=1000)
    assert difference.truncated
    assert 900 < len(difference.diff) <= 1000
    assert difference.diff.endswith(b"\n")


async def test_of_binary_and_huge_files_it_only_says_that_they_differ(
    project: GitProject,
) -> None:
    reader, sha = await committed(project, {"binary": b"\0\1", "huge": b"line\n" * (4 * MIB)})
    difference = await reader.diff(project.base, sha, paths=(), max_bytes=MIB)
    assert difference.diff.count(b"Binary files") == 2
    assert len(difference.diff) < 1000


async def test_equal_trees_do_not_differ(project: GitProject) -> None:
    difference = await reader_of(project).diff(project.base, project.base, paths=(), max_bytes=MIB)
    assert (difference.diff, difference.truncated) == (b"", False)


# Hostile code ----------------------------------------------------------------


async def test_nothing_that_attributes_or_settings_name_is_run(
    project: GitProject, tmp_path: Path
) -> None:
    ran = tmp_path / "ran"
    attributes = b"* filter=evil diff=evil merge=evil text eol=crlf ident working-tree-encoding=x\n"
    reader, sha = await committed(
        project, {".gitattributes": attributes, "app.py": b"$Id$\nneedle\n", "bin/run": b"new\n"}
    )
    evil = f"touch {ran};cat"
    # What tests of a cycle, which run in a worktree of it, may have left there.
    repository = project.state / "repository.git"
    with (repository / "config").open("a") as config:
        for section, keys in {
            'filter "evil"': ("clean", "smudge", "process"),
            'diff "evil"': ("command", "textconv"),
            "diff": ("external",),
            "core": ("fsmonitor", "pager", "sshCommand"),
        }.items():
            config.write(f"[{section}]\n" + "".join(f"\t{key} = {evil}\n" for key in keys))
    (repository / "info" / "attributes").write_text("* diff=evil filter=evil\n")
    settings = (repository / "config").read_text()

    assert await content(reader, sha, "app.py") == (b"$Id$\nneedle\n", False)
    # As somebody does who writes it anew all the time.
    (repository / "config").write_text(settings)
    assert [path for path, _, _ in await found(reader, sha, "needle")] == ["app.py"]
    (repository / "config").write_text(settings)
    (repository / "info" / "attributes").write_text("* diff=evil filter=evil\n")
    difference = await reader.diff(project.base, sha, paths=(), max_bytes=MIB)
    assert b"+needle\n" in difference.diff
    assert not ran.exists()


async def test_the_arguments_keep_drivers_from_running_even_with_hostile_settings(
    project: GitProject, tmp_path: Path
) -> None:
    ran = tmp_path / "ran"
    _, sha = await committed(project, {"app.py": b"needle\n"})
    hostile = tmp_path / "hostile.git"
    git(tmp_path, "clone", "-q", "--bare", str(project.remote), str(hostile))
    (hostile / "info").mkdir(exist_ok=True)
    (hostile / "info" / "attributes").write_text("* diff=evil\n")
    with (hostile / "config").open("a") as config:
        config.write(f'[diff "evil"]\n\tcommand = touch {ran}\n\ttextconv = touch {ran}\n')
        config.write(f"[diff]\n\texternal = touch {ran}\n")
    reader = reader_of(project)
    arguments = reader.diff_arguments([project.base, sha], [])
    answer = await project.git.run(*arguments, directory=hostile, env={"GIT_DIR": str(hostile)})
    assert b"+needle\n" in answer.output
    assert not ran.exists()


async def test_a_deeply_nested_tree_is_listed(project: GitProject) -> None:
    path = "/".join(["d"] * 500) + "/leaf"
    reader, sha = await committed(project, {path: b"needle\n"})
    assert path in await listed(reader, sha)
    assert await found(reader, sha, "needle") == [(path, 1, b"needle")]


async def test_many_files_are_paged_and_searched(project: GitProject) -> None:
    files = {f"many/{number:05}": b"%d\n" % number for number in range(5000)}
    reader, sha = await committed(project, files)
    page = await listed(reader, sha, directory="many", after="many/04997")
    assert page == ["many/04998", "many/04999"]
    assert await found(reader, sha, "^4999$") == [("many/04999", 1, b"4999")]


def tree_with(project: GitProject, name: bytes, content: bytes) -> str:
    """A tree with one file, in the repository that ATT keeps."""
    kept = project.state / "repository.git"
    blob = git(kept, "hash-object", "-w", "--stdin", input=content)
    entry = b"100644 blob " + blob.encode() + b"\t" + name + b"\0"
    return git(kept, "mktree", "-z", input=entry)
