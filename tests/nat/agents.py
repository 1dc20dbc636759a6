"""NAT and the Model Context Protocol under ATT: as a client of the bridge, and as a server."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import mcp_types as types
from mcp import Client
from mcp.client.streamable_http import streamable_http_client

from att_client.cli.demo_parts import ServerProcess, free_port, no_app_left
from att_client.cli.story import Story
from tests.nat.project import COMMAND_TIMEOUT, Commands, NatApp, demand, run_process

TOOLSET = "nvidia-nat-mcp~=1.9.0"
SERVED = "demo-nat-mcp"
LINES = 5

# A workflow without a model, which calls one tool of the bridge as an agent would.
READER = f'''
from collections.abc import AsyncIterator

from nat.data_models.component_ref import FunctionGroupRef
from nat.plugin_api import Builder, FunctionBaseConfig, FunctionInfo, register_function


class ReaderConfig(FunctionBaseConfig, name="log_reader"):
    tools: FunctionGroupRef


@register_function(config_type=ReaderConfig)
async def reader(config: ReaderConfig, builder: Builder) -> AsyncIterator[FunctionInfo]:
    group = await builder.get_function_group(config.tools)
    tool = (await group.get_accessible_functions())["att__att_runtime_logs"]

    async def read(project: str) -> str:
        """Reads the first lines of the project's log."""
        return str(await tool.acall_invoke(project=project, cursor=0, limit={LINES}))

    yield FunctionInfo.from_fn(read, description=read.__doc__)
'''
WORKFLOW = """
workflow:
  _type: log_reader
  tools: att
"""


def add_toolset(app: NatApp) -> None:
    """Adds NAT's side of the protocol to what the project installs."""
    with (app.directory / "requirements.txt").open("a") as file:
        file.write(f"\n{TOOLSET}\n")


async def read_through_bridge(
    story: Story, commands: Commands, app: NatApp, project: str, state_dir: Path
) -> None:
    """A workflow of NAT reads the log of an app through the bridge, over HTTP."""
    token = app.directory.parent / "nat.token"
    where = ("--state-dir", os.fspath(state_dir), "--output", os.fspath(token))
    with story.step("nat run, whose workflow reads the log through `att mcp serve --http`"):
        await commands.att("token", "create", *where, "--name", "nat", "--role", "viewer")
        async with _bridge(f"unix:{state_dir}/att.sock", project) as url:
            settings = await commands.runtime("mcp", "config", "nat", "--http", url.split("/")[2])
            package = app.directory / "echo_workflow"
            (package / "reader.py").write_text(READER)
            register = (package / "register.py").read_text()
            (package / "register.py").write_text(register + "\nimport echo_workflow.reader\n")
            (app.directory / "configs/reader.yml").write_text(str(settings["text"]) + WORKFLOW)
            command = [".venv/bin/nat", "run", "--config_file", "configs/reader.yml"]
            env = {**os.environ, "ATT_TOKEN": token.read_text().strip()}
            code, out, said = await run_process(
                [*command, "--input", project], app.directory, env, COMMAND_TIMEOUT
            )
            (package / "register.py").write_text(register)
        demand(code == 0, f"success of nat run: {(out + said).strip()[-1000:]}")
        seen = _result(out + said)["lines"]
        log = await commands.att("logs", project, "--cursor", "0")
        lines = [str(item["line"]) for item in log if "line" in item][:LINES]
        demand(seen == lines, f"the first lines of the log, {lines}, and not {seen}")
        story.detail(f"att__att_runtime_logs gave it {len(lines)} lines, as att logs has them")
        story.detail(lines[0][:110], lines=lines)


def _result(text: str) -> dict[str, object]:
    """The answer of the tool in what NAT printed."""
    begin = text.find('{"lines":')
    demand(begin >= 0, f"the workflow's result: {text[-500:]}")
    found, _ = json.JSONDecoder().raw_decode(text[begin:])
    assert isinstance(found, dict)
    return found


@asynccontextmanager
async def _bridge(target: str, project: str) -> AsyncIterator[str]:
    """A bridge over HTTP for one project, with names that NAT takes; yields its URL."""
    options = ("--http", "127.0.0.1:0", "--tool-names", "underscore", "--project", project)
    bridge = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "att_client.cli", "mcp", "serve", *options),
        env={**os.environ, "ATT_TARGET": target},
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        assert bridge.stdout is not None
        async with asyncio.timeout(COMMAND_TIMEOUT):
            line = (await bridge.stdout.readline()).decode()
        demand("ready at" in line, "a bridge that serves")
        yield line.split()[-1]
    finally:
        if bridge.returncode is None:
            bridge.terminate()
        await bridge.wait()


async def serve_workflow(
    story: Story, commands: Commands, server: ServerProcess, app: NatApp
) -> None:
    """`nat mcp serve` runs as a project, and its workflow is called as a tool."""
    port = free_port()
    words = ".venv/bin/nat mcp serve --config_file configs/workflow.yml --host 127.0.0.1"
    with story.step(f"att start {SERVED} --wait ready, which is nat mcp serve"):
        await commands.runtime(
            *("project", "create", SERVED, "--path", os.fspath(app.directory)),
            *("--command", f"{words} --port {port}"),
            *("--ready-http", f"http://127.0.0.1:{port}/health", "--ready-deadline", "2m"),
        )
        async with no_app_left(server, SERVED):
            runtime = await commands.runtime(
                "start", SERVED, "--wait", "ready", "--timeout", f"{COMMAND_TIMEOUT / 2}s"
            )
            demand(runtime["state"] == "ready", f"the state ready, not {runtime['state']}")
            answer = await _called(f"http://127.0.0.1:{port}/mcp")
            demand("You said: hello" in answer, f"the workflow's answer: {answer}")
            story.detail(f"its tool answers {answer!r}", answer=answer)
            stopped = await commands.runtime("stop", SERVED)
            demand(stopped["state"] == "stopped", f"the state stopped: {stopped}")


async def _called(url: str) -> str:
    """What the one tool that is served there answers."""
    async with (
        asyncio.timeout(COMMAND_TIMEOUT),
        Client(streamable_http_client(url), mode="legacy") as client,
    ):
        (tool,) = (await client.list_tools()).tools
        result = await client.call_tool(tool.name, {"text": "hello"})
        (content,) = result.content
        assert isinstance(content, types.TextContent)
        return content.text
