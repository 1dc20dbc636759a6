"""No secret gets into a log, in whatever pieces an app prints it."""

from __future__ import annotations

import os
import re
import select
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from att_server.supervisor.capture import Capture
from att_server.supervisor.log_writer import LogWriter
from att_server.supervisor.mask import Mask, MaskedStream
from att_server.supervisor.segment import (
    FLAG_PARTIAL,
    FLAG_UNTERMINATED,
    MAX_PAYLOAD_BYTES,
    SEGMENT_HEADER_BYTES,
    frames_in,
    segment_sequences,
)
from tests.server_process import PATIENCE

RUN = b"r" * 16

# Few different bytes, so that beginnings, repetitions and overlaps abound.
PIECES = st.binary(min_size=1, max_size=10).map(
    lambda data: bytes(b"ab*\n-\x00"[byte % 6] for byte in data)
)
SECRETS = st.lists(PIECES, max_size=4)


def pieces(secrets: Sequence[bytes]) -> st.SearchStrategy[list[bytes]]:
    """Reads of text with the secrets, and beginnings of them, in it."""
    parts = [PIECES]
    for secret in secrets:
        cut = st.integers(min_value=0, max_value=len(secret))
        parts += [st.just(secret), cut.map(lambda end, secret=secret: secret[:end])]  # type: ignore[misc]  # a default binds it
    return st.lists(st.one_of(parts), max_size=30)


CASES = SECRETS.flatmap(lambda secrets: st.tuples(st.just(secrets), pieces(secrets)))


def expected(mask: Mask, text: bytes) -> bytes:
    """The text with every byte of every occurrence masked, found one position after another."""
    hidden = bytearray(len(text))
    for pattern in mask.patterns:
        for at in range(len(text) - len(pattern) + 1):
            if text[at : at + len(pattern)] == pattern:
                hidden[at : at + len(pattern)] = b"\x01" * len(pattern)
    runs = re.finditer(rb"\x01+|\x00+", bytes(hidden))
    return b"".join(
        mask.replacement if run[0][0] else text[run.start() : run.end()] for run in runs
    )


@given(CASES)
@settings(max_examples=1500)
def test_every_byte_of_a_secret_is_masked_and_nothing_else(
    case: tuple[list[bytes], list[bytes]],
) -> None:
    secrets, reads = case
    mask = Mask(secrets)
    stream = MaskedStream(mask)
    output = b"".join(stream.feed(read) for read in reads) + stream.finish()
    assert output == expected(mask, b"".join(reads))
    for secret in secrets:
        assert len(secret) < 4 or secret not in output


@given(CASES)
@settings(max_examples=300)
def test_what_is_held_back_is_less_than_a_secret(case: tuple[list[bytes], list[bytes]]) -> None:
    secrets, reads = case
    mask = Mask(secrets)
    stream = MaskedStream(mask)
    longest = max((len(pattern) for pattern in mask.patterns), default=1)
    read, told = b"", b""
    for data in reads:
        read += data
        told += stream.feed(data)
        # What is told is what will be told, less what waits.
        whole = expected(mask, read)
        assert whole.startswith(told) or len(mask.patterns) == 0
        assert mask.undecided(read) < longest


# Through capture into the log -----------------------------------------------


class Log:
    """A capture of one stream, and the lines that it left."""

    def __init__(self, directory: Path, secrets: Sequence[bytes]) -> None:
        self.directory = directory
        self.log = LogWriter.open(directory, log_id="01M836MS9NWDXNHMM232WWS8GD", boot_id="b")
        read, self.write = os.pipe()
        os.set_blocking(read, False)
        self.epoll = select.epoll()
        self.capture = Capture(self.epoll, self.log, RUN, {read: 1}, lambda: None, secrets=secrets)

    def __enter__(self) -> Log:
        return self

    def __exit__(self, *_: object) -> None:
        self.log.close()
        self.epoll.close()

    def prints(self, data: bytes) -> None:
        """Written in portions that fit into the pipe, each read at once."""
        while data:
            data = data[os.write(self.write, data[:50_000]) :]
            self._poll(0)

    def pauses(self) -> None:
        """For so long that an unterminated line is shown."""
        self.capture.on_deadline(time.monotonic() + 60)

    def ends(self) -> None:
        os.close(self.write)
        deadline = time.monotonic() + PATIENCE
        while not self.capture.ended:
            assert time.monotonic() < deadline
            self._poll(0.1)
        self.log.flush()

    def output(self) -> bytes:
        """All bytes, less the newlines that are ours."""
        parts = []
        for first in segment_sequences(os.listdir(self.directory)):
            data = (self.directory / f"{first:020d}.seg").read_bytes()
            for offset, frame in frames_in(data, SEGMENT_HEADER_BYTES, first):
                end = offset + frame.total_size
                payload = data[end - frame.size : end]
                ours = frame.flags & (FLAG_PARTIAL | FLAG_UNTERMINATED)
                parts.append(payload[:-1] if ours else payload)
        return b"".join(parts)

    def _poll(self, timeout: float) -> None:
        for descriptor, _ in self.epoll.poll(timeout):
            self.capture.on_event(descriptor)


Opened = Callable[..., Log]

SECRET = b"s3cr3t-v4lue"


def test_a_secret_in_any_two_reads_with_a_pause_between_is_masked(tmp_path: Path) -> None:
    for cut in range(len(SECRET) + 1):
        with Log(tmp_path / str(cut), [SECRET]) as log:
            log.prints(b"key=" + SECRET[:cut])
            log.pauses()
            log.prints(SECRET[cut:] + b" is set\n")
            log.ends()
            assert log.output() == b"key=*** is set\n"


def test_what_only_begins_like_a_secret_is_shown_as_it_is(tmp_path: Path) -> None:
    with Log(tmp_path, [SECRET]) as log:
        log.prints(b"key=" + SECRET[:-1])
        log.pauses()
        log.prints(b"!\nkey=" + SECRET[:3])
        log.ends()
        assert log.output() == b"key=" + SECRET[:-1] + b"!\nkey=" + SECRET[:3]


def test_a_secret_across_the_cut_of_a_long_line_is_masked(tmp_path: Path) -> None:
    for shift in (0, 1, 5, len(SECRET) - 1, len(SECRET)):
        before = b"x" * (MAX_PAYLOAD_BYTES - 1 - shift)
        with Log(tmp_path / str(shift), [SECRET]) as log:
            log.prints(before + SECRET + b"y" * 100_000 + SECRET + b"\n")
            log.ends()
            assert log.output() == before + b"***" + b"y" * 100_000 + b"***\n"


def test_a_secret_larger_than_a_line_may_be_is_masked(tmp_path: Path) -> None:
    secret = os.urandom(60_000).hex().encode()
    with Log(tmp_path, [secret]) as log:
        log.prints(b"a" + secret + b"b\n" + secret[:-1] + b"\n")
        log.ends()
        assert log.output() == b"a***b\n" + secret[:-1] + b"\n"


def test_endless_repetitions_of_a_secret_wait_for_nothing(tmp_path: Path) -> None:
    with Log(tmp_path, [b"aaaa"]) as log:
        for _ in range(20):
            log.prints(b"a" * 50_000)
        log.prints(b"b\n")
        log.ends()
        assert log.output() == b"***b\n"


def test_of_a_secret_of_several_lines_each_long_one_is_masked(tmp_path: Path) -> None:
    secret = b"-----BEGIN KEY-----\nMIIEvQIBADANBg\nshort\n-----END KEY-----"
    with Log(tmp_path, [secret]) as log:
        log.prints(b"all: " + secret + b"\none: MIIEvQIBADANBg, short\n")
        log.ends()
        assert log.output() == b"all: ***\none: ***, short\n"


@pytest.mark.parametrize("value", [b"", b"1", b"yes"])
def test_a_short_value_is_no_secret(tmp_path: Path, value: bytes) -> None:
    assert not Mask([value])
    with Log(tmp_path, [value]) as log:
        log.prints(b"1 yes\n")
        log.ends()
        assert log.output() == b"1 yes\n"


def test_secrets_of_asterisks_do_not_come_about_by_masking(tmp_path: Path) -> None:
    secrets = [b"****", b"pass", b"***!", b"#-_."]
    with Log(tmp_path, secrets) as log:
        log.prints(b"pass! *pass* **pass\n")
        log.ends()
        output = log.output()
    assert not any(secret in output for secret in secrets)
    assert output == b"---! *---* **---\n"


def test_a_stream_does_not_complete_a_secret_of_the_other(tmp_path: Path) -> None:
    mask = Mask([SECRET])
    one, other = MaskedStream(mask), MaskedStream(mask)
    told = one.feed(b"one " + SECRET[:6]), other.feed(SECRET[6:] + b" other"), one.finish()
    assert told == (b"one ", SECRET[6:] + b" other", SECRET[:6])
