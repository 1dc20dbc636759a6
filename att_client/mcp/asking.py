"""Asks the person at a client, in both eras of the protocol.

An answer is no proof of a person: some clients let a program answer. So it decides
nothing here; it is passed on as the caller, and the server judges.
"""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import mcp_types as types
from mcp import MCPError
from mcp.server import ServerRequestContext
from mcp_types.version import MODERN_PROTOCOL_VERSIONS

_KEY = "answer"
_PATIENCE = 600
"""Seconds that a person has, where the connection waits for the answer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What came back.

    accepted: the form's content; None where the person declined, cancelled or did not
        answer. question_id: names the question, the same for every answer to it.
    """

    accepted: Mapping[str, object] | None
    question_id: str


class Asking:
    """How the person at the client of one request is asked."""

    def __init__(
        self, request: ServerRequestContext[Any, Any], params: types.CallToolRequestParams | None
    ) -> None:
        """params: of the call, with what the client may bring back."""
        self._request = request
        self._brought = None if params is None else params.input_responses
        self._state = None if params is None else params.request_state

    @property
    def possible(self) -> bool:
        """Whether the client says that it can show a form."""
        capabilities = self._request.session.client_capabilities
        elicitation = None if capabilities is None else capabilities.elicitation
        # Before there were two kinds, an empty capability meant forms.
        return elicitation is not None and (elicitation.form is not None or elicitation.url is None)

    async def ask(
        self, message: str, schema: dict[str, Any], about: str
    ) -> Answer | types.InputRequiredResult:
        """The person's answer, or the result that has the client come back with it.

        about: what is asked about. An answer to a question about something else is not
            taken: the question is asked anew.
        """
        form = types.ElicitRequestFormParams(message=message, requested_schema=schema)
        if self._request.protocol_version not in MODERN_PROTOCOL_VERSIONS:
            return Answer(accepted=await self._answered(form), question_id=uuid.uuid4().hex)
        asked = json.loads(self._state) if self._state else {}
        answer = (self._brought or {}).get(_KEY)
        if asked.get("about") == about and isinstance(answer, types.ElicitResult):
            return Answer(accepted=_accepted(answer), question_id=asked["question_id"])
        return types.InputRequiredResult(
            input_requests={_KEY: types.ElicitRequest(params=form)},
            # Sealed on its way out, and opened on its way in, by the SDK.
            request_state=json.dumps({"about": about, "question_id": uuid.uuid4().hex}),
        )

    async def _answered(self, form: types.ElicitRequestFormParams) -> Mapping[str, object] | None:
        try:
            async with asyncio.timeout(_PATIENCE):
                answer = await self._request.session.elicit_form(
                    form.message, form.requested_schema, self._request.request_id
                )
        except (TimeoutError, MCPError):
            return None
        return _accepted(answer)


def _accepted(answer: types.ElicitResult) -> Mapping[str, object] | None:
    return (answer.content or {}) if answer.action == "accept" else None
