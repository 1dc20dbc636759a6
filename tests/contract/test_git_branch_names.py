"""Names of branches that are let through are names to git too, and never options."""

from __future__ import annotations

import subprocess

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from att_server.core.branch_names import branch_violation


@pytest.mark.parametrize("name", ["main", "att/01JD", "feature/x-1", "release/1.2", "ünï", "a+b"])
def test_a_plain_name_may_be_used(name: str) -> None:
    assert branch_violation(name) is None


@pytest.mark.parametrize(
    "name",
    [
        "", "-x", "--upload-pack=touch x", "a b", "a\tb", "a\nb", "a\0b", "a\x7f", "a..b", "a~1",
        "a^", "a:b", "a?", "a*", "a[", "a\\b", "/a", "a/", "a//b", "a.", ".a", "a/.b", "a.lock",
        "a.lock/b", "a@{1}", "@", "HEAD", "refs/heads/a", "f" * 40, "a\u202eb", "a\u00a0b",
        "\ud800", "x" * 201, "ext::sh -c x",
    ],
)  # fmt: skip
def test_a_name_that_git_or_a_reader_could_mistake_is_refused(name: str) -> None:
    assert branch_violation(name) is not None


@settings(max_examples=150)
@given(st.text(alphabet=[*"ab.-/@{}~^é"], min_size=1, max_size=6))
def test_git_takes_every_name_that_is_let_through(name: str) -> None:
    if branch_violation(name) is None:
        command = ["git", "check-ref-format", "--branch", name]
        assert subprocess.run(command, capture_output=True, check=False).returncode == 0
