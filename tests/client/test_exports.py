"""The public names are pinned: to add or to drop one is a decision."""

from __future__ import annotations

import subprocess
import sys

import att_client
from att_client import errors
from att_client.errors import AttError

_CLASSES = {
    "Client",
    "Config",
    "CycleHandle",
    "CycleOptions",
    "CycleWatch",
    "EventWatch",
    "FieldViolation",
    "LogBatch",
    "LogFollow",
    "LogItem",
    "LogLine",
    "LogMerge",
    "LogPage",
    "LogSelection",
    "Pager",
    "ProjectBatch",
    "ProjectItem",
    "SeverityReader",
    "RuntimeWatch",
}
_FUNCTIONS = {"connect", "log_items"}
_MESSAGES = {
    "ApprovalRequest",
    "CodeFile",
    "CodeMatch",
    "CodeRevision",
    "CommandProbe",
    "Cycle",
    "CycleRequest",
    "CycleResult",
    "CycleStepStatus",
    "DiffFilesResponse",
    "Event",
    "FileEdit",
    "FollowLogsResponse",
    "GetLogInfoResponse",
    "GetServerInfoResponse",
    "GrpcProbe",
    "HealthCheck",
    "HttpProbe",
    "ListCyclesResponse",
    "ListEventsResponse",
    "ListFilesResponse",
    "ListProjectsResponse",
    "ListReleasesResponse",
    "ListRuntimesResponse",
    "LogChunk",
    "LogGap",
    "LogProbe",
    "LogRecord",
    "PlanCycleResponse",
    "Probe",
    "Project",
    "ReadFileResponse",
    "ReadLogsResponse",
    "Release",
    "ResourceLimits",
    "RestartPolicy",
    "RollbackGate",
    "RollbackVerdict",
    "RunEnded",
    "RunMarker",
    "RunStarted",
    "Runtime",
    "RuntimeExit",
    "RuntimeSettings",
    "RuntimeUsage",
    "SearchFilesResponse",
    "TcpProbe",
    "TestReport",
    "TestResult",
    "WatchRuntimesResponse",
}
_ENUMS = {
    "CiStatus",
    "CycleKind",
    "CycleOutcome",
    "CycleState",
    "CycleStep",
    "CycleStepState",
    "DeploymentContext",
    "DesiredState",
    "ErrorReason",
    "HealthStatus",
    "LogAnchor",
    "LogGapReason",
    "LogSeverity",
    "LogStream",
    "ProjectMode",
    "ReleaseState",
    "RestartPolicyCondition",
    "RestartWatchdogStatus",
    "RollbackGateStatus",
    "RollbackPolicyStatus",
    "RuntimeState",
    "TestOutcome",
}


def test_the_public_names_are_these() -> None:
    exceptions = {
        name
        for name, value in vars(errors).items()
        if isinstance(value, type) and issubclass(value, AttError)
    }
    assert set(att_client.__all__) == _CLASSES | _FUNCTIONS | _MESSAGES | _ENUMS | exceptions
    assert len(set(att_client.__all__)) == len(att_client.__all__)


def test_every_public_name_is_there() -> None:
    assert all(hasattr(att_client, name) for name in att_client.__all__)


def test_importing_the_client_brings_in_no_server_and_no_command() -> None:
    code = (
        "import att_client, sys;"
        "heavy = {'att_server', 'att_client.cli', 'typer', 'rich', 'sqlalchemy'};"
        "print(heavy & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
