"""Access: the one way into every rpc of the contract.

In this order, and before the implementation sees the request: who calls, whether that
one has the role, whether it has too much going on, whether the projects exist for it,
and for all that a viewer may not do, that the call is on the disk.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import cast

from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.descriptor_pb2 import MethodOptions
from google.protobuf.message import Message

from att_server.core.audit import Act, AuditLog
from att_server.core.errors import AttError, Reason, project_not_found
from att_server.core.identity import Caller, Role
from att_server.rpc.auth import Authentication, on_socket, peer, required_role
from att_server.rpc.boundary import Context
from att_server.rpc.call import Answer, Call, Unary
from att_server.rpc.limits import CallLimits
from att_server.rpc.request_facts import arguments, cycle_paths, project_paths, values

_MAKES_PROJECTS = frozenset({"att.v1.ProjectService.CreateProject"})

STORES_FIRST = frozenset(
    {
        "att.v1.BootstrapService.CancelCycle",
        "att.v1.BootstrapService.DecideCycle",
        "att.v1.BootstrapService.StartCycle",
        "att.v1.ProjectService.DeleteProject",
        "att.v1.ProjectService.SetProjectMode",
        "att.v1.ProjectService.UpdateProject",
        "att.v1.RuntimeService.RestartRuntime",
        "att.v1.RuntimeService.SignalRuntime",
        "att.v1.RuntimeService.StartRuntime",
    }
)
"""Rpcs that store what they are about to do before they do anything. One that is not named
here costs a sync of the disk more, and nothing else."""

_CANCELLED = "CANCELLED"


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """What the contract says of who may call an rpc.

    name: as on the wire. makes_project: the project that is named need not exist.
    audited: every call is on the disk before it is made, and how it ended after.
    stores_first: as `STORES_FIRST` says.
    """

    name: str
    role: Role
    project_paths: tuple[tuple[str, ...], ...]
    cycle_paths: tuple[tuple[str, ...], ...]
    makes_project: bool
    audited: bool
    stores_first: bool = False

    @classmethod
    def reading(cls, name: str) -> Rule:
        """The rule of an rpc that is not of the contract, for viewers."""
        return cls(
            name=name,
            role=Role.VIEWER,
            project_paths=(),
            cycle_paths=(),
            makes_project=False,
            audited=False,
        )

    @classmethod
    def of(cls, method: MethodDescriptor) -> Rule:
        """The rule of an rpc. Raises TypeError when it declares no role, or a wrong one."""
        role = required_role(method)
        acts = method.GetOptions().idempotency_level != MethodOptions.NO_SIDE_EFFECTS
        if acts and role is Role.VIEWER:
            raise TypeError(f"{method.full_name} changes something, and a viewer may call it")
        return cls(
            name=f"{method.containing_service.full_name}/{method.name}",
            role=role,
            project_paths=project_paths(method.input_type),
            cycle_paths=cycle_paths(method.input_type),
            makes_project=method.full_name in _MAKES_PROJECTS,
            audited=role is not Role.VIEWER,
            stores_first=method.full_name in STORES_FIRST,
        )

    def projects(self, request: Message | None) -> list[str]:
        """The projects that the request names."""
        return [name for path in self.project_paths for name in values(request, path)]

    def cycles(self, request: Message | None) -> list[str]:
        """The cycles that the request names."""
        return [name for path in self.cycle_paths for name in values(request, path)]


class Access:
    """Lets calls in, or refuses them."""

    def __init__(
        self, *, authentication: Authentication, limits: CallLimits, audit: AuditLog
    ) -> None:
        self._authentication = authentication
        self._limits = limits
        self._audit = audit

    async def check(self, rule: Rule, context: Context, request: Message | None = None) -> Caller:
        """Who calls, if that one may call an rpc with this rule at all.

        request: is recorded with a refusal. Raises UNAUTHENTICATED, PERMISSION_DENIED,
        RATE_LIMITED.
        """
        caller = None
        try:
            caller = await self._authentication.caller(context)
            caller.require(rule.role)
        except AttError as error:
            self._refused(rule, request, context, caller, error)
            raise
        return caller

    async def answer(
        self, rule: Rule, request: Message, context: Context, implementation: Unary
    ) -> Answer:
        """The answer of `implementation` to a call that is let in. Raises as `check`, and
        PROJECT_NOT_FOUND, AUDIT_UNAVAILABLE, STORAGE_FULL."""
        caller = await self.check(rule, context, request)
        with self._limits.call(caller.principal):
            self._check_scope(rule, request, context, caller)
            if not rule.audited:
                return await implementation(request, _call(context, caller))
            act = self._act(rule, request, context, caller.principal)
            await self._audit.begin(act, stores_first=rule.stores_first)
            reason = _CANCELLED
            try:
                answer = await implementation(request, _call(context, caller))
                reason = ""
            except AttError as error:
                reason = error.reason
                raise
            except Exception:
                reason = Reason.INTERNAL
                raise
            finally:
                self._audit.ended(act, reason)
            return answer

    @asynccontextmanager
    async def stream(
        self, rule: Rule, request: Message | None, context: Context
    ) -> AsyncIterator[Call]:
        """The call of a stream that is let in; it ends when its caller would not be any more.

        Ends what is inside with UNAUTHENTICATED or PERMISSION_DENIED within a second of
        a revocation or expiry. Raises as `check`, and PROJECT_NOT_FOUND.
        """
        caller = await self.check(rule, context, request)
        with self._limits.stream(caller.principal):
            self._check_scope(rule, request, context, caller)
            async with self._authentication.watched(context, caller):
                yield _call(context, caller)

    def _check_scope(
        self, rule: Rule, request: Message | None, context: Context, caller: Caller
    ) -> None:
        if caller.projects is None:
            return
        for project_id in rule.projects(request):
            if not caller.sees(project_id):
                error = _out_of_scope(rule, project_id, caller)
                self._refused(rule, request, context, caller, error)
                raise error

    def _refused(
        self,
        rule: Rule,
        request: Message | None,
        context: Context,
        caller: Caller | None,
        error: AttError,
    ) -> None:
        if error.reason in (Reason.INTERNAL, Reason.SHUTTING_DOWN):
            return
        self._limits.refused(peer(context) if caller is None else caller.principal)
        principal = "" if caller is None else caller.principal
        self._audit.denied(self._act(rule, request, context, principal), error.reason)

    def _act(self, rule: Rule, request: Message | None, context: Context, principal: str) -> Act:
        known = isinstance(request, Message)
        projects = rule.projects(request) if known else []
        cycles = rule.cycles(request) if known else []
        return Act(
            call_id=self._audit.new_call_id(),
            method=rule.name,
            principal=principal,
            arguments=arguments(request) if isinstance(request, Message) and rule.audited else "",
            peer=peer(context),
            project_id=projects[0] if len(projects) == 1 else "",
            cycle_id=cycles[0] if len(cycles) == 1 else "",
        )


def _out_of_scope(rule: Rule, project_id: str, caller: Caller) -> AttError:
    if not rule.makes_project:
        return project_not_found(project_id)
    allowed = " ".join(sorted(caller.projects or ()))
    return AttError(
        Reason.PERMISSION_DENIED,
        f"{caller.principal} is limited to these projects and may make no other: {allowed}. Use a "
        "token without that limit.",
        required_role=rule.role,
    )


def _call(context: Context, caller: Caller) -> Call:
    remaining = cast("float | None", context.time_remaining())
    return Call(
        caller=caller,
        time_remaining=None if remaining is None else timedelta(seconds=max(0.0, remaining)),
        remote=not on_socket(context),
    )
