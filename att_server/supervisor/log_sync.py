"""What the disk is made to keep of a log, and when: a thread beside the writer.

Sequence numbers are written only below a mark that is already on the disk, in
`head.json`. The thread raises the mark ahead of the writer, forces complete
segments and, from time to time, the open one to the disk, and tries again while
the disk is full.
"""

from __future__ import annotations

import errno
import os
import threading
import time

from att_server.supervisor.log_appender import Appender, Record
from att_server.supervisor.log_files import Files
from att_server.supervisor.log_recovery import Place, Recovered
from att_server.supervisor.segment import HEAD_NAME, Head, run_to_text

MIN_WINDOW = 1024
MAX_WINDOW = 1 << 20
CHECKPOINT_BYTES = 1 << 20
RETRY_SECONDS = 0.1
_OUTRUN_FACTOR = 8
_CALM_SECONDS = 30.0


class LogSync:
    """Makes the disk keep what `appender` writes.

    interval: seconds between two syncs of the open segment; None: never, except
    when it is complete. every_write: each `write` returns after a sync instead.
    """

    def __init__(
        self,
        appender: Appender,
        *,
        log_id: str,
        boot_id: str,
        recovered: Recovered,
        files: Files,
        interval: float | None,
        every_write: bool,
    ) -> None:
        self._appender = appender
        self._log_id = log_id
        self._boot_id = boot_id
        self._start = recovered.start
        self._files = files
        self._interval = interval
        self._every_write = every_write
        # Guards the appender and all below; never held while the disk is waited for,
        # except for a plain write.
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        self._reserved = recovered.resume_at
        self._reserve_failure: OSError | None = None
        self._outrun = False
        self._window = MIN_WINDOW
        # The sequence number behind which the mark is raised again.
        self._raise_behind = self._reserved - MIN_WINDOW // 2
        self._raised_at = time.monotonic()
        self._retry_at = 0.0
        self._sync_at = None if interval is None or not appender.unsynced else time.monotonic()
        self._synced: Place = recovered.synced
        self._checkpoint: Place | None = None
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="log-sync", daemon=True)

    def start(self) -> None:
        """Starts the thread, whose first act is to raise the mark."""
        self._thread.start()

    @property
    def stopped(self) -> bool:
        """Whether `close` was called."""
        return self._stopping

    def write(self, records: list[Record]) -> None:
        """Writes records, or counts them as lost while the disk cannot be written."""
        if self._stopping:
            raise ValueError("the log is closed")
        appender = self._appender
        with self._lock:
            appender.add(records)
            if appender.failure is None:
                if appender.next_sequence > self._reserved:
                    self._wait_for_reserve()
                if self._reserve_failure is not None:
                    appender.fail(self._reserve_failure)
                else:
                    appender.write(self._reserved)
            if self._sync_at is None and self._interval is not None:
                self._sync_at = time.monotonic() + self._interval
                self._changed.notify_all()
            elif appender.failure is not None or appender.sealed or self._reserve_low():
                self._changed.notify_all()
        if self._every_write:
            self._sync()
            with self._lock:
                if self._checkpoint_due():
                    self._changed.notify_all()

    def close(self) -> None:
        """Writes and syncs everything, gives unused numbers back, closes all files.

        Raises OSError if something could not be written.
        """
        with self._lock:
            self._stopping = True
            self._changed.notify_all()
        self._thread.join()
        appender = self._appender
        try:
            if appender.failure is not None:
                self._raise_mark()
                self._retry()
            if appender.failure is not None:
                raise appender.failure
            self._sync()
            self._put_head(appender.next_sequence)
        finally:
            appender.close()

    # The thread ------------------------------------------------------------

    def _run(self) -> None:
        try:
            while self._turn():
                pass
        except Exception as error:
            # A writer must not wait for a thread that is gone.
            failure = OSError(errno.EIO, f"syncing failed: {error}")
            with self._lock:
                self._reserve_failure = failure
                self._changed.notify_all()
            raise

    def _turn(self) -> bool:
        """Does what is most urgent, or waits until there is something; False: stop."""
        with self._lock:
            now = time.monotonic()
            low = self._reserve_low()
            failing = self._reserve_failure is not None or self._appender.failure is not None
            due = self._checkpoint_due()
            calm = now >= self._retry_at
            raise_mark = low and (self._reserve_failure is None or calm)
            retry = failing and calm
            keep = due and calm
            # With a sync at every write, who writes syncs complete segments too.
            sync = (bool(self._appender.sealed) and not self._every_write) or (
                self._sync_at is not None and now >= self._sync_at
            )
            if not (raise_mark or retry or sync or keep):
                if self._stopping:
                    return False
                times = [] if self._sync_at is None else [self._sync_at]
                if failing or due:
                    times.append(self._retry_at)
                self._changed.wait(max(0.0, min(times) - now) if times else None)
                return True
        if raise_mark:
            self._raise_mark()
        if retry:
            self._retry()
        if sync:
            self._sync()
        if keep:
            self._keep_checkpoint()
        return True

    def _reserve_low(self) -> bool:
        return self._appender.next_sequence > self._raise_behind

    def _wait_for_reserve(self) -> None:
        while self._reserve_failure is None and self._appender.next_sequence > self._reserved:
            self._outrun = True
            self._changed.notify_all()
            self._changed.wait()

    def _raise_mark(self) -> None:
        with self._lock:
            now = time.monotonic()
            if self._outrun:
                self._window = min(MAX_WINDOW, self._window * _OUTRUN_FACTOR)
            elif now - self._raised_at < 1.0:
                self._window = min(MAX_WINDOW, self._window * 2)
            elif now - self._raised_at > _CALM_SECONDS:
                self._window = max(MIN_WINDOW, self._window // 2)
            self._outrun = False
            self._raised_at = now
            mark = self._appender.next_sequence + self._window
        failure: OSError | None = None
        try:
            self._put_head(mark)
        except OSError as error:
            failure = error
        with self._lock:
            self._reserve_failure = failure
            if failure is None:
                self._reserved = mark
                self._raise_behind = mark - self._window // 2
            else:
                self._retry_at = time.monotonic() + RETRY_SECONDS
            self._changed.notify_all()

    def _retry(self) -> None:
        with self._lock:
            appender = self._appender
            if appender.failure is not None and appender.next_sequence <= self._reserved:
                appender.write(self._reserved)
            self._retry_at = time.monotonic() + RETRY_SECONDS

    def _sync(self) -> None:
        """Makes the disk keep all that is written now."""
        appender = self._appender
        with self._lock:
            sealed, appender.sealed = appender.sealed, []
            fd = appender.fd if appender.unsynced else None
            directory_changed, appender.directory_changed = appender.directory_changed, False
            place, segment_start = appender.place, appender.segment_start
            timed = self._interval is not None or self._every_write or self._stopping
            if timed:
                appender.unsynced = False
                self._sync_at = None
        try:
            for complete in sealed:
                self._files.sync(complete)
            if fd is not None and timed:
                self._files.sync(fd)
            if directory_changed:
                self._files.sync_directory(appender.directory)
        except OSError:
            # What the disk refused once it will not have later: the checkpoint
            # stays before it, and recovery looks at everything from there on.
            return
        finally:
            for complete in sealed:
                self._files.close(complete)
        self._synced = place if timed else segment_start

    def _checkpoint_due(self) -> bool:
        kept, synced = self._checkpoint, self._synced
        return kept is not None and (
            kept.segment != synced.segment or synced.offset - kept.offset >= CHECKPOINT_BYTES
        )

    def _keep_checkpoint(self) -> None:
        try:
            self._put_head(self._reserved)
        except OSError:
            # The old checkpoint is right as well.
            self._retry_at = time.monotonic() + RETRY_SECONDS

    def _put_head(self, reserved: int) -> None:
        """Replaces `head.json`, durably. Raises OSError."""
        place = self._synced
        head = Head(
            log_id=self._log_id,
            start=self._start,
            next=place.next_sequence,
            reserved=reserved,
            boot_id=self._boot_id,
            segment=place.next_sequence if place.segment is None else place.segment,
            offset=place.offset,
            time_ns=place.time_ns,
            run=run_to_text(place.run) if place.run else "",
        )
        directory = self._appender.directory
        path = directory / HEAD_NAME
        draft = path.with_suffix(".tmp")
        data = head.encode()
        fd = self._files.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        try:
            if self._files.write(fd, [data], 0) < len(data):
                raise OSError(errno.ENOSPC, "the head does not fit")
            self._files.sync(fd)
        finally:
            self._files.close(fd)
        self._files.rename(draft, path)
        self._files.sync_directory(directory)
        self._checkpoint = place
