"""Only what is harmless to repeat is repeated."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

from google.protobuf.descriptor_pb2 import MethodOptions

from att.v1 import (
    bootstrap_service_pb2,
    code_service_pb2,
    event_service_pb2,
    log_service_pb2,
    project_service_pb2,
    runtime_service_pb2,
    server_service_pb2,
)
from att_client.retry import SERVICE_CONFIG, Backoff

_MODULES: tuple[Any, ...] = (
    bootstrap_service_pb2,
    code_service_pb2,
    event_service_pb2,
    log_service_pb2,
    project_service_pb2,
    runtime_service_pb2,
    server_service_pb2,
)


def test_the_service_config_repeats_only_what_a_server_that_is_gone_answers() -> None:
    (entry,) = json.loads(SERVICE_CONFIG)["methodConfig"]
    policy = entry["retryPolicy"]
    assert policy["retryableStatusCodes"] == ["UNAVAILABLE", "CANCELLED"]
    assert 2 <= policy["maxAttempts"] <= 5


def test_only_calls_that_are_safe_to_repeat_are_named() -> None:
    methods = {
        (service.full_name, method.name): method
        for module in _MODULES
        for service in module.DESCRIPTOR.services_by_name.values()
        for method in service.methods
    }
    (entry,) = json.loads(SERVICE_CONFIG)["methodConfig"]
    names = [(name["service"], name["method"]) for name in entry["name"]]
    assert len(set(names)) == len(names)
    for name in names:
        method = methods[name]
        safe = (
            method.GetOptions().idempotency_level != MethodOptions.IDEMPOTENCY_UNKNOWN
            or "request_id" in method.input_type.fields_by_name
            # Idempotent by the id that the caller chose.
            or method.name == "CreateProject"
        )
        assert safe, name
        assert not method.server_streaming, name


def test_waits_double_up_to_two_seconds_and_begin_anew() -> None:
    backoff = Backoff(lambda: 0.0)
    waits = [backoff.next().total_seconds() for _ in range(8)]
    assert waits == [0.05, 0.1, 0.2, 0.4, 0.5, 0.5, 0.5, 0.5]
    backoff.reset()
    assert backoff.next() == timedelta(seconds=0.05)


def test_waits_are_cut_by_up_to_half() -> None:
    assert Backoff(lambda: 0.999999).next() >= timedelta(seconds=0.025)
