"""`att_client.sync` is the whole SDK: every name, every signature, every request and answer."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Collection, Coroutine, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from types import NoneType
from typing import (
    Any,
    Literal,
    Unpack,
    assert_type,
    get_args,
    get_origin,
    get_type_hints,
    is_typeddict,
)

import pytest
from google.protobuf.message import Message

import att_client
import att_client.sync
from att.v1 import (
    bootstrap_pb2,
    bootstrap_service_pb2,
    code_service_pb2,
    event_service_pb2,
    log_service_pb2,
    project_service_pb2,
    runtime_service_pb2,
    server_service_pb2,
)
from att_client.sync.background_loop import BackgroundLoop
from tests.client.stub_server import StubServer, answer, stream

_CONFIG = att_client.Config(target="unix:/nowhere/att.sock")
_CLIENT = att_client.connect(config=_CONFIG)
_BLOCKING = att_client.sync.connect(config=_CONFIG)

# What Python calls by itself, and what is awaited by its name.
_RENAMED = {
    "__aenter__": "__enter__",
    "__aexit__": "__exit__",
    "__aiter__": "__iter__",
    "aclose": "close",
}
_TWINS = {
    att_client.Client: att_client.sync.Client,
    att_client.CycleHandle: att_client.sync.CycleHandle,
    att_client.CycleWatch: att_client.sync.CycleWatch,
    att_client.EventWatch: att_client.sync.EventWatch,
    att_client.LogFollow: att_client.sync.LogFollow,
    att_client.LogMerge: att_client.sync.LogMerge,
    att_client.Pager: att_client.sync.Pager,
    att_client.RuntimeWatch: att_client.sync.RuntimeWatch,
}
_GROUPS = {name: group for name, group in vars(_CLIENT).items() if not name.startswith("_")}
_HANDLE = att_client.CycleHandle(_CLIENT.bootstrap, att_client.Cycle())
_PAIRS = {
    "Client": (_CLIENT, _BLOCKING),
    **{name: (group, getattr(_BLOCKING, name, None)) for name, group in _GROUPS.items()},
    "LogFollow": (_CLIENT.logs.follow("web"), _BLOCKING.logs.follow("web")),
    "LogMerge": (_CLIENT.logs.merge(["web"]), _BLOCKING.logs.merge(["web"])),
    "RuntimeWatch": (_CLIENT.runtimes.watch(), _BLOCKING.runtimes.watch()),
    "CycleWatch": (_CLIENT.bootstrap.watch("C"), _BLOCKING.bootstrap.watch("C")),
    "EventWatch": (_CLIENT.events.watch(), _BLOCKING.events.watch()),
    "Pager": (_CLIENT.projects.list(), _BLOCKING.projects.list()),
    "CycleHandle": (_HANDLE, att_client.sync.CycleHandle(BackgroundLoop(), _HANDLE)),
}
_METHODS = [
    (name, method)
    for name, group in _GROUPS.items()
    for method in dir(group)
    if not method.startswith("_")
]
_UNARY = [
    (name, method)
    for name, method in _METHODS
    if inspect.iscoroutinefunction(getattr(_GROUPS[name], method))
]


def _names(value: object) -> set[str]:
    special = {*_RENAMED, *_RENAMED.values()}
    return {name for name in dir(value) if not name.startswith("_") or name in special}


@pytest.mark.parametrize("kind", _PAIRS)
def test_every_name_has_its_twin_and_no_other_is_there(kind: str) -> None:
    original, twin = _PAIRS[kind]
    assert _names(twin) == {_RENAMED.get(name, name) for name in _names(original)}


def test_every_class_that_waits_has_its_twin() -> None:
    waiting = {
        name
        for name in att_client.__all__
        if {"__aiter__", "__aenter__", "aclose", "wait"} & set(dir(getattr(att_client, name)))
    }
    assert set(att_client.sync.__all__) == {*waiting, "connect"}


@pytest.mark.parametrize(
    ("original", "twin"),
    [
        pytest.param(
            getattr(original, name),
            getattr(twin, _RENAMED.get(name, name)),
            id=f"{kind}.{name}",
        )
        for kind, (original, twin) in _PAIRS.items()
        for name in sorted(_names(original))
        if callable(getattr(original, name))
    ]
    + [pytest.param(att_client.connect, att_client.sync.connect, id="connect")],
)
def test_signatures_are_equal_but_for_what_is_awaited(
    original: Callable[..., Any], twin: Callable[..., Any]
) -> None:
    ours, theirs = inspect.signature(twin), inspect.signature(original)
    assert list(ours.parameters.values()) == list(theirs.parameters.values())
    hint, expected = (get_type_hints(call).get("return") for call in (twin, original))
    assert _blocking(expected) == getattr(hint, "__name__", str(hint))


def _blocking(hint: Any) -> str:
    kind = get_origin(hint) or hint
    twin = _TWINS.get(kind, kind)
    return str(getattr(twin, "__name__", str(hint))).removeprefix("Async")


_MODULES = {
    "projects": project_service_pb2,
    "runtimes": runtime_service_pb2,
    "logs": log_service_pb2,
    "bootstrap": bootstrap_service_pb2,
    "code": code_service_pb2,
    "events": event_service_pb2,
    "server": server_service_pb2,
}


@pytest.fixture
def answering(stub: StubServer) -> StubServer:
    """Answers every unary call with a message in which every part is present."""
    for module in _MODULES.values():
        for service in module.DESCRIPTOR.services_by_name.values():
            for rpc in service.methods:
                if not rpc.server_streaming:
                    message = getattr(module, rpc.output_type.name)()
                    _fill(message)
                    stub.script(rpc.name, answer(message))
    ended = bootstrap_pb2.Cycle(cycle_id="C", state=bootstrap_pb2.CYCLE_STATE_ENDED, revision=1)
    stub.script("WatchCycle", stream(bootstrap_service_pb2.WatchCycleResponse(cycle=ended)))
    return stub


def _fill(message: Message) -> None:
    for field in message.DESCRIPTOR.fields:
        # A page token would lead to another page, for ever.
        if field.is_repeated or field.name == "next_page_token":
            continue
        if field.message_type is not None:
            getattr(message, field.name).SetInParent()
        elif field.type == field.TYPE_STRING:
            setattr(message, field.name, "text")


@pytest.mark.parametrize(("group", "method"), _UNARY)
async def test_a_call_sends_and_returns_what_its_original_does(
    answering: StubServer, group: str, method: str
) -> None:
    async with att_client.connect(answering.target) as att:
        original = getattr(getattr(att, group), method)
        args, kwargs = _arguments(original)
        expected = await _plain(original(*args, **kwargs))

    def blocking() -> Any:
        with att_client.sync.connect(answering.target) as att:
            return _taken_apart(getattr(getattr(att, group), method)(*args, **kwargs))

    assert await asyncio.to_thread(blocking) == expected
    (requests,) = [seen for rpc, seen in answering.requests.items() if rpc != "GetServerInfo"] or [
        answering.requests["GetServerInfo"][1::2]
    ]
    first, second = requests
    assert first == second


async def _plain(call: Coroutine[Any, Any, Any]) -> Any:
    return _taken_apart(await call)


def _taken_apart(result: Any) -> Any:
    return result.started if hasattr(result, "started") else result


def _arguments(call: Callable[..., Any]) -> tuple[list[Any], dict[str, Any]]:
    """A value for every parameter; of those that exclude each other, for one."""
    args: list[Any] = []
    kwargs: dict[str, Any] = {}
    for name, parameter in inspect.signature(call).parameters.items():
        hint = get_type_hints(call)[name]
        if parameter.kind is parameter.VAR_KEYWORD:
            (options,) = get_args(hint) if get_origin(hint) is Unpack else (hint,)
            assert is_typeddict(options)
            kwargs |= {key: _sample(kind) for key, kind in get_type_hints(options).items()}
        elif parameter.kind is parameter.KEYWORD_ONLY:
            if name not in {"patch", "commit", "tail", "since", "anchor"}:
                kwargs[name] = _sample(hint)
        else:
            args.append(_sample(hint))
    return args, kwargs


def _sample(hint: Any) -> Any:
    if get_origin(hint) is Literal:
        return get_args(hint)[-1]
    choices = [kind for kind in get_args(hint) if kind is not NoneType] or [hint]
    kind = get_origin(hint) if get_origin(hint) in _SAMPLES else choices[0]
    kind = get_origin(kind) or kind
    if kind in _SAMPLES:
        return _SAMPLES[kind]
    # An enum: its last value; a message: an empty one.
    return list(kind)[-1] if hasattr(kind, "__members__") else kind()


_SAMPLES: dict[Any, Any] = {
    str: "text",
    int: 3,
    bool: True,
    timedelta: timedelta(seconds=3),
    datetime: datetime(2026, 1, 1, tzinfo=UTC),
    Sequence: ["text"],
    Collection: [att_client.LogStream.STDERR],
    Mapping: {"a.py": "text"},
}


def _never_called(att: att_client.sync.Client) -> None:
    """What mypy sees of it: the types of the originals, without the waiting."""
    assert_type(att.projects.create("web", path="/srv"), att_client.Project)
    for project in att.projects.list(page_size=5):
        assert_type(project, att_client.Project)
    for page in att.projects.list().pages():
        assert_type(page, att_client.ListProjectsResponse)
    for item in att.logs.follow("web", markers=True):
        assert_type(item, att_client.LogItem)
    for batch in att.logs.follow("web").batches():
        assert_type(batch, att_client.LogBatch)
    for project_id, item in att.logs.merge(["web", "worker"], tail=10):
        assert_type(project_id, str)
        assert_type(item, att_client.LogItem)
    for change in att.runtimes.watch():
        assert_type(change, att_client.WatchRuntimesResponse)
    handle = att.bootstrap.start("web", edits={"a.py": None}, create_pr=False)
    assert_type(handle, att_client.sync.CycleHandle)
    assert_type(handle.wait(), att_client.Cycle)
    assert_type(handle.watch().revision, int)
    assert_type(iter(att.events.watch()), Iterator[att_client.Event])
    att.projects.create("web")  # type: ignore[call-arg]  # has to be refused: no path
    att.runtimes.start("web", wait="soon")  # type: ignore[arg-type]  # has to be refused
    att.bootstrap.plan("web", branch="x")  # type: ignore[call-arg]  # has to be refused
