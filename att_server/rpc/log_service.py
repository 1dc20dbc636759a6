"""LogService on the wire: records are encoded once and sent to every follower."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import aclosing
from datetime import timedelta
from weakref import WeakKeyDictionary

from google.protobuf.descriptor import ServiceDescriptor

from att.v1 import log_service_pb2 as pb
from att_server.core.logs import LogManager
from att_server.core.model import LogPage
from att_server.rpc import convert, convert_time, validate
from att_server.rpc.call import Answer, Call, Streaming, Unary
from att_server.rpc.log_wire import EncodedRecords, encode_records

DEFAULT_READ_LINES = 1000
DEFAULT_READ_BYTES = 1 << 20
DEFAULT_PROGRESS_INTERVAL = timedelta(seconds=15)


class LogService:
    """Reads and follows logs."""

    def __init__(self, logs: LogManager) -> None:
        self._logs = logs
        self._encoded: WeakKeyDictionary[LogPage, tuple[EncodedRecords, ...]] = WeakKeyDictionary()

    @property
    def descriptor(self) -> ServiceDescriptor:
        return pb.DESCRIPTOR.services_by_name["LogService"]

    def methods(self) -> Mapping[str, Unary | Streaming]:
        return {"ReadLogs": self._read, "FollowLogs": self._follow}

    async def _read(self, request: pb.ReadLogsRequest, _call: Call) -> Answer:
        validate.read_logs(request)
        read = await self._logs.read(
            request.project_id,
            convert.to_log_position(request.start),
            limit=request.limit or DEFAULT_READ_LINES,
            max_bytes=request.max_bytes or DEFAULT_READ_BYTES,
        )
        page = read.page
        # Short lines weigh more on the wire than the limits of the request count.
        first, *others = encode_records(page.records) or (_nothing(page),)
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
        )
        async with aclosing(followed) as items:
            async for item in items:
                page: LogPage = item.page
                for part in self._encode(page):
                    rest = pb.FollowLogsResponse(
                        cursor=part.cursor,
                        start_cursor=page.bounds.start,
                        end_cursor=page.bounds.end,
                        log_id=page.bounds.log_id,
                        bound_run_id=item.bound_run_id,
                    )
                    yield part.data + rest.SerializeToString()

    def _encode(self, page: LogPage) -> tuple[EncodedRecords, ...]:
        """The page's records, encoded once for all who read this page. Never empty."""
        encoded = self._encoded.get(page)
        if encoded is None:
            encoded = encode_records(page.records) or (_nothing(page),)
            self._encoded[page] = encoded
        return encoded


def _nothing(page: LogPage) -> EncodedRecords:
    return EncodedRecords(data=b"", cursor=page.cursor)
