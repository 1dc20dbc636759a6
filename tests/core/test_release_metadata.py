"""Which release is believed to be deployed, and which before."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from att_server.core.release_metadata import (
    MAX_RELEASE_ID_LENGTH,
    Disagreement,
    MetadataSource,
    NamedRelease,
    ReleaseMetadata,
    logged_metadata,
    resolve,
    rollback_target,
)

SHA = "0123456789abcdef0123456789abcdef01234567"
ids = st.sampled_from(["", "a", "b", "c"])
answers = st.dictionaries(
    st.sampled_from(MetadataSource),
    st.builds(ReleaseMetadata, release_id=ids, previous_release_id=ids),
)


def named(release_id: str, source: MetadataSource) -> NamedRelease:
    return NamedRelease(release_id=release_id, source=source)


def test_sources_are_believed_in_the_order_of_the_contract() -> None:
    assert list(MetadataSource) == ["request", "registry", "runtime_logs", "provider", "git"]


def test_each_field_is_taken_from_the_first_source_that_knows_it() -> None:
    resolved = resolve(
        {
            MetadataSource.GIT: ReleaseMetadata(release_id="head", previous_release_id="before"),
            MetadataSource.REGISTRY: ReleaseMetadata(release_id="r"),
            MetadataSource.PROVIDER: ReleaseMetadata(release_id="p", previous_release_id="before"),
        }
    )
    assert resolved.release_id == named("r", MetadataSource.REGISTRY)
    assert resolved.previous_release_id == named("before", MetadataSource.PROVIDER)
    assert resolved.disagreements == (
        Disagreement(
            field="release_id",
            believed=named("r", MetadataSource.REGISTRY),
            other=named("p", MetadataSource.PROVIDER),
        ),
        Disagreement(
            field="release_id",
            believed=named("r", MetadataSource.REGISTRY),
            other=named("head", MetadataSource.GIT),
        ),
    )


def test_what_no_source_knows_is_not_known() -> None:
    resolved = resolve({MetadataSource.GIT: ReleaseMetadata()})
    assert resolved.release_id is None
    assert resolved.previous_release_id is None
    assert resolved.disagreements == ()


@given(answers)
def test_nobody_before_the_believed_source_knows_and_all_others_are_reported(
    answers: dict[MetadataSource, ReleaseMetadata],
) -> None:
    resolved = resolve(answers)
    order = list(MetadataSource)
    for field in ("release_id", "previous_release_id"):
        said = {
            source: getattr(answer, field)
            for source, answer in answers.items()
            if getattr(answer, field)
        }
        believed: NamedRelease | None = getattr(resolved, field)
        assert (believed is None) == (not said)
        if believed is None:
            continue
        assert believed.source == min(said, key=order.index)
        assert believed.release_id == said[believed.source]
        reported = {
            each.other.source: each.other.release_id
            for each in resolved.disagreements
            if each.field == field
        }
        assert reported == {
            source: release_id
            for source, release_id in said.items()
            if release_id != believed.release_id
        }


def test_the_request_names_the_target_before_all_others() -> None:
    metadata = resolve({MetadataSource.REGISTRY: ReleaseMetadata(previous_release_id="r")})
    asked = rollback_target(rollback_release_id="x", metadata=metadata)
    assert asked == named("x", MetadataSource.REQUEST)
    found = rollback_target(rollback_release_id="", metadata=metadata)
    assert found == named("r", MetadataSource.REGISTRY)
    assert rollback_target(rollback_release_id="", metadata=resolve({})) is None


def test_a_release_is_not_named_by_nothing() -> None:
    with pytest.raises(ValueError, match="not empty"):
        named("", MetadataSource.GIT)


# Log lines ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "release_id", "previous_release_id"),
    [
        (b"release_id=%s" % SHA.encode(), SHA, ""),
        (b"previous_release_id=v1.2", "", "v1.2"),
        (b"up release_id=b previous_release_id=a\n", "b", "a"),
        (b"previous_release_id=a,release_id=b;", "b", "a"),
        (b"INFO release_id=\"b\" previous_release_id='a'", "b", "a"),
        (b"(release_id=v2).", "v2", ""),
        (b"release_id=one release_id=two", "two", ""),
        (b"release_id=", "", ""),
        (b"release_id= b", "", ""),
        (b"release_id: b", "", ""),
        (b"my_release_id=b", "", ""),
        (b"the.release_id=b", "", ""),
        (b"release_id=-rf", "", ""),
        (b"release_id=\xff\xfe", "", ""),
        (b"release_id=a\x00b", "", ""),
        (b"release_id=" + b"a" * (MAX_RELEASE_ID_LENGTH + 1), "", ""),
        (b"release_id=" + b"a" * MAX_RELEASE_ID_LENGTH, "a" * MAX_RELEASE_ID_LENGTH, ""),
        (b"", "", ""),
    ],
)
def test_a_line_says_what_it_says(line: bytes, release_id: str, previous_release_id: str) -> None:
    assert logged_metadata([line]) == ReleaseMetadata(
        release_id=release_id, previous_release_id=previous_release_id
    )


def test_the_newest_line_wins() -> None:
    assert logged_metadata([b"release_id=a", b"release_id=b", b"ready"]).release_id == "b"


def test_both_ids_may_stand_in_lines_of_their_own() -> None:
    expected = ReleaseMetadata(release_id="b", previous_release_id="a")
    assert logged_metadata([b"previous_release_id=a", b"release_id=b"]) == expected
    assert logged_metadata([b"release_id=b", b"previous_release_id=a"]) == expected


def test_what_an_earlier_release_said_of_its_past_is_not_this_ones() -> None:
    lines = [b"release_id=b previous_release_id=a", b"release_id=c"]
    assert logged_metadata(lines) == ReleaseMetadata(release_id="c")


@given(st.lists(st.binary(max_size=200)))
def test_any_output_can_be_read(lines: list[bytes]) -> None:
    logged_metadata(lines)
    logged_metadata([b"release_id=" + line for line in lines])
