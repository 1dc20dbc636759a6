"""TomlProjectRoots: what lies below a root, with every link followed."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from att_server.adapters.identities import TomlIdentities
from att_server.adapters.project_roots import TomlProjectRoots
from att_server.core.errors import AttError, Reason
from att_server.testing import FakeClock


class Ground:
    """A state directory, a root and what lies beside it."""

    def __init__(self, place: Path) -> None:
        self.state = place / "state"
        self.root = place / "srv"
        self.beside = place / "srv-evil"
        for each in (self.state, self.root / "web", self.beside):
            each.mkdir(parents=True)
        self.clock = FakeClock()
        self.roots = TomlProjectRoots(self.state, self.clock)

    def settings(self, text: str) -> None:
        path = self.state / "settings.toml"
        path.touch(mode=0o600)
        path.write_text(text)
        self.clock.advance(timedelta(seconds=1))

    def allow(self, *roots: Path) -> None:
        self.settings(f"project_roots = {[str(root) for root in roots]}")

    async def refused(self, path: Path, *, remote: bool = False) -> AttError:
        with pytest.raises(AttError) as error:
            await self.roots.check(path, remote=remote)
        return error.value


@pytest.fixture
def ground(tmp_path: Path) -> Ground:
    return Ground(tmp_path)


async def test_without_roots_callers_from_the_network_get_no_place(ground: Ground) -> None:
    await ground.roots.check(Path("/"))
    error = await ground.refused(ground.root, remote=True)
    assert error.reason is Reason.PROJECT_PATH_NOT_ALLOWED
    assert error.metadata["path"] == str(ground.root)
    assert "project_roots" in error.message


async def test_what_lies_below_a_root_is_allowed_to_all(ground: Ground) -> None:
    ground.allow(ground.beside / "absent", ground.root)
    for remote in (False, True):
        for path in (ground.root, ground.root / "web", ground.root / "absent" / "x"):
            await ground.roots.check(path, remote=remote)
        await ground.roots.check(ground.beside / ".." / "srv" / "web", remote=remote)


async def test_what_leads_out_of_the_roots_is_refused(ground: Ground) -> None:
    ground.allow(ground.root)
    (ground.root / "link").symlink_to(ground.beside)
    (ground.root / "loop").symlink_to(ground.root / "loop")
    for path in (
        *(ground.beside, ground.root.parent, Path("/"), ground.root / ".." / "srv-evil"),
        *(ground.root / "link", ground.root / "link" / "x", Path("/proc/self/root")),
        ground.root / "web" / ".." / "link" / "..",
    ):
        assert (await ground.refused(path)).reason is Reason.PROJECT_PATH_NOT_ALLOWED


async def test_a_root_may_be_a_link_and_counts_as_it_is_now(ground: Ground) -> None:
    link = ground.root.parent / "link"
    link.symlink_to(ground.root)
    ground.allow(link)
    await ground.roots.check(ground.root / "web")
    await ground.roots.check(link / "web")
    link.unlink()
    link.symlink_to(ground.beside)
    await ground.refused(ground.root / "web")


async def test_what_was_opened_counts_and_not_its_name(ground: Ground) -> None:
    ground.allow(ground.root)
    inside, outside = ground.root / "web" / "x", ground.beside / "x"
    for file in (inside, outside):
        file.touch()
    with inside.open() as good, outside.open() as bad:
        await ground.roots.check(outside, opened=good.fileno())
        with pytest.raises(AttError):
            await ground.roots.check(inside, opened=bad.fileno())


async def test_changes_count_at_once_and_no_root_at_all_is_none(ground: Ground) -> None:
    ground.allow(ground.root)
    await ground.roots.check(ground.root)
    ground.allow()
    await ground.refused(ground.root)
    ground.settings("")
    await ground.roots.check(ground.root)


async def test_the_server_itself_may_lie_anywhere(ground: Ground) -> None:
    ground.allow(ground.root)
    roots = TomlProjectRoots(ground.state, ground.clock, own=ground.beside)
    await roots.check(ground.beside)
    with pytest.raises(AttError):
        await roots.check(ground.beside / "x")


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ('project_roots = "/srv"', "is not an array"),
        ('project_roots = ["srv"]', "absolute path"),
        ('project_roots = ["/srv", ""]', "absolute path"),
        ("project_roots = [1]", "string"),
        ('project_root = ["/srv"]', "is 'project_roots' meant?"),
        ("project_roots = [", "line 1"),
    ],
)
async def test_a_mistake_closes_all_and_says_where_it_is(
    ground: Ground, text: str, rule: str
) -> None:
    ground.settings(text)
    error = await ground.refused(ground.root)
    assert error.reason is Reason.SETTINGS_INVALID
    assert "settings.toml" in error.message
    assert rule in error.message


async def test_a_slip_in_a_name_is_told_to_who_asks_for_certificates_too(ground: Ground) -> None:
    ground.settings('[identites."spiffe://att/x"]\nrole = "viewer"')
    with pytest.raises(AttError, match="is 'identities' meant"):
        await TomlIdentities(ground.state, ground.clock).caller("spiffe://att/x")


async def test_settings_that_others_may_write_close_all(ground: Ground) -> None:
    ground.allow(ground.root)
    (ground.state / "settings.toml").chmod(0o666)
    assert (await ground.refused(ground.root)).reason is Reason.SETTINGS_INVALID
