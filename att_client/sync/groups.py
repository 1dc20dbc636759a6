"""The calls by group, blocking: each under the name, and with the signature, of its original."""

from __future__ import annotations

from att_client import bootstrap, code, events, logs, projects, runtimes, server
from att_client.sync.blocking import Group, blocking, blocking_giving, giving
from att_client.sync.cycle_handle import CycleHandle
from att_client.sync.log_follow import LogFollow
from att_client.sync.log_merge import LogMerge
from att_client.sync.paging import paged
from att_client.sync.watches import CycleWatch, EventWatch, RuntimeWatch


class Projects(Group[projects.Projects]):
    """The projects: one app each, with its directory and settings."""

    create = blocking(projects.Projects.create)
    get = blocking(projects.Projects.get)
    list = paged(projects.Projects.list)
    update = blocking(projects.Projects.update)
    set_mode = blocking(projects.Projects.set_mode)
    delete = blocking(projects.Projects.delete)


class Runtimes(Group[runtimes.Runtimes]):
    """The apps: at most one running per project."""

    start = blocking(runtimes.Runtimes.start)
    stop = blocking(runtimes.Runtimes.stop)
    restart = blocking(runtimes.Runtimes.restart)
    get = blocking(runtimes.Runtimes.get)
    list = paged(runtimes.Runtimes.list)
    watch = giving(RuntimeWatch, runtimes.Runtimes.watch)
    probe = blocking(runtimes.Runtimes.probe)
    signal = blocking(runtimes.Runtimes.signal)


class Logs(Group[logs.Logs]):
    """The logs: every line that a project's app printed, over all its runs."""

    read = blocking(logs.Logs.read)
    info = blocking(logs.Logs.info)
    trim = blocking(logs.Logs.trim)
    follow = giving(LogFollow, logs.Logs.follow)
    merge = giving(LogMerge, logs.Logs.merge)


class Bootstrap(Group[bootstrap.Bootstrap]):
    """Release cycles and releases. A cycle goes on when its caller leaves."""

    plan = blocking(bootstrap.Bootstrap.plan)
    start = blocking_giving(CycleHandle, bootstrap.Bootstrap.start)
    get = blocking(bootstrap.Bootstrap.get)
    list = paged(bootstrap.Bootstrap.list)
    watch = giving(CycleWatch, bootstrap.Bootstrap.watch)
    wait = blocking(bootstrap.Bootstrap.wait)
    cancel = blocking(bootstrap.Bootstrap.cancel)
    approve = blocking(bootstrap.Bootstrap.approve)
    reject = blocking(bootstrap.Bootstrap.reject)
    releases = paged(bootstrap.Bootstrap.releases)
    release = blocking(bootstrap.Bootstrap.release)
    evaluate_rollback = blocking(bootstrap.Bootstrap.evaluate_rollback)
    rollback = blocking_giving(CycleHandle, bootstrap.Bootstrap.rollback)


class Code(Group[code.Code]):
    """The code of projects as their repositories hold it. Changes nothing."""

    files = paged(code.Code.files)
    read = blocking(code.Code.read)
    search = blocking(code.Code.search)
    diff = blocking(code.Code.diff)
    test_report = blocking(code.Code.test_report)


class Events(Group[events.Events]):
    """The audit log: what was asked for, by whom, and what came of it."""

    list = blocking(events.Events.list)
    watch = giving(EventWatch, events.Events.watch)


class Server(Group[server.Server]):
    """The server itself."""

    info = blocking(server.Server.info)
