"""Which release is deployed, and which was before: what each source says, and who is believed."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from att_server.core.releases import Release, previous_good

MAX_RELEASE_ID_LENGTH = 128

_MENTION = re.compile(rb"(?<![\w.-])(previous_release_id|release_id)=[\"']?([^\s\"',;]+)")
_RELEASE_ID = re.compile(r"[0-9A-Za-z](?:[\w.+:/@-]*[0-9A-Za-z])?", re.ASCII)


class MetadataSource(StrEnum):
    """Where an id came from, in the order of belief: the first that knows wins.

    GIT only tells commits apart. That a release is good, only its state in the
    registry says, whatever source named it.
    """

    REQUEST = "request"
    REGISTRY = "registry"
    RUNTIME_LOGS = "runtime_logs"
    PROVIDER = "provider"
    GIT = "git"


@dataclass(frozen=True, slots=True, kw_only=True)
class ReleaseMetadata:
    """What one source knows. An empty id: it does not know."""

    release_id: str = ""
    previous_release_id: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class NamedRelease:
    """The id of a release, and who named it. Raises ValueError for an empty id."""

    release_id: str
    source: MetadataSource

    def __post_init__(self) -> None:
        if not self.release_id:
            raise ValueError("a release is named by an id that is not empty")


@dataclass(frozen=True, slots=True, kw_only=True)
class Disagreement:
    """A source that knows another id than the one that is believed.

    field: `release_id` or `previous_release_id`.
    """

    field: str
    believed: NamedRelease
    other: NamedRelease


@dataclass(frozen=True, slots=True, kw_only=True)
class ResolvedMetadata:
    """What is believed, field by field; None: no source knows."""

    release_id: NamedRelease | None
    previous_release_id: NamedRelease | None
    disagreements: tuple[Disagreement, ...]


def is_release_id(text: str) -> bool:
    """Whether a release can have this id: a commit's, or what an external context calls it."""
    return len(text) <= MAX_RELEASE_ID_LENGTH and _RELEASE_ID.fullmatch(text) is not None


def resolve(answers: Mapping[MetadataSource, ReleaseMetadata]) -> ResolvedMetadata:
    """Takes each field from the first source that knows it.

    answers: of the sources that were asked, in any order.
    """
    release_id, first = _resolve(
        "release_id", {source: answer.release_id for source, answer in answers.items()}
    )
    previous_release_id, second = _resolve(
        "previous_release_id",
        {source: answer.previous_release_id for source, answer in answers.items()},
    )
    return ResolvedMetadata(
        release_id=release_id,
        previous_release_id=previous_release_id,
        disagreements=(*first, *second),
    )


def rollback_target(*, rollback_release_id: str, metadata: ResolvedMetadata) -> NamedRelease | None:
    """The release to return to: the one that is asked for, else the one before.

    rollback_release_id: the request's; empty: it names none.
    """
    if rollback_release_id:
        return NamedRelease(release_id=rollback_release_id, source=MetadataSource.REQUEST)
    return metadata.previous_release_id


def registry_metadata(
    releases: Collection[Release], *, deployed_release_id: str
) -> ReleaseMetadata:
    """What the registry knows of a project whose deployed release has this id.

    deployed_release_id: empty if none is. The one before is the last that was proven good.
    """
    previous = previous_good(releases, deployed_release_id)
    return ReleaseMetadata(
        release_id=deployed_release_id,
        previous_release_id=previous.release_id if previous is not None else "",
    )


def logged_metadata(lines: Sequence[bytes]) -> ReleaseMetadata:
    """What an app prints of itself: `release_id=ID` and `previous_release_id=ID`.

    lines: recent ones, oldest first. The newest mention of each counts, up to
    where another release begins to speak: what that one says of its own past is
    not this one's. What does not look like an id counts as not printed.
    """
    release_id = previous_release_id = ""
    for line in reversed(lines):
        found = _mentions(line)
        if release_id and found.release_id not in ("", release_id):
            break
        release_id = release_id or found.release_id
        previous_release_id = previous_release_id or found.previous_release_id
    return ReleaseMetadata(release_id=release_id, previous_release_id=previous_release_id)


def release_id_or_none(text: str) -> str | None:
    """`text` if it looks like the id of a release."""
    fits = len(text) <= MAX_RELEASE_ID_LENGTH and _RELEASE_ID.fullmatch(text)
    return text if fits else None


def _resolve(
    field: str, ids: Mapping[MetadataSource, str]
) -> tuple[NamedRelease | None, list[Disagreement]]:
    named = [
        NamedRelease(release_id=ids[source], source=source)
        for source in MetadataSource
        if ids.get(source)
    ]
    if not named:
        return None, []
    believed, *others = named
    return believed, [
        Disagreement(field=field, believed=believed, other=other)
        for other in others
        if other.release_id != believed.release_id
    ]


def _mentions(line: bytes) -> ReleaseMetadata:
    """The last mention of each id in a line."""
    found: dict[bytes, str] = {}
    for name, value in _MENTION.findall(line):
        text = release_id_or_none(value.decode("ascii", "replace").rstrip(".:)]}>"))
        if text is not None:
            found[name] = text
    return ReleaseMetadata(
        release_id=found.get(b"release_id", ""),
        previous_release_id=found.get(b"previous_release_id", ""),
    )
