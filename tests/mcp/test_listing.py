"""What a model is told before it does anything, and what that costs.

`python -m tests.mcp.test_listing` writes the listing anew after a change that is meant.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

import att_client
from att_client.mcp.bridge import INSTRUCTIONS, Bridge
from att_client.mcp.callers import Callers
from att_client.mcp.catalog import TOOLS
from att_client.mcp.options import TOOLSETS, NameForm, Options
from tests.mcp.conftest import ERAS, Mode, joined

LISTING = Path(__file__).with_name("tools_list.json")
PAGE = Path(__file__).parents[2] / "docs/mcp.md"
MOST_BYTES = 24_000


def listed() -> list[dict[str, Any]]:
    """All tools as `tools/list` has them."""
    return [
        tool.listed(Options()).model_dump(mode="json", by_alias=True, exclude_none=True)
        for tool in TOOLS
    ]


def test_the_listing_is_as_it_was() -> None:
    assert listed() == json.loads(LISTING.read_text())


def test_the_listing_fits_its_budget_in_both_forms() -> None:
    for form in NameForm:
        tools = [tool.listed(Options(names=form)) for tool in TOOLS]
        text = "".join(tool.model_dump_json(by_alias=True, exclude_none=True) for tool in tools)
        assert len(text) < MOST_BYTES


@pytest.mark.parametrize("tool", listed(), ids=lambda tool: tool["name"])
def test_the_schemas_are_flat(tool: dict[str, Any]) -> None:
    text = json.dumps(tool)
    assert not any(word in text for word in ("$ref", "$defs", "anyOf", "allOf", '"title"'))
    for name, schema in tool["inputSchema"]["properties"].items():
        kind = schema.get("items", schema).get("type")
        assert kind in ("string", "integer", "boolean", "object"), name


@pytest.mark.parametrize("mode", ERAS)
async def test_a_client_gets_it_as_it_is(mode: Mode) -> None:
    async with joined("unix:/nowhere/att.sock", mode) as agent:
        tools = (await agent.client.list_tools()).tools
        shown = [tool.model_dump(mode="json", by_alias=True, exclude_none=True) for tool in tools]
        assert shown == listed()
        assert agent.client.instructions == instructions()


def instructions(**options: Any) -> str:
    callers = Callers(att_client.Config(target="unix:/nowhere/att.sock"))
    bridge = Bridge(callers, Options(**options))
    return bridge.server.instructions or ""


def test_the_instructions_name_what_is_offered_and_nothing_else() -> None:
    assert len(instructions()) < 2_000
    assert instructions().count("\n") + 1 == len(INSTRUCTIONS)
    for toolset in TOOLSETS:
        told = instructions(toolsets=[toolset])
        named = {tool.name for tool in TOOLS if tool.name in told}
        assert all(name.split(".")[1] == toolset for name in named)
    assert "att_runtime_logs" in instructions(names=NameForm.UNDERSCORE)


def test_the_page_for_agents_lists_every_tool() -> None:
    rows = re.findall(r"^\| `(att\.[a-z.]+)` \|", PAGE.read_text(), re.MULTILINE)
    assert rows == [tool.name for tool in TOOLS]


if __name__ == "__main__":
    LISTING.write_text(json.dumps(listed(), indent=1, ensure_ascii=False) + "\n")
