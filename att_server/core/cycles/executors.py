"""RollbackExecutors: what can carry a rollback out, and does.

The runtime runs an app of this server's own. An external context is never
executed by it: a callable of the embedder does that, else a configured command.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta

from att_server.core.cycles.command_env import command_env
from att_server.core.cycles.hook_call import call_hook, takes
from att_server.core.cycles.project_commands import (
    OUTPUT_BYTES,
    command_evidence,
    command_failure,
    was_killed,
)
from att_server.core.cycles.settings import BootstrapSettings
from att_server.core.cycles.step import Hooks
from att_server.core.model import Project
from att_server.core.ports import CommandRunner
from att_server.core.rollback_policy import Executor

_TRIES = 3
"""Of a command that somebody else kills: that says nothing about the rollback."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ExternalRollback:
    """What is to be rolled back by somebody else. target: the request's `deploy_target`."""

    project: Project
    cycle_id: str
    target: str
    release_id: str
    settings: BootstrapSettings


class ExecutionFailed(Exception):
    """The executor says that it did not roll back, or says nothing in time.

    reason: in snake case. evidence, log_tail: for people.
    """

    def __init__(
        self, reason: str, message: str, *, evidence: Mapping[str, str], log_tail: bytes = b""
    ) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message
        self.evidence = dict(evidence)
        self.log_tail = log_tail


class RollbackExecutors:
    """Knows the executors there are, and calls those of external contexts.

    Each is called with project id, deploy target and release id, or with the first
    two where it takes two. It may be called again for the same rollback, where it
    was killed, or a server died before it noted the end: what it does twice has
    to be what it does once.
    """

    def __init__(
        self, *, runner: CommandRunner, hooks: Hooks, inherited_env: Mapping[str, str]
    ) -> None:
        """Raises ValueError for a callable that takes neither three nor two arguments."""
        self._runner = runner
        self._env = dict(inherited_env)
        self._callable = hooks.rollback_executor
        self._arity = 0 if self._callable is None else _arity(self._callable)

    def available(self, settings: BootstrapSettings) -> tuple[Executor, ...]:
        """Those there are, whatever the context; the policy says which may be used."""
        executors = [Executor.RUNTIME]
        if settings.external.rollback_command:
            executors.append(Executor.COMMAND)
        if self._callable is not None:
            executors.append(Executor.CALLABLE)
        return tuple(executors)

    async def execute(self, executor: Executor, wanted: ExternalRollback) -> Mapping[str, str]:
        """Rolls back, and returns evidence for people. Raises ExecutionFailed.

        executor: not the runtime, which no external context is for: ValueError.
        """
        match executor:
            case Executor.CALLABLE if self._callable is not None:
                return await self._call(self._callable, wanted)
            case Executor.COMMAND if wanted.settings.external.rollback_command:
                return await self._run(wanted)
        raise ValueError(f"an external context cannot be rolled back by {executor}")

    async def _call(
        self, function: Callable[..., object], wanted: ExternalRollback
    ) -> Mapping[str, str]:
        evidence = {"executor": str(Executor.CALLABLE), "arguments": str(self._arity)}
        timeout = wanted.settings.external.timeout
        try:
            await call_hook(function, *_arguments(wanted)[: self._arity], timeout=timeout)
        except TimeoutError as error:
            raise ExecutionFailed(
                "executor_timed_out",
                f"The rollback executor did not return within {_seconds(timeout)}.",
                evidence=evidence,
            ) from error
        except Exception as error:
            said = f"{type(error).__name__}: {error}"
            raise ExecutionFailed(
                "executor_raised",
                f"The rollback executor raised {said}.",
                evidence={**evidence, "error": said},
            ) from error
        return evidence

    async def _run(self, wanted: ExternalRollback) -> Mapping[str, str]:
        external = wanted.settings.external
        arguments = _arguments(wanted)[: external.rollback_arguments]
        env = command_env(
            self._env, {}, project_id=wanted.project.project_id, cycle_id=wanted.cycle_id
        )
        for _ in range(_TRIES):
            # In no slot: nothing is more urgent.
            result = await self._runner.run(
                (*external.rollback_command, *arguments),
                directory=wanted.project.path,
                env=env,
                timeout=external.timeout,
                output_bytes=OUTPUT_BYTES,
            )
            if not was_killed(result):
                break
        evidence = {
            "executor": str(Executor.COMMAND),
            "arguments": str(external.rollback_arguments),
            **command_evidence(result),
        }
        if failure := command_failure(result):
            raise ExecutionFailed(
                f"executor_{failure}",
                f"The rollback command {external.rollback_command[0]} failed: {failure}.",
                evidence=evidence,
                log_tail=result.output,
            )
        return evidence


def _arguments(wanted: ExternalRollback) -> tuple[str, str, str]:
    return wanted.project.project_id, wanted.target, wanted.release_id


def _arity(function: Callable[..., object]) -> int:
    for count in (3, 2):
        if takes(function, count):
            return count
    raise ValueError(
        "a rollback executor takes the project's id, the deploy target and the release's id, "
        "or the first two of them"
    )


def _seconds(duration: timedelta) -> str:
    return f"{duration.total_seconds():g} s"
