"""A change cannot quietly edit what judges it: which ones a person has to approve."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from att_server.core.cycles.gate_files import gate_files, touched_gate_files
from att_server.core.cycles.gates import (
    ApprovalReason,
    approval_reasons,
    is_protected,
    plan_digest,
)
from att_server.core.cycles.model import CycleRequest, CycleStep
from att_server.core.cycles.settings import (
    ApprovalSettings,
    BootstrapSettings,
    CiSettings,
    ReleaseSettings,
    TestSettings,
)

REQUEST = CycleRequest(edited_paths=("app.py",))


def settings(
    *,
    test: str = "pytest tests",
    ci: str = "sh ci.sh",
    build: str = "",
    protected: tuple[str, ...] = (),
    required: bool = False,
) -> BootstrapSettings:
    return BootstrapSettings(
        test=TestSettings(command=tuple(test.split())),
        ci=CiSettings(command=tuple(ci.split())),
        release=ReleaseSettings(build=tuple(build.split())),
        approval=ApprovalSettings(required=required, protected_paths=protected),
    )


# When somebody has to decide ---------------------------------------------------


@pytest.mark.parametrize("path", ["app.py", "docs/att.toml", "tests/test_app.py", "lib/ci.py"])
def test_a_change_that_touches_no_gate_needs_nobody(path: str) -> None:
    assert approval_reasons(settings(), REQUEST, [path]) == ()


@pytest.mark.parametrize("path", ["att.toml", "ATT.TOML", "Att.toml", "att.toml/part"])
def test_the_settings_need_approval_in_whatever_form_they_are_changed(path: str) -> None:
    assert approval_reasons(settings(), REQUEST, [path]) == (ApprovalReason.TOUCHES_ATT_TOML,)


def test_the_scripts_of_all_three_commands_need_approval() -> None:
    given = settings(test="python tools/run.py", ci="./ci.sh", build="make release")
    for path in ("tools/run.py", "ci.sh", "Makefile"):
        assert approval_reasons(given, REQUEST, ["app.py", path]) == (
            ApprovalReason.TOUCHES_CI_SCRIPT,
        )


def test_all_reasons_are_told_the_most_exact_first() -> None:
    given = settings(protected=("infra",), required=True)
    changed = ["infra/network.tf", "ci.sh", "att.toml"]
    reasons = approval_reasons(given, REQUEST, changed, other_base=True)
    assert reasons == (
        "touches_att_toml", "touches_ci_script", "touches_protected_path", "other_base_branch",
        "required_by_settings",
    )  # fmt: skip


def test_what_the_request_asks_for_is_told_as_such() -> None:
    asked = replace(REQUEST, require_approval=True)
    assert approval_reasons(settings(required=True), asked, []) == ("required_by_request",)
    forgone = replace(REQUEST, require_approval=False)
    assert approval_reasons(settings(required=True), forgone, []) == ("required_by_settings",)


# What commands run --------------------------------------------------------------


@pytest.mark.parametrize(
    ("command", "path"),
    [
        ("sh ci.sh", "ci.sh"),
        ("bash -eu scripts/ci", "scripts/ci"),
        ("./run", "run"),
        ("tools/check --fast", "tools/check"),
        ("python tools/x.py", "tools/x.py"),
        ("/usr/bin/python3.11 -W error -B ./tools/x.py app.py", "tools/x.py"),
        ("python -m checks.all app.py", "checks/all.py"),
        ("python -m checks", "checks/__main__.py"),
        ("python -m checks.all", "checks/__init__.py"),
        ("python -m pytest", "pytest.py"),  # it would be taken for the installed one
        ("node --require ./hook.js test.js", "test.js"),
        ("env PYTHONPATH=. ./run", "run"),
        ("timeout 60 ./run", "run"),
        ("uv run tools/x.py", "tools/x.py"),
        ("make -C build check", "build/Makefile"),
        ("make -f ci/rules.mk", "ci/rules.mk"),
        ("make --file=ci/rules.mk", "ci/rules.mk"),
        ("npm test", "package.json"),
        ("tox", "tox.ini"),
        ("parallel ::: one.sh two.sh", "two.sh"),
    ],
)
def test_the_file_that_a_command_runs_is_a_gate(command: str, path: str) -> None:
    assert path in gate_files(command.split())


@pytest.mark.parametrize(
    ("script", "path"),
    [
        ("./ci.sh", "ci.sh"),
        ("set -e; ./lint && python tools/x.py", "tools/x.py"),
        ("set -e\n./lint\n./test", "test"),
        ("cd tools && python x.py", "tools/x.py"),
        ("cd tools/checks; ./run", "tools/checks/run"),
        ("(cd tools; ./run)", "tools/run"),
        ("cd tools; cd checks; ./run", "tools/checks/run"),
        (". ci/env; pytest", "ci/env"),
        ("source ci/env", "ci/env"),
        ("if ./probe; then ./run; fi", "run"),
        ("for f in a b; do ./run $f; done", "run"),
        ("bash -c './inner'", "inner"),
        ("sh -c 'sh -c \"sh deep\"'", "deep"),
        ("./run 'not closed", "run"),
        ("X=1 ./run", "run"),
        ("python - < tools/x.py; exec ./run", "run"),
    ],
)
def test_the_script_of_a_shell_is_looked_into(script: str, path: str) -> None:
    assert path in gate_files(["sh", "-ec", script])
    assert path in gate_files(["/bin/bash", "-c", script])


@pytest.mark.parametrize(
    "command",
    [
        ["grep", "-q", "better", "app.py"],
        ["pytest", "tests/test_app.py", "app.py"],
        ["python", "-m", "py_compile", "app.py"],
        ["python", "-c", "import app", "app.py"],
        ["sh", "-c", "grep -q x app.py && test -f app.py"],
        ["go", "test", "./..."],
        ["ruff", "check", "./app.py"],
        ["sh", "/elsewhere/app.py"],
        ["sh", "../app.py"],
        ["true"],
        [],
    ],
)
def test_what_a_command_only_looks_at_is_no_gate(command: list[str]) -> None:
    assert touched_gate_files([command], ["app.py", "tests/test_app.py", "..."]) == ()


def test_a_file_that_a_command_would_run_is_a_gate_before_it_exists() -> None:
    assert touched_gate_files([["make"]], ["app.py", "GNUmakefile"]) == ("GNUmakefile",)


@given(st.lists(st.text(max_size=20), max_size=6))
def test_any_words_are_a_command_that_can_be_looked_at(words: list[str]) -> None:
    for path in gate_files(words) | gate_files(["sh", "-c", " ".join(words)]):
        assert path
        assert not path.startswith("/")
        assert ".." not in path.split("/")


# Protected paths ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("pattern", "path"),
    [
        ("infra", "infra"),
        ("infra", "infra/deep/file"),
        ("infra/", "infra/file"),
        ("/infra", "infra/file"),
        ("infra/**", "infra/deep/file"),
        ("*.tf", "main.tf"),
        ("**/*.tf", "main.tf"),
        ("**/*.tf", "a/b/main.tf"),
        ("**/secrets/**", "a/secrets/b/c"),
        ("a/**/z", "a/z"),
        ("a/**/z", "a/b/c/z"),
        ("**", "anything/at/all"),
        ("a*c", "abc"),
        ("a+b", "a+b"),
        ("docs/*", "docs/line\nbreak"),
    ],
)
def test_a_pattern_protects_what_it_names_and_all_below(pattern: str, path: str) -> None:
    assert is_protected(path, [pattern])


@pytest.mark.parametrize(
    ("pattern", "path"),
    [
        ("infra", "infrastructure"),
        ("infra", "a/infra"),
        ("*.tf", "a/main.tf"),
        ("a*c", "a/c"),
        ("a/**/z", "a/zz"),
        ("infra/**", "infra"),
        ("a+b", "aab"),
        ("[ab]", "a"),
    ],
)
def test_a_pattern_protects_nothing_else(pattern: str, path: str) -> None:
    assert not is_protected(path, [pattern])


# What a decision is about -------------------------------------------------------


def test_a_plan_has_another_digest_when_anything_that_is_decided_on_differs() -> None:
    def digest(
        given: BootstrapSettings = settings(),  # noqa: B008 - a value
        request: CycleRequest = REQUEST,
        base: str = "b",
        tree: str = "t",
    ) -> str:
        return plan_digest(given, request, base_commit=base, tree=tree)

    others = {
        digest(base="c"),
        digest(tree="u"),
        digest(settings(test="true")),
        digest(request=replace(REQUEST, until=CycleStep.MERGE)),
        digest(request=replace(REQUEST, override_bad=True)),
        digest(replace(settings(), bake_time=timedelta(seconds=1))),
    }
    assert len(others) == 6
    assert digest() not in others


def test_what_nobody_decides_on_leaves_the_digest() -> None:
    same = replace(REQUEST, keep_worktree=True, edited_paths=("\udc80",), reason="why")
    first = plan_digest(settings(), REQUEST, base_commit="b", tree="t")
    assert plan_digest(settings(), same, base_commit="b", tree="t") == first
