"""A failed call becomes the narrowest exception, with all that the server said."""

from __future__ import annotations

import pickle
from datetime import timedelta
from typing import Any

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from google.rpc import error_details_pb2

import att_client
from att_client import AttError, Client, ErrorReason, errors
from tests.client.stub_server import Context, StubServer, answer, fail, failure

_UNKNOWN = grpc.StatusCode.UNKNOWN


def _all(kind: type[AttError]) -> list[type[AttError]]:
    return [kind] + [sub for child in kind.__subclasses__() for sub in _all(child)]


async def _raised(att: Client, stub: StubServer, handler: Any) -> AttError:
    stub.script("GetProject", handler)
    with pytest.raises(AttError) as caught:
        await att.projects.get("web")
    return caught.value


def test_every_reason_has_exactly_one_class() -> None:
    reasons = [reason.name for reason in ErrorReason if reason is not ErrorReason.UNSPECIFIED]
    classes = [errors.error_class(_UNKNOWN, reason) for reason in reasons]
    assert len(set(classes)) == len(reasons)
    assert not set(classes) & {AttError, errors.UnknownError}


def test_every_code_has_exactly_one_class() -> None:
    codes = [code for code in grpc.StatusCode if code is not grpc.StatusCode.OK]
    classes = [errors.error_class(code) for code in codes]
    assert len(set(classes)) == len(codes)
    assert [kind.default_code for kind in classes] == codes


def test_the_tree_in_the_docstring_is_the_tree_of_the_classes() -> None:
    assert errors.__doc__ is not None
    told = [
        (len(line) - len(line.lstrip(" │├└─")), line.lstrip(" │├└─").split()[0])
        for line in errors.__doc__.splitlines()
        if line.lstrip(" │├└─").partition(" ")[0].endswith("Error")
    ]

    def walk(kind: type[AttError], depth: int) -> list[tuple[int, str]]:
        children = [found for child in kind.__subclasses__() for found in walk(child, depth + 4)]
        return [(depth, kind.__name__), *children]

    assert sorted(told) == sorted(walk(AttError, 4))


def test_errors_survive_pickling() -> None:
    for kind in _all(AttError):
        if kind is att_client.LogGapError:
            continue
        error = kind("text", reason="X", metadata={"a": "b"}, retry_delay=timedelta(1))
        again = pickle.loads(pickle.dumps(error))
        assert type(again) is kind
        assert vars(again) == vars(error)
    gap = att_client.LogGapError("text", att_client.LogGap(first_sequence=3))
    assert pickle.loads(pickle.dumps(gap)).gap == gap.gap


@pytest.mark.parametrize(
    "reason",
    [
        reason.name
        for reason in ErrorReason
        if reason
        # These are repeated before they are raised: see test_calls.
        and not issubclass(errors.error_class(_UNKNOWN, reason.name), errors.UnavailableError)
    ],
)
async def test_a_reason_on_the_wire_raises_its_class(
    att: Client, stub: StubServer, reason: str
) -> None:
    kind = errors.error_class(_UNKNOWN, reason)
    assert kind.default_code is not None
    error = await _raised(att, stub, failure(kind.default_code, reason, "why", key="value"))
    assert type(error) is kind
    assert (error.message, str(error), error.reason) == ("why", "why", reason)
    assert (error.code, error.metadata) == (kind.default_code, {"key": "value"})
    assert isinstance(error.__cause__, grpc.aio.AioRpcError)


async def test_violations_and_the_retry_delay_are_read(att: Client, stub: StubServer) -> None:
    async def handle(request: Any, context: Context) -> None:
        bad = error_details_pb2.BadRequest()
        bad.field_violations.add(field="path", description="is relative")
        bad.field_violations.add(field="project_id", description="is empty")
        retry = error_details_pb2.RetryInfo(retry_delay=Duration(seconds=2, nanos=500_000_000))
        code = grpc.StatusCode.INVALID_ARGUMENT
        await fail(context, code, "FIELD_INVALID", details=(bad, retry))

    error = await _raised(att, stub, handle)
    assert [(v.field, v.description) for v in error.violations] == [
        ("path", "is relative"),
        ("project_id", "is empty"),
    ]
    assert error.retry_delay == timedelta(seconds=2.5)


async def test_without_rich_details_the_trailer_names_the_reason(
    att: Client, stub: StubServer
) -> None:
    async def plain(request: Any, context: Context) -> None:
        await fail(context, grpc.StatusCode.NOT_FOUND, "PROJECT_NOT_FOUND", "gone", rich=False)

    async def mangled(request: Any, context: Context) -> None:
        trailers = (("att-reason", "PROJECT_NOT_FOUND"), ("grpc-status-details-bin", b"\xff\xff"))
        await context.abort(grpc.StatusCode.NOT_FOUND, "gone", trailers)

    for handler in (plain, mangled):
        error = await _raised(att, stub, handler)
        assert type(error) is att_client.ProjectNotFoundError
        assert (error.message, dict(error.metadata)) == ("gone", {})


async def test_an_unknown_reason_has_the_class_of_its_code(att: Client, stub: StubServer) -> None:
    async def handle(request: Any, context: Context) -> None:
        trailers = (("att-reason", "OF_A_LATER_VERSION"),)
        await context.abort(grpc.StatusCode.ABORTED, "no", trailers)

    error = await _raised(att, stub, handle)
    assert type(error) is att_client.AbortedError
    assert error.reason == "OF_A_LATER_VERSION"


async def test_an_error_of_another_domain_is_not_taken_for_ours(
    att: Client, stub: StubServer
) -> None:
    async def handle(request: Any, context: Context) -> None:
        other = error_details_pb2.ErrorInfo(reason="PROJECT_NOT_FOUND", domain="example.com")
        await fail(context, grpc.StatusCode.ABORTED, "PROJECT_BUSY", details=(other,))

    error = await _raised(att, stub, handle)
    assert type(error) is att_client.ProjectBusyError


async def test_a_call_that_the_server_does_not_know_says_which(
    att: Client, stub: StubServer
) -> None:
    error = await _raised(att, stub, failure(grpc.StatusCode.UNIMPLEMENTED))
    assert type(error) is att_client.UnimplementedError
    assert "GetProject" in error.message
    assert att.target in error.message


async def test_an_answer_that_cannot_be_read_is_a_protocol_error(
    att: Client, stub: StubServer
) -> None:
    assert type(await _raised(att, stub, answer(b"\x0a\xff"))) is att_client.ProtocolError
    assert type(await _raised(att, stub, answer(b""))) is att_client.ProtocolError
