"""What the conformance suite asks for by name, added to the bridge that it is run against.

Most of its scenarios call tools, prompts and resources that no real server has. They
stand beside ours here, behind the same transport, tokens and middleware.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import mcp_types as types
from mcp import MCPError
from mcp.server import Server, ServerRequestContext

from att_client.mcp.bridge import Bridge

Request = ServerRequestContext[Any, Any]
Run = Callable[[Request, Any], Awaitable[Any]]

PNG = (
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mP8z8BQDwAEhQGAhKmM"
    "IQAAAABJRU5ErkJggg=="
)
WAV = base64.b64encode(
    b"RIFF&\0\0\0WAVEfmt \x10\0\0\0\1\0\1\0@\x1f\0\0@\x1f\0\0\1\0\x08\0data\2\0\0\0\x80\x80"
).decode()


def add_to(bridge: Bridge) -> None:
    """Adds the fixtures to the bridge's server."""
    server = bridge.server
    _extend(server, "tools/list", types.PaginatedRequestParams, _list_tools)
    _extend(server, "tools/call", types.CallToolRequestParams, _call_tool)
    _extend(server, "resources/list", types.PaginatedRequestParams, _list_resources)
    _extend(server, "resources/read", types.ReadResourceRequestParams, _read_resource)
    _extend(server, "resources/templates/list", types.PaginatedRequestParams, _list_templates)
    server.add_request_handler("prompts/list", types.PaginatedRequestParams, _list_prompts)
    server.add_request_handler("prompts/get", types.GetPromptRequestParams, _get_prompt)
    server.add_request_handler("logging/setLevel", types.SetLevelRequestParams, _set_level)
    server.get_tool_input_schema = lambda name: TOOLS[name][0] if name in TOOLS else None


def _extend(server: Server[Any], method: str, params: type[Any], fixture: Any) -> None:
    """Has the fixture answer first; what it does not know is the bridge's."""
    entry = server.get_request_handler(method)
    assert entry is not None

    async def handler(request: Request, given: Any) -> Any:
        async def ours() -> Any:
            return await entry.handler(request, given)

        return await fixture(request, given, ours)

    server.add_request_handler(method, params, handler)


# Tools ----------------------------------------------------------------------


async def _list_tools(request: Request, params: Any, ours: Any) -> Any:
    result = await ours()
    added = [
        types.Tool(name=name, description=f"Fixture {name}", input_schema=dict(schema))
        for name, (schema, _) in TOOLS.items()
    ]
    return result.model_copy(update={"tools": [*result.tools, *added]})


async def _call_tool(request: Request, params: types.CallToolRequestParams, ours: Any) -> Any:
    if params.name not in TOOLS:
        return await ours()
    return await TOOLS[params.name][1](request, params)


def said(text: str) -> types.CallToolResult:
    return types.CallToolResult(content=[types.TextContent(type="text", text=text)])


def returns(*content: Any) -> Run:
    async def run(request: Request, params: types.CallToolRequestParams) -> types.CallToolResult:
        return types.CallToolResult(content=list(content))

    return run


def resource(uri: str, mime_type: str, text: str) -> types.EmbeddedResource:
    return types.EmbeddedResource(
        type="resource",
        resource=types.TextResourceContents(uri=uri, mime_type=mime_type, text=text),
    )


def text(value: str) -> types.TextContent:
    return types.TextContent(type="text", text=value)


IMAGE = types.ImageContent(type="image", data=PNG, mime_type="image/png")


async def fails(request: Request, params: Any) -> types.CallToolResult:
    return types.CallToolResult(
        content=[text("This tool intentionally returns an error for testing")], is_error=True
    )


async def logs(request: Request, params: Any) -> types.CallToolResult:
    for line in ("Tool execution started", "Tool processing data", "Tool execution completed"):
        await request.session.send_log_message("info", line, related_request_id=request.request_id)
    return said("logged")


async def progresses(request: Request, params: Any) -> types.CallToolResult:
    for done in (0, 50, 100):
        await request.session.report_progress(done, 100)
    return said("done")


def message_of(params: types.CallToolRequestParams, name: str) -> str:
    return str((params.arguments or {}).get(name, ""))


def sampling(prompt: str, tokens: int = 100) -> types.CreateMessageRequest:
    content = types.SamplingMessage(role="user", content=text(prompt))
    return types.CreateMessageRequest(
        params=types.CreateMessageRequestParams(messages=[content], max_tokens=tokens)
    )


async def samples(request: Request, params: types.CallToolRequestParams) -> types.CallToolResult:
    asked = sampling(message_of(params, "prompt")).params
    answer = await request.session.create_message(
        asked.messages, max_tokens=asked.max_tokens, related_request_id=request.request_id
    )
    return said(f"LLM response: {getattr(answer.content, 'text', '')}")


def elicits(schema: Mapping[str, Any], says: str) -> Run:
    async def run(request: Request, params: types.CallToolRequestParams) -> types.CallToolResult:
        answer = await request.session.elicit_form(
            message_of(params, "message") or "Please fill in", dict(schema), request.request_id
        )
        return said(f"{says}: action={answer.action}, content={json.dumps(answer.content)}")

    return run


def form(required: list[str] | None = None, **properties: Any) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": properties,
        **({} if required is None else {"required": required}),
    }


def titled(*pairs: tuple[str, str]) -> list[dict[str, str]]:
    return [{"const": value, "title": title} for value, title in pairs]


USER = form(
    ["username", "email"],
    username={"type": "string", "description": "User's response"},
    email={"type": "string", "description": "User's email address"},
)
DEFAULTS = form(
    name={"type": "string", "default": "John Doe"},
    age={"type": "integer", "default": 30},
    score={"type": "number", "default": 95.5},
    status={"type": "string", "enum": ["active", "inactive", "pending"], "default": "active"},
    verified={"type": "boolean", "default": True},
)
OPTIONS = ["option1", "option2", "option3"]
ENUMS = form(
    untitledSingle={"type": "string", "enum": OPTIONS},
    titledSingle={
        "type": "string",
        "oneOf": titled(
            ("value1", "First Option"), ("value2", "Second Option"), ("value3", "Third Option")
        ),
    },
    legacyEnum={
        "type": "string",
        "enum": ["opt1", "opt2", "opt3"],
        "enumNames": ["Option One", "Option Two", "Option Three"],
    },
    untitledMulti={"type": "array", "items": {"type": "string", "enum": OPTIONS}},
    titledMulti={
        "type": "array",
        "items": {
            "anyOf": titled(
                ("value1", "First Choice"), ("value2", "Second Choice"), ("value3", "Third Choice")
            )
        },
    },
)


# Results that ask for input ---------------------------------------------------


def asking(message: str, **field: Any) -> types.ElicitRequest:
    return types.ElicitRequest(
        params=types.ElicitRequestFormParams(
            message=message, requested_schema=form(list(field), **field)
        )
    )


NAME = asking("What is your name?", name={"type": "string"})
CONFIRM = asking("Please confirm", ok={"type": "boolean"})
ROOTS = types.ListRootsRequest()


def required(state: str | None = None, **requests: Any) -> types.InputRequiredResult:
    return types.InputRequiredResult(input_requests=requests, request_state=state)


def answered(params: Any, kind: type[Any], *names: str) -> bool:
    """Whether each was answered, in its kind and whole."""
    given = params.input_responses or {}
    return all(isinstance(given.get(name), kind) for name in names)


async def asks_name(request: Request, params: types.CallToolRequestParams) -> Any:
    answer = (params.input_responses or {}).get("user_name")
    content = answer.content if isinstance(answer, types.ElicitResult) else None
    if not content or not isinstance(content.get("name"), str):
        return required(user_name=NAME)
    return said(f"Hello, {content['name']}!")


async def asks_model(request: Request, params: types.CallToolRequestParams) -> Any:
    kinds = (types.CreateMessageResult, types.CreateMessageResultWithTools)
    answer = (params.input_responses or {}).get("capital_question")
    if not isinstance(answer, kinds):
        return required(capital_question=sampling("What is the capital of France?"))
    return said(f"The model says: {getattr(answer.content, 'text', '')}")


async def asks_roots(request: Request, params: types.CallToolRequestParams) -> Any:
    answer = (params.input_responses or {}).get("client_roots")
    if not isinstance(answer, types.ListRootsResult):
        return required(client_roots=ROOTS)
    return said(f"Roots: {', '.join(str(root.uri) for root in answer.roots)}")


async def keeps_state(request: Request, params: types.CallToolRequestParams) -> Any:
    if params.request_state != "kept" or not answered(params, types.ElicitResult, "confirm"):
        return required("kept", confirm=CONFIRM)
    return said("state-ok")


async def asks_all(request: Request, params: types.CallToolRequestParams) -> Any:
    names = {"user_name", "greeting", "client_roots"}
    if params.request_state != "all" or not names <= (params.input_responses or {}).keys():
        greeting = sampling("Generate a greeting", 50)
        return required("all", user_name=NAME, greeting=greeting, client_roots=ROOTS)
    return said("All was answered.")


async def asks_twice(request: Request, params: types.CallToolRequestParams) -> Any:
    first = asking("Step 1: What is your name?", name={"type": "string"})
    second = asking("Step 2: What is your favorite color?", color={"type": "string"})
    if params.request_state == "two" and answered(params, types.ElicitResult, "step2"):
        return said("Both steps are done.")
    if params.request_state == "one" and answered(params, types.ElicitResult, "step1"):
        return required("two", step2=second)
    return required("one", step1=first)


async def asks_what_it_can(request: Request, params: types.CallToolRequestParams) -> Any:
    capabilities = request.session.client_capabilities
    requests: dict[str, Any] = {}
    if capabilities is not None and capabilities.elicitation is not None:
        requests["user_name"] = NAME
    if capabilities is not None and capabilities.sampling is not None:
        requests["greeting"] = sampling("Generate a greeting", 50)
    if not requests or (params.input_responses or {}).keys() >= requests.keys():
        return said("Nothing is left to ask.")
    return required(None, **requests)


async def needs_sampling(request: Request, params: Any) -> types.CallToolResult:
    wanted = types.ClientCapabilities(sampling=types.SamplingCapability())
    if not request.session.check_client_capability(wanted):
        data = types.MissingRequiredClientCapabilityErrorData(required_capabilities=wanted)
        raise MCPError(
            types.MISSING_REQUIRED_CLIENT_CAPABILITY,
            "The client has not declared sampling.",
            data.model_dump(by_alias=True, mode="json", exclude_none=True),
        )
    return said("The client can sample.")


NONE = form()
WHOLE_VOCABULARY = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "type": "object",
    "$defs": {
        "address": {
            "$anchor": "addressDef",
            **form(street={"type": "string"}, city={"type": "string"}),
        }
    },
    "properties": {
        "name": {"type": "string"},
        "address": {"$ref": "#/$defs/address"},
        "contactMethod": {"type": "string", "enum": ["phone", "email"]},
        "phone": {"type": "string"},
        "email": {"type": "string"},
    },
    "allOf": [{"anyOf": [{"required": ["phone"]}, {"required": ["email"]}]}],
    "if": {"properties": {"contactMethod": {"const": "phone"}}, "required": ["contactMethod"]},
    "then": {"required": ["phone"]},
    "else": {"required": ["email"]},
    "additionalProperties": False,
}
TOOLS: Mapping[str, tuple[Mapping[str, Any], Run]] = {
    "test_simple_text": (NONE, returns(text("This is a simple text response for testing."))),
    "test_image_content": (NONE, returns(IMAGE)),
    "test_audio_content": (
        NONE,
        returns(types.AudioContent(type="audio", data=WAV, mime_type="audio/wav")),
    ),
    "test_embedded_resource": (
        NONE,
        returns(
            resource(
                "test://embedded-resource", "text/plain", "This is an embedded resource content."
            )
        ),
    ),
    "test_multiple_content_types": (
        NONE,
        returns(
            text("Multiple content types test:"),
            IMAGE,
            resource(
                "test://mixed-content-resource", "application/json", '{"test":"data","value":123}'
            ),
        ),
    ),
    "test_tool_with_logging": (NONE, logs),
    "test_error_handling": (NONE, fails),
    "test_tool_with_progress": (NONE, progresses),
    "test_sampling": (form(["prompt"], prompt={"type": "string"}), samples),
    "test_elicitation": (
        form(["message"], message={"type": "string"}),
        elicits(USER, "User response"),
    ),
    "test_elicitation_sep1034_defaults": (NONE, elicits(DEFAULTS, "Elicitation completed")),
    "test_elicitation_sep1330_enums": (NONE, elicits(ENUMS, "Elicitation completed")),
    "test_input_required_result_elicitation": (NONE, asks_name),
    "test_input_required_result_sampling": (NONE, asks_model),
    "test_input_required_result_list_roots": (NONE, asks_roots),
    "test_input_required_result_request_state": (NONE, keeps_state),
    "test_input_required_result_multiple_inputs": (NONE, asks_all),
    "test_input_required_result_multi_round": (NONE, asks_twice),
    "test_input_required_result_tampered_state": (NONE, keeps_state),
    "test_input_required_result_capabilities": (NONE, asks_what_it_can),
    "json_schema_2020_12_tool": (WHOLE_VOCABULARY, returns(text("The schema was kept."))),
    "test_missing_capability": (NONE, needs_sampling),
    "test_custom_header": (
        form(["region"], region={"type": "string", "x-mcp-header": "Region"}),
        returns(text("The header was good.")),
    ),
}


# Resources and prompts --------------------------------------------------------

STATIC: Mapping[str, Any] = {
    "test://static-text": types.TextResourceContents(
        uri="test://static-text",
        mime_type="text/plain",
        text="This is the content of the static text resource.",
    ),
    "test://static-binary": types.BlobResourceContents(
        uri="test://static-binary", mime_type="image/png", blob=PNG
    ),
    "test://watched-resource": types.TextResourceContents(
        uri="test://watched-resource", mime_type="text/plain", text="watched"
    ),
}


async def _list_resources(request: Request, params: Any, ours: Any) -> Any:
    result = await ours()
    added = [types.Resource(name=uri, uri=uri, description="A fixture") for uri in STATIC]
    return result.model_copy(update={"resources": [*result.resources, *added]})


async def _list_templates(request: Request, params: Any, ours: Any) -> Any:
    result = await ours()
    added = types.ResourceTemplate(name="fixture", uri_template="test://template/{id}/data")
    return result.model_copy(update={"resource_templates": [*result.resource_templates, added]})


async def _read_resource(
    request: Request, params: types.ReadResourceRequestParams, ours: Any
) -> Any:
    if params.uri in STATIC:
        return types.ReadResourceResult(contents=[STATIC[params.uri]])
    if params.uri.startswith("test://template/"):
        name = params.uri.split("/")[3]
        content = {"id": name, "templateTest": True, "data": f"Data for ID: {name}"}
        return types.ReadResourceResult(
            contents=[
                types.TextResourceContents(
                    uri=params.uri, mime_type="application/json", text=json.dumps(content)
                )
            ]
        )
    return await ours()


async def _list_prompts(request: Request, params: Any) -> types.ListPromptsResult:
    return types.ListPromptsResult(
        prompts=[
            types.Prompt(
                name=name,
                description=f"Fixture {name}",
                arguments=[types.PromptArgument(name=a, required=True) for a in arguments],
            )
            for name, arguments in PROMPTS.items()
        ]
    )


PROMPTS: Mapping[str, tuple[str, ...]] = {
    "test_simple_prompt": (),
    "test_prompt_with_arguments": ("arg1", "arg2"),
    "test_prompt_with_embedded_resource": ("resourceUri",),
    "test_prompt_with_image": (),
    "test_input_required_result_prompt": (),
}


async def _get_prompt(request: Request, params: types.GetPromptRequestParams) -> Any:
    given = params.arguments or {}
    match params.name:
        case "test_simple_prompt":
            content: list[Any] = [text("This is a simple prompt for testing.")]
        case "test_prompt_with_arguments":
            shown = f"arg1='{given.get('arg1')}', arg2='{given.get('arg2')}'"
            content = [text(f"Prompt with arguments: {shown}")]
        case "test_prompt_with_embedded_resource":
            embedded = "Embedded resource content for testing."
            content = [
                resource(given.get("resourceUri", ""), "text/plain", embedded),
                text("Please process the embedded resource above."),
            ]
        case "test_prompt_with_image":
            content = [IMAGE, text("Please analyze the image above.")]
        case "test_input_required_result_prompt":
            if not answered(params, types.ElicitResult, "user_context"):
                question = "What context should the prompt use?"
                return required(user_context=asking(question, context={"type": "string"}))
            content = [text("The context is known.")]
        case _:
            raise MCPError(types.INVALID_PARAMS, "There is no such prompt.")
    return types.GetPromptResult(
        messages=[types.PromptMessage(role="user", content=part) for part in content]
    )


async def _set_level(request: Request, params: Any) -> types.EmptyResult:
    return types.EmptyResult()
