"""Runs tools as the caller, and tells what fails as text with a next step."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine, Mapping
from contextlib import AbstractAsyncContextManager
from typing import Any, TypeVar

import mcp_types as types
from mcp.server import ServerRequestContext
from mcp.server.auth.middleware.auth_context import get_access_token
from pydantic import ValidationError

import att_client
from att_client import ErrorReason
from att_client.mcp.asking import Asking
from att_client.mcp.call import Call
from att_client.mcp.callers import Callers
from att_client.mcp.catalog import Catalog
from att_client.mcp.failures import STEPS, UNKNOWN, step_after, what_happened
from att_client.mcp.steps import Refused, Step
from att_client.mcp.text import cut, printable
from att_client.mcp.tool import Arguments, Output, Tool

Request = ServerRequestContext[Any, Any]
R = TypeVar("R")

_log = logging.getLogger(__name__)

_LONGEST_ERROR = 4_000  # characters
_WRONG = (
    att_client.NotFoundError,
    att_client.InvalidArgumentError,
    att_client.OutOfRangeError,
)


class Failed(Exception):
    """A call failed; the text says what happened and what is next.

    wrong: the call itself is what has to change, for instance since what it names does
        not exist.
    """

    def __init__(self, text: str, *, wrong: bool) -> None:
        super().__init__(text)
        self.text = text
        self.wrong = wrong


class Runner:
    """Runs the tools of a catalog."""

    def __init__(self, callers: Callers, catalog: Catalog) -> None:
        self._callers = callers
        self._catalog = catalog
        self._options = catalog.options

    def caller(self) -> AbstractAsyncContextManager[att_client.Client]:
        """The connection of who makes the request that is being served."""
        return self._callers.connection(caller_token())

    async def run(
        self,
        tool: Tool[Any],
        given: Mapping[str, object],
        request: Request,
        params: types.CallToolRequestParams | None = None,
    ) -> Output | types.InputRequiredResult:
        """What the tool returns for these arguments. Raises Failed.

        params: of the call, where it is one of the tool itself.
        """
        facts: dict[str, str] = {}
        try:
            arguments = self._arguments(tool, given)
            async with self.caller() as att:
                call = self.call(att, request, params)
                if isinstance(project := getattr(arguments, "project", None), str):
                    facts["project_id"] = project
                    call.check_project(project)
                return await _while_client_stays(request, tool.run(call, arguments))
        except Refused as refused:
            raise self.failure(refused.what, refused.step, facts, wrong=True) from refused
        except att_client.AttError as error:
            raise self.failure(
                what_happened(error),
                step_after(error),
                {**facts, **error.metadata},
                wrong=isinstance(error, _WRONG),
            ) from error
        except Failed:
            raise
        except UnicodeEncodeError as error:
            what = "An argument holds text that is not Unicode (FIELD_INVALID)."
            raise self.failure(what, STEPS[ErrorReason.FIELD_INVALID], wrong=True) from error
        except Exception as error:
            # Nothing of it is for the client, who could do nothing about it.
            _log.exception("%s failed", tool.name)
            raise self.failure(
                "The bridge has a defect (INTERNAL).", UNKNOWN, wrong=False
            ) from error

    def call(
        self,
        att: att_client.Client,
        request: Request,
        params: types.CallToolRequestParams | None = None,
    ) -> Call:
        """A call on the caller's connection."""
        return Call(
            att=att,
            options=self._options,
            offered=self._catalog.tools,
            progress=_Progress(request),
            asking=Asking(request, params),
        )

    def unknown(self, name: str) -> Failed:
        """The failure of a call of a tool that there is not."""
        nearest = self._catalog.nearest(name)
        names = ", ".join(map(self._catalog.listed, self._catalog.tools))
        return self.failure(
            f"There is no tool {cut(name, 100)!r} here.",
            Step(nearest) if nearest else Step(advice=f"call one of {names}."),
            wrong=True,
        )

    def failure(
        self,
        what: str,
        step: Step,
        facts: Mapping[str, str] | None = None,
        *,
        wrong: bool,
    ) -> Failed:
        """What is told of a failure: `what` happened, and the step."""
        then = step.text(form=self._options.names, offered=self._catalog.tools, facts=facts)
        text = f"{cut(printable(what), _LONGEST_ERROR)} {cut(printable(then), _LONGEST_ERROR)}"
        return Failed(text, wrong=wrong)

    def _arguments(self, tool: Tool[Any], given: Mapping[str, object]) -> Arguments:
        """The arguments of the call; raises Refused for wrong ones."""
        fields = tool.arguments.model_fields
        if self._options.only_project and "project" in fields:
            given = {"project": self._options.only_project, **given}
        try:
            arguments: Arguments = tool.arguments.model_validate(given)
        except ValidationError as error:
            name = self._catalog.listed(tool.name)
            raise Refused(
                f"The arguments do not fit: {_violations(error)}.",
                Step(advice=f"call {name} again; it takes {', '.join(fields) or 'no arguments'}."),
            ) from error
        return arguments


def caller_token() -> str | None:
    """The token of who makes the request that is being served; None: the bridge's own."""
    token = get_access_token()
    return None if token is None else token.token


GONE = "att.gone"
"""In the scope of an HTTP request: an event that is set when nobody waits any more."""


async def _while_client_stays(request: Request, work: Coroutine[Any, Any, R]) -> R:
    """What the work returns; gives it up when the client's connection has ended.

    The SDK itself does so in the later era only.
    """
    gone = getattr(request.request, "scope", {}).get(GONE)
    if gone is None:
        return await work
    task, watch = asyncio.create_task(work), asyncio.create_task(gone.wait())
    try:
        await asyncio.wait({task, watch}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise Failed("The client has gone.", wrong=False)
        return task.result()
    finally:
        task.cancel()
        watch.cancel()
        await asyncio.gather(task, watch, return_exceptions=True)


class _Progress:
    """Reports to a client that asked for it; the numbers rise, as the protocol wants."""

    def __init__(self, request: Request) -> None:
        self._session = request.session
        self._count = 0

    async def __call__(self, message: str) -> None:
        self._count += 1
        await self._session.report_progress(self._count, None, message)


def _violations(error: ValidationError) -> str:
    """What is wrong with each argument; never its value."""
    found = []
    for violation in error.errors(include_url=False, include_input=False)[:10]:
        place = ".".join(map(str, violation["loc"])) or "arguments"
        rule = violation["msg"]
        if violation["type"] == "extra_forbidden":
            rule = "is not an argument of this tool"
        found.append(f"`{cut(place, 100)}`: {rule[:1].lower()}{cut(rule[1:], 300)}")
    return "; ".join(found)
