"""What is listed, what is called by which name, and what wrong calls are told."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

import att_client
from att_client.mcp.catalog import TOOLS, Catalog
from att_client.mcp.failures import STEPS
from att_client.mcp.names import NameForm, underscored
from att_client.mcp.options import OptionInvalid, Options
from att_client.mcp.tool import Tool
from tests.mcp.conftest import ERAS, Mode, joined, printing
from tests.server_process import ServerProcess

ALL = Catalog(Options())


def test_every_name_has_one_form_without_dots() -> None:
    forms = {underscored(tool.name) for tool in TOOLS}
    assert len(forms) == len(TOOLS)
    assert all(re.fullmatch(r"att_[a-z]+_[a-z]{1,30}", form) for form in forms)
    assert all(ALL.find(tool.name) is ALL.find(underscored(tool.name)) is tool for tool in TOOLS)


@pytest.mark.parametrize("tool", TOOLS, ids=lambda tool: tool.name)
def test_the_tool_says_what_it_does_to_the_world(tool: Tool[Any]) -> None:
    listed = tool.listed(Options())
    hints = listed.annotations
    assert hints is not None
    assert None not in (
        *(hints.read_only_hint, hints.destructive_hint),
        *(hints.idempotent_hint, hints.open_world_hint),
    )
    assert not (hints.read_only_hint and hints.destructive_hint)
    assert listed.description
    assert listed.input_schema["additionalProperties"] is False


def test_every_reason_of_the_contract_has_a_next_step() -> None:
    assert set(STEPS) == set(att_client.ErrorReason)


@pytest.mark.parametrize("reason", STEPS, ids=str)
def test_the_next_step_can_be_taken(reason: att_client.ErrorReason) -> None:
    step = STEPS[reason]
    if step.tool:
        tool = ALL.find(step.tool)
        assert tool is not None
        assert set(step.arguments) <= set(tool.arguments.model_fields)
    for form in NameForm:
        told = step.text(form=form, offered=ALL.tools)
        assert told.startswith("Next: ")
        assert len(told) > 15
        named = re.findall(r"att[._]\w+[._]\w+", told)
        assert all(ALL.find(name) for name in named)
    # What a narrower bridge does not have is not named as if it had.
    assert step.text(form=NameForm.DOTTED, offered=()).startswith("Next: ")


def test_the_bridge_is_narrowed() -> None:
    def names(**options: Any) -> set[str]:
        return set(Catalog(Options(**options)).tools)

    assert names(toolsets=["runtime"]) == {t.name for t in TOOLS if t.toolset == "runtime"}
    assert names(read_only=True) == {t.name for t in TOOLS if t.reads}
    assert "att.runtime.stop" not in names(read_only=True)
    with pytest.raises(OptionInvalid, match="nonsense"):
        Options(toolsets=["nonsense"])


@pytest.mark.parametrize("mode", ERAS)
@pytest.mark.parametrize("form", NameForm)
async def test_one_form_is_listed_and_both_are_called(
    server: ServerProcess, mode: Mode, form: NameForm
) -> None:
    async with joined(server.target, mode, names=form) as agent:
        tools = (await agent.client.list_tools()).tools
        dots = {"." in tool.name for tool in tools}
        assert dots == {form is NameForm.DOTTED}
        assert all((tool.meta or {})["att/canonicalName"].count(".") == 2 for tool in tools)
        for name in ("att.project.list", "att_project_list"):
            assert "projects" in await agent.call(name)
        mixed = await agent.refused("att_project.list")
        wanted = "att.project.list" if form is NameForm.DOTTED else "att_project_list"
        assert mixed.endswith(f"Next: call {wanted}.")


@pytest.mark.parametrize("mode", ERAS)
async def test_wrong_calls_are_told_what_to_mend(server: ServerProcess, mode: Mode) -> None:
    async with joined(server.target, mode) as agent:
        unknown = await agent.refused("nonsense", x=1)
        assert "att.runtime.logs" in unknown
        secret = "hunter2" * 100
        wrong = await agent.refused(
            "att.runtime.logs", project="web", limit=secret, cursor=-1, password=secret
        )
        assert all(name in wrong for name in ("`limit`", "`cursor`", "`password`"))
        assert "hunter2" not in wrong
        assert "`project`" in await agent.refused("att.runtime.status")
        assert "`project`" in await agent.refused("att.runtime.status", project=["web"])
        absent = await agent.refused("att.runtime.status", project="no-such")
        assert "PROJECT_NOT_FOUND" in absent
        assert absent.endswith("Next: call att.project.list.")
        long = await agent.refused("att.runtime.status", project="x" * 1_000_000)
        assert "FIELD_INVALID" in long
        assert len(long) < 4_000


async def test_a_bridge_of_one_project_needs_no_name_and_knows_no_other(
    server: ServerProcess, att: att_client.Client, tmp_path: Path
) -> None:
    await printing(att, "own", tmp_path, "print('mine')")
    await printing(att, "other", tmp_path, "print('not mine')")
    async with joined(server.target, projects=["own"]) as agent:
        listed = {tool.name: tool for tool in (await agent.client.list_tools()).tools}
        assert "project" not in listed["att.runtime.logs"].input_schema.get("required", [])
        page = await agent.call("att.runtime.logs")
        assert page["lines"] == ["mine"]
        told = await agent.refused("att.runtime.logs", project="other")
        assert "mine" not in told.replace("own", "")
        assert [p["project"] for p in (await agent.call("att.project.list"))["projects"]] == ["own"]


@pytest.mark.parametrize("mode", ERAS)
async def test_an_app_is_started_looked_at_and_stopped(
    server: ServerProcess, att: att_client.Client, tmp_path: Path, mode: Mode
) -> None:
    name = f"cycle-of-life-{mode}"
    await att.projects.create(name, path=tmp_path, command=["sleep", "600"])
    async with joined(server.target, mode) as agent:
        started = await agent.call("att.runtime.start", project=name)
        assert started["state"] == "ready"
        health = await agent.call("att.runtime.health", project=name)
        assert (health["healthy"], health["probe"]) == (True, "process")
        again = await agent.call("att.runtime.restart", project=name, grace_seconds=1)
        assert again["run_id"] != started["run_id"]
        whole = await agent.call("att.project.status", project=name)
        assert (whole["state"], whole["command"]) == ("ready", ["sleep", "600"])
        stopped = await agent.call("att.runtime.stop", project=name, grace_seconds=1)
        assert stopped["state"] == "stopped"
        status = await agent.call("att.runtime.status", project=name)
        assert status["last_exit"] == "signal 15"
