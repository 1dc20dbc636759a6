"""The loop: what the record says is to run, runs; what proves bad, is taken back."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from os.path import basename
from typing import Any

from att_server.launcher.child import Child
from att_server.launcher.record import FORMAT, Files
from att_server.sd_notify import notify
from att_server.stand_in import StandIn
from att_server.supervisor import json_file, processes

TRIES = 3
"""Starts in a row after which a good release that does not serve is left for another."""
LOSSES = 12
"""Starts that somebody ended from outside, and that cost no try: a release whose memory runs out
at each start looks the same, and must not be started for ever."""
PAUSE = 30.0
"""Seconds until everything is tried again, where nothing starts."""
LEAVES_WITHIN = 8.0
"""Seconds for a server that is to end, or that is bad and has to make way."""
STANDS_BY_AFTER = 3.0
"""Seconds from its start on that a release on trial is waited for where nobody serves."""
SPARE_SERVES_WITHIN = 0.5
"""Seconds after the end of a server in which its spare has taken the directory."""
READY_WITHIN = 60.0
"""Seconds that a good release has to serve, or as long as one on trial."""
GOOD_WITHIN = 600.0
PROVES_ITSELF = 60.0
"""Seconds of service after which earlier failures are forgotten."""
_LOOK_AGAIN = 0.05
_KEPT_ENDS = 16
_OWN = ("PYTHONPATH", "PYTHONHOME", "NOTIFY_SOCKET", "ATT_LAUNCH", "ATT_RELEASE_ID")


def now() -> float:
    """Seconds since boot: no setting of the clock moves it, and every process has the same."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class Launcher:
    """Owns the server of one state directory; what it decides is on disk before it is done.

    A release that the server wishes for is on trial: so many starts beside a server that
    serves, each ready in its time, and proven good by the server before its time is over;
    else it is left for the last good one. No release can forge that: only its own health
    check, and the server that asks for it, say good.

    Of the children one serves, and one at most is new: it begins, or is to serve again. Any
    other stands by: it has served, and does so again by itself when the one after it ends.
    """

    def __init__(
        self, state_dir: str, socket_path: str, options: Sequence[str], environ: Mapping[str, str]
    ) -> None:
        """options: for every server. Raises BlockingIOError where another launcher is there."""
        self.state_dir, self.socket_path = state_dir, socket_path
        self.options, self.environ = options, environ
        self.files = Files(state_dir)
        self.record = self.files.load()
        self.children: list[Child] = []
        self.serving: Child | None = None
        self.new: Child | None = None
        self.served_at, self.retry_at, self.given_up = 0.0, 0.0, set[str]()
        self.stand_in: StandIn | None = None

    def run(self) -> None:
        """Returns when the server was asked to end, or this process was, and it has ended."""
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        with contextlib.suppress(KeyboardInterrupt):  # it may come anywhere, as SIGKILL may
            self._adopt()
            while not self._settle():
                self._wait()
        for child in self.children:
            child.signal(signal.SIGTERM)
        deadline = now() + LEAVES_WITHIN
        while self.children and now() < deadline:
            self._wait()
            self._note_ends()

    def _adopt(self) -> None:
        """Finds the servers of the launcher before."""
        record, boot = self.record, processes.boot_id()
        if record.boot_id != boot:
            record.boot_id, record.good_by = boot, now() + GOOD_WITHIN
            record.servers = [{**form, "ticks": -1} for form in record.servers]
        for form in record.servers:
            try:
                child = Child(form)
            except (OSError, ValueError):
                self._note_end({**form, "output": ""}, None, "")
                continue
            self.children.append(child)
            if self._tenure(child) in ("serves", "ended"):
                self.serving = child
            elif not form.get("served"):
                self.new = child
            self.files.tell("adopted", launch=child.launch, pid=child.pid)
        if not self._on_trial():
            self._give(TRIES)
        self._kept()

    # What is to be done --------------------------------------------------------

    def _settle(self) -> bool:
        """Does what wish, record and processes ask for. True: the server was asked to end."""
        if self._note_ends():
            return True
        self._take_wish()
        record = self.record
        if self._on_trial() and now() > record.good_by:
            self._leave("not_proven_in_time")
        serving, new = self.serving, self.new
        stands_by = next((c for c in self.children if c not in (serving, new)), None)
        if new is not None:
            tried = self._on_trial() and new.release == record.current
            if now() > new.due:
                new.end("not_ready_in_time")
            elif tried and now() > new.since + STANDS_BY_AFTER and not self._is_served():
                new.end("left_alone")  # and tried again, beside a good one
                record.tries_left += 1
            elif serving is not None and not self._on_trial() and now() > new.since + LEAVES_WITHIN:
                serving.end("made_no_way")
        elif serving is not None and serving.release == record.current:
            if record.outcome == "trying":
                record.outcome = "serving"
                self._kept()
        elif serving is None and stands_by is not None:
            stands_by.due, self.new = now() + READY_WITHIN, stands_by
        elif serving is not None and stands_by is not None and stands_by.release == record.current:
            serving.end(record.reason or "rolled_back")
        elif now() >= self.retry_at or (self._on_trial() and not self._is_served()):
            self._start()
        return False

    def _take_wish(self) -> None:
        """Takes a wish once, by its id; the same one may say later that the release is good."""
        wish, record = self.files.wish(), self.record
        release = str(wish.get("release", ""))
        if wish and wish.get("id") != record.wish:
            record.wish, record.outcome, record.reason = str(wish.get("id")), "serving", ""
            if wish.get("format") != FORMAT:
                record.outcome, record.reason = "failed", "launcher_too_old"
            elif release != record.current:
                record.current, record.outcome = release, "trying"
                record.trial = "" if release in record.good else release
                self._give(int(wish.get("tries", 1)) if record.trial else TRIES)
                record.ready_within = float(wish.get("ready_within", record.ready_within))
                record.good_by = now() + float(wish.get("good_within", GOOD_WITHIN))
                if self.new is not None and self.new.release != release:
                    self.new.end("not_wanted")
            self.retry_at, self.given_up = 0.0, set()
            self._kept("wished", id=record.wish, release=release, reason=record.reason)
        elif wish.get("good") and release == record.current != record.good[0]:
            record.good = [release, *(each for each in record.good if each != release)][:2]
            record.trial = ""
            self._give(TRIES)
            self._kept("good", release=release)

    def _start(self) -> None:
        """Starts what is to run, while it has tries; a trial only beside what is good."""
        record = self.record
        if self._on_trial() and not self._is_served():
            self._begin(record.good[0])
            return
        if not record.tries_left:
            self._leave(record.reason)
            return
        record.tries_left -= 1
        if self._kept() or not self._on_trial():
            self._begin(record.current)
        else:  # a try that is not on the disk is none
            record.tries_left, self.retry_at = record.tries_left + 1, now() + 1

    def _begin(self, release: str) -> None:
        """Starts a server of the release, which waits until it is on record."""
        record, python = self.record, [sys.executable]
        if release:
            python = [os.path.join(self.state_dir, release, ".venv", "bin", "python"), "-P"]
        if not os.access(python[0], os.X_OK):
            record.reason, record.tries_left = f"release_missing: {python[0]}", 0
            return
        record.launches += 1
        form = {"launch": record.launches, "release": release, "began": time.time()}
        within = max(record.ready_within, READY_WITHIN if release in record.good else 0)
        form |= {"since": now(), "due": now() + within}
        form["output"] = self.files.path(f"output-{record.launches % 4}")
        # Nothing in it leads a release to the modules of another one.
        left_out = _OWN if release else _OWN[2:]
        env = {key: value for key, value in self.environ.items() if key not in left_out}
        env |= {"ATT_LAUNCH": f"{record.launches}", "ATT_RELEASE_ID": basename(release)}
        command = [*python, "-m", "att_server", "serve", "--take-over", *self.options]
        try:
            self.new = Child.start(command, env, form)
        except (OSError, ValueError) as error:
            record.reason, self.retry_at = f"start_error: {error}", now() + 1
            return
        self.children.append(self.new)
        kept = self._kept("started", **self.new.form)
        self.new.pass_gate(kept or release in record.good)  # what is good is started all the same

    # What has happened -----------------------------------------------------------

    def _note_ends(self) -> bool:
        """Notes who serves and who is gone. True: the one that served was asked to end."""
        gone, over = [each for each in self.children if each.ended()], False
        if self.new is not None and self._tenure(self.new) == "serves":
            self._serves(self.new)
        for child in gone:
            self.children.remove(child)
            asked, code = self._tenure(child) == "ended", child.close()
            served, begun = asked or child is self.serving, child is self.new
            if child is self.serving:
                self.serving, self.served_at = None, now()
            self.new = None if begun else self.new
            if served or begun:  # else it stood by
                self._ended(child, code, served=served)
                over = over or (asked and self.new is None)
            self._kept()
        return over

    def _note_end(self, form: Mapping[str, Any], code: int | None, doom: str) -> dict[str, Any]:
        """Notes an end; without a code or a doom of ours it was killed from outside."""
        reason = doom or (f"killed_by_{-code}" if code and code < 0 else f"exited_{code}")
        end = {**form, "code": code, "reason": reason, "ended": time.time()}
        end["lost"] = code in (None, -signal.SIGKILL) and not doom
        if end["lost"] and form["release"] == self.record.current and self.record.losses_left:
            self.record.losses_left -= 1
            self.record.tries_left += 1
        self.record.ended = [*self.record.ended, end][-_KEPT_ENDS:]
        self.files.tell("server_ended", **end)
        return end

    def _ended(self, child: Child, code: int | None, *, served: bool) -> None:
        """What follows from the end of one that served, or was to."""
        record, self.retry_at = self.record, now() + self._on_trial()
        end = self._note_end({**child.form, "output": child.output()}, code, child.doom)
        lost, current = end["lost"], child.release == record.current
        if current:
            record.reason = end["reason"]
        elif self._on_trial() and not (served or lost):
            self._leave(end["reason"])  # nothing good runs beside it
        if current and not self._on_trial():
            # Who is killed while it serves, or has served for long, is no worse for it.
            if served and (lost or now() > child.since + PROVES_ITSELF):
                self._give(TRIES)
            self.retry_at += max(0, TRIES - record.tries_left - 1) * 0.5

    def _serves(self, child: Child) -> None:
        """The new server serves: the one before has closed all that it had."""
        self.serving, self.new, child.since = child, None, now()
        child.form["served"] = True
        if self.stand_in is not None:
            self.stand_in.close()
            self.stand_in = None
        self._kept("serving", launch=child.launch, release=child.release)
        notify("READY=1", self.environ)

    def _leave(self, reason: str) -> None:
        """What is to run does not do: back to what is good, or was before it."""
        record, left = self.record, self.record.current
        event_type = "gave_up" if self._on_trial() else "fell_back"
        self.given_up.add(left)
        good = [each for each in record.good if each not in self.given_up]
        record.outcome, record.reason, record.trial = "failed", reason, ""
        record.current = (good or record.good)[0]
        self._give(TRIES)
        if good:
            self._kept(event_type, release=left, to=good[0], reason=reason)
            return
        names = " and ".join(basename(each) or "the installation" for each in self.given_up)
        message = (
            f"No release of ATT starts: {names} failed, the last one with {reason}. Apps run on, "
            f"and it is tried again. {self.files.path('events.jsonl')} holds what happened."
        )
        if self.stand_in is None and self.serving is None:
            with contextlib.suppress(OSError):
                self.stand_in = StandIn(self.socket_path, message)
        self.given_up, self.retry_at = set(), now() + PAUSE
        self._kept("broken", reason=reason, message=message)

    # Small things -----------------------------------------------------------------

    def _give(self, tries: int) -> None:
        """Has what is to run begin at once, with so many tries."""
        self.record.tries_left, self.record.losses_left, self.retry_at = tries, LOSSES, 0.0

    def _on_trial(self) -> bool:
        return bool(self.record.trial) and self.record.current == self.record.trial

    def _holder(self) -> dict[str, Any]:
        """Who holds the state directory and how far it is, as its lock says, or who did."""
        with contextlib.suppress(OSError, ValueError):
            return json_file.read(os.path.join(self.state_dir, "att.lock"))
        return {}

    def _tenure(self, child: Child) -> str:
        held = self._holder()
        return str(held.get("tenure", "")) if held.get("pid") == child.pid else ""

    def _is_served(self) -> bool:
        """Whether anybody serves, or is about to. A spare is no child: the lock tells of it."""
        held = self._holder()
        found = processes.find(int(held.get("pid", 0)))
        begins = self.new is not None and self._tenure(self.new) == "begins"
        lives = found is not None and not found.zombie and held.get("tenure") != "ended"
        if self.serving is not None or (lives and not begins):
            self.served_at = now()
        return now() < self.served_at + SPARE_SERVES_WITHIN

    def _kept(self, event_type: str = "", **facts: Any) -> bool:
        """Tells of it, and whether the record is on the disk now."""
        self.record.servers = [child.form for child in self.children]
        kept = self.files.save(self.record)
        if event_type:
            self.files.tell(event_type, **facts)
        return kept

    def _wait(self) -> None:
        """Returns when something has happened, or is to be looked at."""
        pause = _LOOK_AGAIN
        if self.new is None and self.serving and self.serving.release == self.record.current:
            pause = 1.0 if self._on_trial() else PAUSE
        watched = [self.files.bell, *(child.pidfd for child in self.children)]
        if self.files.bell in select.select(watched, [], [], pause)[0]:
            os.read(self.files.bell, 4096)
