"""The loop: what the record says is to run, runs; what proves bad, is taken back."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import time
from collections.abc import Mapping, Sequence
from os.path import basename
from typing import Any

from att_server.launcher.record import FORMAT, Files, printed
from att_server.launcher.servers import Child, Servers, now
from att_server.sd_notify import notify
from att_server.stand_in import StandIn
from att_server.supervisor import processes

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
READY_WITHIN = 60.0
"""Seconds that a good release has to serve, or as long as one on trial."""
GOOD_WITHIN = 600.0
PROVES_ITSELF = 60.0
"""Seconds of service after which earlier failures are forgotten."""
_LOOK_AGAIN = 0.05
_KEPT_ENDS = 16


class Launcher:
    """Owns the server of one state directory; what it decides is on disk before it is done.

    A release that the server wishes for is on trial: so many starts beside a server that
    serves, each ready in its time, and proven good by the server before its time is over;
    else it is left for the last good one. No release can forge that: only its own health
    check, and the server that asks for it, say good.
    """

    def __init__(self, state_dir: str, socket_path: str, options: Sequence[str]) -> None:
        """options: for every server. Raises BlockingIOError where another launcher is there."""
        self.socket_path, self.files = socket_path, Files(state_dir)
        self.record = self.files.load()
        self.servers = Servers(state_dir, options)
        self.retry_at, self.given_up = 0.0, set[str]()
        self.stand_in: StandIn | None = None

    def run(self) -> None:
        """Returns when the server was asked to end, or this process was, and it has ended."""
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        with contextlib.suppress(KeyboardInterrupt):  # it may come anywhere, as SIGKILL may
            self._adopt()
            while not self._settle():
                self._wait()
        for child in self.servers.children:
            child.signal(signal.SIGTERM)
        deadline = now() + LEAVES_WITHIN
        while self.servers.children and now() < deadline:
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
                self.servers.children.append(Child(form))
                self.files.tell("adopted", launch=form["launch"], pid=form["pid"])
            except (OSError, ValueError):
                self._note_end(form, None, "", served=bool(form.get("served")))
        if not record.trial:
            self._give(TRIES)
        self._kept()

    # What is to be done --------------------------------------------------------

    def _settle(self) -> bool:
        """Does what wish, record and processes ask for. True: the server was asked to end."""
        if self._note_ends():
            return True
        self._take_wish()
        record, servers = self.record, self.servers
        if record.trial and now() > record.good_by:
            self._leave("not_proven_in_time")
        serving, new, stands_by = servers.serving, servers.new, servers.stands_by
        if new is not None:
            self._look_after(new)
        elif serving is not None and serving.release == record.current:
            if record.outcome == "trying":
                record.outcome = "serving"
                self._kept()
        elif serving is None and stands_by is not None:
            stands_by.form |= {"served": False, "due": now() + READY_WITHIN}
        elif serving is not None and stands_by is not None and stands_by.release == record.current:
            serving.end(record.reason or "rolled_back")
        elif now() >= self.retry_at or (record.trial and not servers.is_served()):
            self._start()
        return False

    def _look_after(self, new: Child) -> None:
        """Ends a new server that takes too long, or the one that does not make way for it."""
        record, serving, age = self.record, self.servers.serving, now() - new.form["since"]
        tried = record.trial and new.release == record.trial and not new.doom
        if now() > new.form["due"]:
            new.end("not_ready_in_time")
        elif tried and age > STANDS_BY_AFTER and not self.servers.is_served():
            new.end("left_alone")  # and tried again, beside a good one
            record.tries_left += 1
        elif serving is not None and not record.trial and age > LEAVES_WITHIN:
            serving.end("made_no_way")

    def _take_wish(self) -> None:
        """Takes a wish once, by its id; the same one may say later that the release is good."""
        wish, record, new = self.files.wish(), self.record, self.servers.new
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
                if new is not None and new.release != release:
                    new.end("not_wanted")
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
        if record.trial and not self.servers.is_served():
            self._begin(record.good[0])
        elif not record.tries_left:
            self._leave(record.reason)
        else:
            record.tries_left -= 1
            if self._kept() or not record.trial:
                self._begin(record.current)
            else:  # a try that is not on the disk is none
                record.tries_left, self.retry_at = record.tries_left + 1, now() + 1

    def _begin(self, release: str) -> None:
        """Starts a server of the release, which waits until it is on record."""
        record, command = self.record, self.servers.command(release)
        if not os.access(command[0], os.X_OK):
            self._leave(f"release_missing: {command[0]}")
            return
        record.launches += 1
        within = max(record.ready_within, READY_WITHIN if release in record.good else 0)
        form = {"launch": record.launches, "release": release, "began": time.time()}
        form |= {"since": now(), "due": now() + within}
        form["output"] = self.files.path(f"output-{record.launches % 4}")
        try:
            child = self.servers.start(command, form)
        except (OSError, ValueError) as error:
            record.reason, self.retry_at = f"start_error: {error}", now() + 1
            return
        kept = self._kept("started", **child.form)
        child.pass_gate(kept or release in record.good)  # what is good is started all the same

    # What has happened -----------------------------------------------------------

    def _note_ends(self) -> bool:
        """Notes who serves and who is gone. True: the one that served was asked to end."""
        servers, over = self.servers, False
        gone = [each for each in servers.children if each.ended()]
        holder = servers.holder()
        for child in servers.children:
            # One that stood by does not serve before the end of the one after it is noted.
            may = servers.serving is None or not child.served
            if may and holder in ((child.pid, "serves"), (child.pid, "ended")):
                self._serves(child)
        for child in gone:
            asked = holder == (child.pid, "ended")
            served, code = asked or child is servers.serving, servers.remove(child)
            if served or not child.served:  # else it stood by
                self._note_end(child.form, code, child.doom, served=served)
                over = over or (asked and servers.new is None)
            self._kept()
        return over

    def _serves(self, child: Child) -> None:
        """It serves: the one before has closed all that it had."""
        self.servers.serving = child
        child.form |= {"served": True, "since": now()}
        if self.stand_in is not None:
            self.stand_in.close()
            self.stand_in = None
        self._kept("serving", launch=child.form["launch"], release=child.release)
        notify("READY=1", os.environ)

    def _note_end(
        self, form: Mapping[str, Any], code: int | None, doom: str, *, served: bool
    ) -> None:
        """Notes the end of one that served, or was to, and what follows from it.

        Without a code or a doom of ours it was killed from outside.
        """
        record, lost = self.record, code in (None, -signal.SIGKILL) and not doom
        reason = doom or (f"killed_by_{-code}" if code and code < 0 else f"exited_{code}")
        end = {**form, "code": code, "reason": reason, "lost": lost, "ended": time.time()}
        end["output"] = printed(form["output"])
        record.ended = [*record.ended, end][-_KEPT_ENDS:]
        self.files.tell("server_ended", **end)
        self.retry_at = now() + (1 if record.trial else 0)
        if form["release"] != record.current:
            if record.trial and not (served or lost):
                self._leave(reason)  # nothing good runs beside it
            return
        record.reason = reason
        if lost and record.losses_left:
            record.losses_left -= 1
            record.tries_left += 1
        if not record.trial:
            # Who is killed while it serves, or has served for long, is no worse for it.
            if served and (lost or now() > form["since"] + PROVES_ITSELF):
                self._give(TRIES)
            self.retry_at += max(0, TRIES - record.tries_left - 1) * 0.5

    def _leave(self, reason: str) -> None:
        """What is to run does not do: back to what is good, or was before it."""
        record, left = self.record, self.record.current
        event_type = "gave_up" if record.trial else "fell_back"
        self.given_up.add(left)
        good = [each for each in record.good if each not in self.given_up]
        record.outcome, record.reason, record.trial = "failed", reason, ""
        record.current = (good or record.good)[0]
        self._give(TRIES)
        if good:
            self._kept(event_type, release=left, to=good[0], reason=reason)
        else:
            self._pause(reason)

    def _pause(self, reason: str) -> None:
        """Nothing starts: calls are answered with that, until all is tried again."""
        names = " and ".join(basename(each) or "the installation" for each in self.given_up)
        message = (
            f"No release of ATT starts: {names} failed, the last one with {reason}. Apps run on, "
            f"and it is tried again. {self.files.path('events.jsonl')} holds what happened."
        )
        if self.stand_in is None and self.servers.serving is None:
            with contextlib.suppress(OSError):
                self.stand_in = StandIn(self.socket_path, message)
        self.given_up, self.retry_at = set(), now() + PAUSE
        self._kept("broken", reason=reason, message=message)

    # Small things -----------------------------------------------------------------

    def _give(self, tries: int) -> None:
        """Has what is to run begin at once, with so many tries."""
        self.record.tries_left, self.record.losses_left, self.retry_at = tries, LOSSES, 0.0

    def _kept(self, event_type: str = "", **facts: Any) -> bool:
        """Tells of it, and whether the record is on the disk now."""
        self.record.servers = [child.form for child in self.servers.children]
        kept = self.files.save(self.record)
        if event_type:
            self.files.tell(event_type, **facts)
        return kept

    def _wait(self) -> None:
        """Returns when something has happened, or is to be looked at."""
        pause, serving = _LOOK_AGAIN, self.servers.serving
        if self.servers.new is None and serving and serving.release == self.record.current:
            pause = 1.0 if self.record.trial else PAUSE
        watched = [self.files.bell, *(child.pidfd for child in self.servers.children)]
        if self.files.bell in select.select(watched, [], [], pause)[0]:
            os.read(self.files.bell, 4096)
