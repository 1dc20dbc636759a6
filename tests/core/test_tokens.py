"""Tokens: made once, worthless when revoked or expired, kept without their secret."""

from __future__ import annotations

import string
import zlib
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import pytest

from att_server.core.errors import AttError, Reason
from att_server.core.identity import Caller, Role
from att_server.core.model import EventFilter
from att_server.core.tokens import DEFAULT_LIFETIME, MAX_LIFETIME, TokenManager
from att_server.testing import FakeClock, MemoryStateStore
from att_server.testing.tokens import MemoryTokens

DAY = timedelta(days=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    tokens: TokenManager
    kept: MemoryTokens
    events: MemoryStateStore
    clock: FakeClock

    async def mint(
        self, name: str = "ci", role: Role = Role.OPERATOR, lifetime: timedelta | None = 30 * DAY
    ) -> str:
        _, secret = await self.tokens.create(name, role, lifetime=lifetime, principal="local:7")
        return secret.reveal()

    async def refusal(self, text: str) -> AttError:
        with pytest.raises(AttError) as error:
            await self.tokens.caller(text)
        assert error.value.reason is Reason.UNAUTHENTICATED
        return error.value


@pytest.fixture
def stage() -> Stage:
    kept, events, clock = MemoryTokens(), MemoryStateStore(), FakeClock()
    return Stage(
        tokens=TokenManager(tokens=kept, events=events, clock=clock),
        kept=kept,
        events=events,
        clock=clock,
    )


@pytest.mark.parametrize("role", list(Role))
async def test_a_token_stands_for_its_name_and_role(stage: Stage, role: Role) -> None:
    text = await stage.mint("alice@example.org", role)
    caller = await stage.tokens.caller(text)
    assert caller == Caller(principal="token:alice@example.org", role=role)


async def test_a_token_says_what_it_is_and_has_256_bits_of_its_own(stage: Stage) -> None:
    first, second = await stage.mint("a"), await stage.mint("b")
    for text in (first, second):
        prefix, token_id, secret, crc = text.split("_")
        assert (prefix, len(token_id), len(secret), len(crc)) == ("att", 26, 64, 8)
        assert set(secret) <= set(string.hexdigits)
    assert first.split("_")[2] != second.split("_")[2]


async def test_neither_the_store_nor_an_event_holds_the_secret(stage: Stage) -> None:
    text = await stage.mint(lifetime=DAY)
    await stage.tokens.revoke("ci", principal="local:7")
    kept = repr(await stage.kept.tokens())
    events, _ = await stage.events.list_events(EventFilter(), cursor=0, limit=10)
    secret = text.split("_")[2]
    assert secret not in kept
    assert secret not in repr(events)
    assert text not in repr((await stage.tokens.create("b", Role.VIEWER, principal=""))[1])
    assert [(event.event_type, event.principal) for event in events] == [
        ("token.created", "local:7"),
        ("token.revoked", "local:7"),
    ]
    (token,) = [token for token in await stage.tokens.list() if token.name == "ci"]
    assert {**events[0].attributes} == {
        "token_id": token.token_id,
        "name": "ci",
        "role": "operator",
        "expire_time": (stage.clock.now() + DAY).isoformat(),
    }


async def test_whatever_is_wrong_with_a_token_the_answer_is_the_same(stage: Stage) -> None:
    good, expired, revoked = (
        await stage.mint("good"),
        await stage.mint("expired", lifetime=DAY),
        await stage.mint("revoked"),
    )
    await stage.tokens.revoke("revoked", principal="")
    stage.clock.advance(DAY)
    foreign = TokenManager(tokens=MemoryTokens(), events=stage.events, clock=FakeClock())
    _, unknown = await foreign.create("good", Role.ADMIN, principal="")
    answers = {
        (error.message, *error.metadata.items())
        for error in [
            await stage.refusal(expired),
            await stage.refusal(revoked),
            await stage.refusal(unknown.reveal()),
            await stage.refusal(with_secret_of(good, await stage.mint("other"))),
        ]
    }
    assert len(answers) == 1
    assert (await stage.tokens.caller(good)).principal == "token:good"


@pytest.mark.parametrize(
    "spoilt",
    [
        lambda text: "",
        lambda text: text[:-1],
        lambda text: text + "0",
        lambda text: text.upper(),
        lambda text: text.replace("att_", "atp_"),
        lambda text: text[:40] + ("1" if text[40] != "1" else "2") + text[41:],
        lambda text: text + "\n",
        lambda text: "att_" + "0" * 1_000_000,
        lambda text: text.replace("_", "\0"),
    ],
)
async def test_a_text_that_was_not_copied_whole_is_refused(stage: Stage, spoilt: object) -> None:
    assert callable(spoilt)
    text = await stage.mint()
    error = await stage.refusal(spoilt(text))
    assert "Copy it whole" in error.message
    assert text.split("_")[2] not in error.message


async def test_a_token_works_until_it_expires_and_not_after(stage: Stage) -> None:
    text = await stage.mint(lifetime=DAY)
    stage.clock.advance(DAY - timedelta(milliseconds=1))
    assert (await stage.tokens.caller(text)).principal == "token:ci"
    stage.clock.advance(timedelta(milliseconds=1))
    await stage.refusal(text)


async def test_what_another_process_revokes_is_worthless_within_a_second(stage: Stage) -> None:
    text = await stage.mint()
    await stage.tokens.caller(text)
    other = TokenManager(tokens=stage.kept, events=stage.events, clock=stage.clock)
    await other.revoke("ci", principal="")
    stage.clock.advance(timedelta(seconds=1))
    await stage.refusal(text)


async def test_a_token_can_be_revoked_by_its_id_and_again_without_effect(stage: Stage) -> None:
    text = await stage.mint()
    (revoked,) = await stage.tokens.revoke(text.split("_")[1], principal="")
    assert revoked.revoke_time == stage.clock.now()
    stage.clock.advance(DAY)
    assert await stage.tokens.revoke(revoked.token_id, principal="") == [revoked]
    with pytest.raises(AttError) as error:
        await stage.tokens.revoke("ci", principal="")
    assert error.value.reason is Reason.FIELD_INVALID


async def test_a_name_is_free_again_once_its_token_is_revoked(stage: Stage) -> None:
    first = await stage.mint()
    with pytest.raises(AttError) as error:
        await stage.mint(role=Role.ADMIN)
    assert error.value.reason is Reason.FIELD_INVALID
    await stage.tokens.revoke("ci", principal="")
    second = await stage.mint(role=Role.VIEWER)
    await stage.refusal(first)
    assert (await stage.tokens.caller(second)).role is Role.VIEWER


@pytest.mark.parametrize("name", ["", "A", "-a", "a b", "a\n", "ä", "a" * 65, "a/b", "local:0"])
async def test_a_name_that_could_be_read_as_another_is_refused(stage: Stage, name: str) -> None:
    with pytest.raises(AttError) as error:
        await stage.mint(name)
    assert [violation.field for violation in error.value.violations] == ["name"]
    assert await stage.tokens.list() == []


@pytest.mark.parametrize("lifetime", [timedelta(0), -DAY, MAX_LIFETIME + DAY])
async def test_a_lifetime_that_is_none_is_refused(stage: Stage, lifetime: timedelta) -> None:
    with pytest.raises(AttError) as error:
        await stage.mint(lifetime=lifetime)
    assert [violation.field for violation in error.value.violations] == ["expires"]


async def test_a_store_that_cannot_be_written_makes_no_token(stage: Stage) -> None:
    stage.kept.write_error = AttError(Reason.STORAGE_FULL, "full")
    with pytest.raises(AttError) as error:
        await stage.mint()
    assert error.value.reason is Reason.STORAGE_FULL
    assert await stage.tokens.list() == []


async def test_a_token_is_limited_to_its_projects_and_stands_for_its_owner(stage: Stage) -> None:
    _, secret = await stage.tokens.create(
        "laptop", Role.OPERATOR, owner="alice", projects=["web", "api"], principal="local:7"
    )
    caller = await stage.tokens.caller(secret.reveal())
    assert caller.principal == "token:alice"
    assert [caller.sees(name) for name in ("web", "api", "other", "")] == [True, True, False, False]
    # Whoever has two tokens is one principal, and decides on nothing of their own.
    _, other = await stage.tokens.create("desk", Role.APPROVER, owner="alice", principal="local:7")
    assert (await stage.tokens.caller(other.reveal())).principal == caller.principal


@pytest.mark.parametrize(
    ("given", "broken"),
    [
        ({"projects": []}, "projects"),
        ({"projects": ["../x"]}, "projects"),
        ({"projects": [f"p{number}" for number in range(101)]}, "projects"),
        ({"owner": "A B"}, "owner"),
        ({"lifetime": None, "role": Role.ADMIN}, "expires"),
        ({"lifetime": None, "role": Role.APPROVER}, "expires"),
    ],
)
async def test_what_no_token_may_have_is_refused(
    stage: Stage, given: dict[str, Any], broken: str
) -> None:
    wanted = {"role": Role.OPERATOR, **given}
    with pytest.raises(AttError) as error:
        await stage.tokens.create("ci", principal="", **wanted)
    assert [violation.field for violation in error.value.violations] == [broken]
    assert await stage.tokens.list() == []


async def test_a_token_ends_by_itself_unless_it_is_asked_not_to(stage: Stage) -> None:
    token, _ = await stage.tokens.create("ci", Role.VIEWER, principal="")
    assert token.expire_time == stage.clock.now() + DEFAULT_LIFETIME
    token, _ = await stage.tokens.create("forever", Role.VIEWER, lifetime=None, principal="")
    assert token.expire_time is None


async def test_a_rotated_token_works_on_for_the_overlap_and_has_one_name_with_the_new(
    stage: Stage,
) -> None:
    _, secret = await stage.tokens.create(
        "ci", Role.OPERATOR, owner="bot", projects=["web"], lifetime=DAY, principal=""
    )
    old = secret.reveal()
    token, secret = await stage.tokens.rotate("ci", overlap=timedelta(minutes=5), principal="")
    new = secret.reveal()
    assert (token.name, token.role, token.projects) == ("ci", Role.OPERATOR, frozenset({"web"}))
    assert token.expire_time == stage.clock.now() + DAY
    assert await stage.tokens.caller(old) == await stage.tokens.caller(new)
    stage.clock.advance(timedelta(minutes=5))
    await stage.refusal(old)
    assert (await stage.tokens.caller(new)).role is Role.OPERATOR
    # The new one bears the name now.
    third, _ = await stage.tokens.rotate("ci", principal="")
    assert third.name == "ci"
    with pytest.raises(AttError):
        await stage.tokens.rotate(token.token_id, principal="")
    told, _ = await stage.events.list_events(
        EventFilter(event_types=("token.rotated",)), cursor=0, limit=9
    )
    assert [event.attributes["replaces"] for event in told] == [old.split("_")[1], token.token_id]


async def test_revoking_a_name_revokes_the_replaced_token_too(stage: Stage) -> None:
    old = await stage.mint()
    _, secret = await stage.tokens.rotate("ci", principal="")
    assert len(await stage.tokens.revoke("ci", principal="")) == 2
    for text in (old, secret.reveal()):
        await stage.refusal(text)


async def test_an_overlap_does_not_prolong_a_token_and_a_revoked_one_is_not_rotated(
    stage: Stage,
) -> None:
    text = await stage.mint(lifetime=DAY)
    token, _ = await stage.tokens.rotate("ci", overlap=7 * DAY, principal="")
    old = await stage.kept.token(text.split("_")[1])
    assert old is not None
    assert old.expire_time == stage.clock.now() + DAY
    await stage.tokens.revoke(token.token_id, principal="")
    with pytest.raises(AttError) as error:
        await stage.tokens.rotate(token.token_id, principal="")
    assert error.value.reason is Reason.FIELD_INVALID
    with pytest.raises(AttError) as error:
        await stage.tokens.rotate("ci", overlap=8 * DAY, principal="")
    assert [violation.field for violation in error.value.violations] == ["overlap"]


async def test_when_a_token_was_used_last_is_kept_and_a_disk_that_is_full_keeps_nobody_out(
    stage: Stage,
) -> None:
    text = await stage.mint()
    await stage.tokens.caller(text)
    stage.kept.write_error = AttError(Reason.STORAGE_FULL, "full")
    await stage.tokens.flush_uses()
    stage.kept.write_error = None
    assert (await stage.tokens.list())[0].last_use_time is None
    await stage.tokens.caller(text)
    await stage.tokens.flush_uses()
    assert (await stage.tokens.list())[0].last_use_time == stage.clock.now()


def test_less_of_two_callers_is_a_role_again() -> None:
    for first in Role:
        for second in Role:
            both = Caller(principal="a", role=first).within(Caller(principal="b", role=second))
            for role in Role:
                allowed = Caller(principal="", role=first).may(role)
                assert both.may(role) is (allowed and Caller(principal="", role=second).may(role))
    wide, narrow = (
        Caller(principal="a", role=Role.VIEWER, projects=projects)
        for projects in (None, frozenset({"web"}))
    )
    assert wide.within(narrow).projects == narrow.within(wide).projects == frozenset({"web"})
    other = Caller(principal="b", role=Role.VIEWER, projects=frozenset({"api"}))
    assert narrow.within(other).projects == frozenset()


def with_secret_of(text: str, other: str) -> str:
    """The token `text` with the secret of `other`, and a checksum that holds."""
    prefix, token_id, *_ = text.split("_")
    spoilt = f"{prefix}_{token_id}_{other.split('_')[2]}"
    return f"{spoilt}_{zlib.crc32(spoilt.encode()):08x}"
