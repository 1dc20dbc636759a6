"""The settings in force for a cycle: those of the base, with what the request gives over them."""

from __future__ import annotations

from dataclasses import replace
from typing import TypeVar

from att_server.core.cycles.model import CycleRequest
from att_server.core.cycles.settings import BootstrapSettings

T = TypeVar("T")


def with_request(settings: BootstrapSettings, request: CycleRequest) -> BootstrapSettings:
    """The settings with what `request` gives over them, key by key.

    A request may ask for an approval and not forgo one: gates are the settings'.
    A rollback is the request's own choice, either way.
    """
    approval, ci, rollback = settings.approval, settings.ci, settings.rollback
    return replace(
        settings,
        base_branch=request.base_branch or settings.base_branch,
        create_pr=_given(request.create_pr, settings.create_pr),
        auto_merge_on_ci_success=_given(
            request.auto_merge_on_ci_success, settings.auto_merge_on_ci_success
        ),
        restart_watchdog_retries=_given(
            request.restart_watchdog_retries, settings.restart_watchdog_retries
        ),
        restart_watchdog_interval=_given(
            request.restart_watchdog_interval, settings.restart_watchdog_interval
        ),
        health_check=_given(request.health_check_target, settings.health_check),
        health_check_retries=_given(request.health_check_retries, settings.health_check_retries),
        health_check_interval=_given(request.health_check_interval, settings.health_check_interval),
        bake_time=_given(request.bake_time, settings.bake_time),
        approval=replace(approval, required=approval.required or bool(request.require_approval)),
        ci=replace(
            ci,
            timeout=_given(request.ci_timeout, ci.timeout),
            initial_poll=_given(request.ci_initial_poll, ci.initial_poll),
            max_poll=_given(request.ci_max_poll, ci.max_poll),
        ),
        rollback=replace(
            rollback,
            on_deploy_failure=_given(
                request.rollback_on_deploy_failure, rollback.on_deploy_failure
            ),
            on_restart_watchdog_failure=_given(
                request.rollback_on_restart_watchdog_failure, rollback.on_restart_watchdog_failure
            ),
            on_health_failure=_given(
                request.rollback_on_health_failure, rollback.on_health_failure
            ),
        ),
    )


def _given(given: T | None, otherwise: T) -> T:
    return otherwise if given is None else given
