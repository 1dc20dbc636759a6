"""From the core's specification of a run to a supervisor's."""

from __future__ import annotations

from att_server.core.model import RunSpec
from att_server.supervisor.limits import Limits
from att_server.supervisor.restart import RestartPolicy
from att_server.supervisor.spec import Inherited, Spec
from att_server.supervisor.state import State


def spec_of(
    spec: RunSpec, supervisor_id: str, *, epoch: int, after_loss: bool, before: State | None
) -> Spec:
    """What the supervisor is asked; before: the last state of the one that was lost."""
    policy, limits = spec.restart, spec.limits
    return Spec(
        supervisor_id=supervisor_id,
        project_id=spec.project_id,
        log_id=spec.log_id,
        epoch=epoch,
        digest=spec.digest(),
        command=spec.command,
        directory=str(spec.directory),
        env=spec.env,
        grace=spec.stop_grace,
        probed=spec.probed,
        release_id=spec.release_id,
        run_as=spec.run_as,
        restart=RestartPolicy(
            condition=policy.condition.value,
            initial=policy.initial_backoff.total_seconds(),
            max=policy.max_backoff.total_seconds(),
            factor=policy.backoff_factor,
            jitter=policy.backoff_jitter,
            max_restarts=policy.max_restarts,
            window=policy.window.total_seconds(),
            stable_after=policy.stable_after.total_seconds(),
        ),
        limits=Limits(
            memory_bytes=limits.memory_bytes,
            open_files=limits.open_files,
            processes=limits.processes,
            cpu_time=None if limits.cpu_time is None else limits.cpu_time.total_seconds(),
        ),
        history=_inherited(before) if after_loss and before is not None else Inherited(),
        after_loss=after_loss,
    )


def _inherited(before: State) -> Inherited:
    last = () if before.run is None else (before.run,)
    return Inherited(
        restarts=before.restarts,
        attempt=before.attempt,
        restart_times=before.restart_times,
        past=(*before.past, *last),
    )
