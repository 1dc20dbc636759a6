"""LogService on the wire: records are encoded once and sent to every follower."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import aclosing
from datetime import timedelta

from google.protobuf.descriptor import ServiceDescriptor

from att.v1 import log_service_pb2 as pb
from att_server.core.log_keeper import LogKeeper
from att_server.core.logs import LogManager
from att_server.core.model import LogPage
from att_server.rpc import convert, convert_time, validate
from att_server.rpc.call import Answer, Call, Streaming, Unary
from att_server.rpc.log_wire import encode_page

DEFAULT_READ_LINES = 1000
DEFAULT_READ_BYTES = 1 << 20
DEFAULT_PROGRESS_INTERVAL = timedelta(seconds=15)


class LogService:
    """Reads, follows and trims logs."""

    def __init__(self, logs: LogManager, keeper: LogKeeper) -> None:
        self._logs = logs
        self._keeper = keeper

    @property
    def descriptor(self) -> ServiceDescriptor:
        return pb.DESCRIPTOR.services_by_name["LogService"]

    def methods(self) -> Mapping[str, Unary | Streaming]:
        return {
            "ReadLogs": self._read,
            "FollowLogs": self._follow,
            "GetLogInfo": self._info,
            "TrimLogs": self._trim,
        }

    async def _read(self, request: pb.ReadLogsRequest, _call: Call) -> Answer:
        validate.read_logs(request)
        read = await self._logs.read(
            request.project_id,
            convert.to_log_position(request.start),
            limit=request.limit or DEFAULT_READ_LINES,
            max_bytes=request.max_bytes or DEFAULT_READ_BYTES,
            selected=convert.to_log_filter(request.filter),
        )
        page = read.page
        # Short lines weigh more on the wire than the limits of the request count.
        first, *others = encode_page(page)
        rest = pb.ReadLogsResponse(
            cursor=first.cursor,
            start_cursor=page.bounds.start,
            end_cursor=page.bounds.end,
            truncated=read.truncated,
            skipped=read.skipped,
            has_more=read.has_more or bool(others),
            log_id=page.bounds.log_id,
        )
        return first.data + rest.SerializeToString()

    async def _follow(self, request: pb.FollowLogsRequest, _call: Call) -> AsyncIterator[Answer]:
        validate.follow_logs(request)
        followed = self._logs.follow(
            request.project_id,
            convert.to_log_position(request.start),
            until_exit=request.until_exit,
            until_run_id=request.until_run_id,
            progress_interval=convert_time.to_timedelta(request.progress_interval)
            if request.HasField("progress_interval")
            else DEFAULT_PROGRESS_INTERVAL,
            max_bytes=request.max_bytes or validate.MAX_FOLLOW_BYTES,
            selected=convert.to_log_filter(request.filter),
        )
        async with aclosing(followed) as items:
            async for item in items:
                for message in follow_messages(item.page, item.bound_run_id):
                    yield message

    async def _info(self, request: pb.GetLogInfoRequest, _call: Call) -> Answer:
        validate.get_log_info(request)
        return convert.log_info(await self._keeper.info(request.project_id))

    async def _trim(self, request: pb.TrimLogsRequest, call: Call) -> Answer:
        validate.trim_logs(request)
        left = await self._keeper.trim(
            request.project_id, request.before_cursor, principal=call.principal
        )
        return pb.TrimLogsResponse(start_cursor=left.start)


def follow_messages(page: LogPage, bound_run_id: str) -> tuple[bytes, ...]:
    """The page as messages, made once for all who follow to the end of the same run."""
    made = page.forms.get(bound_run_id)
    if made is None:
        bounds = page.bounds
        rest = pb.FollowLogsResponse()
        rest.start_cursor, rest.end_cursor = bounds.start, bounds.end
        rest.log_id, rest.bound_run_id = bounds.log_id, bound_run_id
        messages: list[bytes] = []
        for data, cursor in encode_page(page):
            rest.cursor = cursor
            messages.append(data + rest.SerializeToString())
        made = page.forms[bound_run_id] = tuple(messages)
    return made
