"""`att.code.*`: the code as it is deployed, or at any revision. It changes nothing."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from att_client import CodeRevision
from att_client.mcp.call import Call
from att_client.mcp.text import cut, decoded, one_line
from att_client.mcp.tool import Effect, OfProject, Output, Tool

_MOST_CHARACTERS = 40_000
_LONGEST_MATCH = 300

Revision = Annotated[
    str,
    Field(description="commit sha, branch, tag, release:ID or cycle:ID; default: what is deployed"),
]
Other = Annotated[str, Field(description="as revision of att.code.read")]


class OfTree(OfProject):
    """Arguments that name a tree."""

    revision: Other = ""


class List(OfTree):
    """Arguments of a list."""

    directory: str = ""
    page_token: Annotated[str, Field(description="next_page_token of the page before")] = ""


class Read(OfProject):
    """Arguments of a reading."""

    path: str
    revision: Revision = ""
    first_line: Annotated[int, Field(ge=1)] = 1
    line_limit: Annotated[int, Field(ge=1, le=2000)] = 500


class Search(OfTree):
    """Arguments of a search."""

    pattern: Annotated[str, Field(description="RE2, matched anywhere in a line")]
    directory: str = ""
    limit: Annotated[int, Field(ge=1, le=200)] = 50


class Diff(OfProject):
    """Arguments of a comparison."""

    base: Other
    head: Other = ""
    paths: list[str] | None = None


class Files(Output):
    """A page of files."""

    files: list[str]
    commit_sha: str
    next_page_token: str | None = None


class Content(Output):
    """A part of a file."""

    text: str
    commit_sha: str
    first_line: int
    has_more: bool
    next_line: int | None = None
    altered: Annotated[
        bool | None, Field(description="characters that cannot be shown were left out")
    ] = None


class Matches(Output):
    """Lines that match."""

    matches: Annotated[list[str], Field(description="path:line: text")]
    commit_sha: str
    truncated: bool


class Difference(Output):
    """A unified diff."""

    diff: str
    base_commit_sha: str
    head_commit_sha: str
    truncated: bool


def revision(named: str) -> CodeRevision | None:
    """The tree that `named` means; None for what is deployed."""
    kind, _, name = named.partition(":")
    if kind == "release" and name:
        return CodeRevision(release_id=name)
    if kind == "cycle" and name:
        return CodeRevision(cycle_id=name)
    return CodeRevision(commit=named) if named else None


async def _list(call: Call, given: List) -> Files:
    files = call.att.code.files(
        given.project, at=revision(given.revision), directory=given.directory, page_size=200
    )
    page = await anext(files.pages(given.page_token))
    return Files(
        files=[one_line(file.path) for file in page.files],
        commit_sha=page.commit_sha,
        next_page_token=page.next_page_token or None,
    )


async def _read(call: Call, given: Read) -> Content:
    part = await call.att.code.read(
        given.project,
        given.path,
        at=revision(given.revision),
        first_line=given.first_line,
        line_limit=given.line_limit,
    )
    whole = decoded(part.content)
    text, is_cut = _whole_lines(whole)
    has_more = part.has_more or is_cut
    return Content(
        text=text,
        commit_sha=part.commit_sha,
        first_line=given.first_line,
        has_more=has_more,
        next_line=given.first_line + text.count("\n") if has_more else None,
        altered=whole.encode() != part.content or None,
    )


def _whole_lines(text: str) -> tuple[str, bool]:
    """As many whole lines as there is room for, and whether that is not all of them."""
    if len(text) <= _MOST_CHARACTERS:
        return text, False
    end = text.rfind("\n", 0, _MOST_CHARACTERS)
    if end < 0:
        line, _, rest = text.partition("\n")
        return cut(line, _MOST_CHARACTERS) + "\n", bool(rest)
    return text[: end + 1], True


async def _search(call: Call, given: Search) -> Matches:
    found = await call.att.code.search(
        given.project,
        given.pattern,
        at=revision(given.revision),
        directory=given.directory,
        limit=given.limit,
    )
    return Matches(
        matches=[
            f"{one_line(m.path)}:{m.line_number}: {cut(decoded(m.line), _LONGEST_MATCH)}"
            for m in found.matches
        ],
        commit_sha=found.commit_sha,
        truncated=found.truncated,
    )


async def _diff(call: Call, given: Diff) -> Difference:
    found = await call.att.code.diff(
        given.project,
        base=revision(given.base),
        head=revision(given.head),
        paths=given.paths or (),
    )
    text = decoded(found.diff)
    return Difference(
        diff=cut(text, _MOST_CHARACTERS),
        base_commit_sha=found.base_commit_sha,
        head_commit_sha=found.head_commit_sha,
        truncated=found.truncated or len(text) > _MOST_CHARACTERS,
    )


TOOLS = (
    Tool(
        name="att.code.list",
        description="Paths of the files of a project's tree.",
        arguments=List,
        output=Files,
        effect=Effect.READS,
        run=_list,
    ),
    Tool(
        name="att.code.read",
        description="Read a file, from first_line on.",
        arguments=Read,
        output=Content,
        effect=Effect.READS,
        run=_read,
    ),
    Tool(
        name="att.code.search",
        description="Find lines that match a pattern.",
        arguments=Search,
        output=Matches,
        effect=Effect.READS,
        run=_search,
    ),
    Tool(
        name="att.code.diff",
        description="What leads from one revision to another.",
        arguments=Diff,
        output=Difference,
        effect=Effect.READS,
        run=_diff,
    ),
)
