"""The supervisor's own log tells what was done, and never fails nor tells too much."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

from att_server.supervisor.own_log import MAX_BYTES, OWN_LOG, OwnLog

SECRET = 'pa"ss\\wörd\tx'


def lines(directory: Path, name: str = OWN_LOG) -> list[str]:
    return (directory / name).read_text(encoding="utf-8").splitlines()


def test_a_line_tells_when_who_what_and_the_facts(tmp_path: Path) -> None:
    log = OwnLog(str(tmp_path))
    log.note("state", state="running", pid=12, reason="", run_id=None, text="a b\nc")
    (line,) = lines(tmp_path)
    time, pid, rest = line.split(" ", 2)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", time)
    assert pid == str(os.getpid())
    assert rest == 'state state="running" pid="12" text="a b\\nc"'
    assert (tmp_path / OWN_LOG).stat().st_mode & 0o777 == 0o600


def test_a_defect_tells_where_it_happened(tmp_path: Path) -> None:
    try:
        json.loads("{")
    except ValueError as error:
        OwnLog(str(tmp_path)).defect(error, where="run")
    (line,) = lines(tmp_path)
    assert 'defect where="run"' in line
    assert "test_own_log.py" in line
    assert "JSONDecodeError: Expecting property name" in line


def test_no_secret_is_told_in_any_form(tmp_path: Path) -> None:
    log = OwnLog(str(tmp_path), [os.fsencode(SECRET)])
    log.note("command", text=f"x {SECRET} y")
    try:
        raise KeyError(SECRET)
    except KeyError as error:
        log.defect(error, where=SECRET)
    text = "\n".join(lines(tmp_path))
    for form in (SECRET, repr(SECRET)[1:-1], json.dumps(SECRET)[1:-1], "rd\\tx"):
        assert form not in text
    assert 'text="x *** y"' in text
    assert "KeyError: '***'" in text


def test_it_is_bounded_and_keeps_the_newest(tmp_path: Path) -> None:
    log = OwnLog(str(tmp_path))
    for number in range(3000):
        log.note("number", number=number, padding="x" * 1000)
    sizes = [entry.stat().st_size for entry in tmp_path.iterdir()]
    assert len(sizes) == 2
    assert max(sizes) <= MAX_BYTES
    assert 'number="2999"' in lines(tmp_path)[-1]
    assert len(lines(tmp_path)) + len(lines(tmp_path, OWN_LOG + ".1")) > 1000


def test_a_very_long_line_is_cut(tmp_path: Path) -> None:
    log = OwnLog(str(tmp_path))
    for start in ("", "."):  # so that the cut is within a character once
        log.note("long", text=start + "ä" * 5_000_000)
    log.note("next")
    *long, last = lines(tmp_path)
    assert [8 * 1024 - 3 <= len(line.encode()) < 8 * 1024 for line in long] == [True] * 2
    assert last.endswith(" next")


def test_where_it_cannot_be_written_the_line_is_lost_and_nothing_else(tmp_path: Path) -> None:
    OwnLog(str(tmp_path / "none")).note("lost")
    OwnLog(str(tmp_path / "none")).defect(ValueError("lost"), where="here")
    os.symlink("/dev/full", tmp_path / OWN_LOG)
    OwnLog(str(tmp_path)).note("nothing is written through a link")
    (tmp_path / OWN_LOG).unlink()
    (tmp_path / OWN_LOG).mkdir()
    OwnLog(str(tmp_path)).note("lost")
    OwnLog("/dev/full").note("lost")
    assert os.listdir(tmp_path / OWN_LOG) == []


def test_a_full_disk_costs_lines_and_nothing_else(tmp_path: Path) -> None:
    program = (
        "import resource, sys; sys.path.append(sys.argv[1])\n"
        "from att_server.supervisor.own_log import OwnLog\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (500, 500))\n"
        "for number in range(50): OwnLog(sys.argv[2]).note('number', number=number)\n"
    )
    command = [sys.executable, "-I", "-S", "-c", program, os.getcwd(), str(tmp_path)]
    subprocess.run(command, check=True)
    assert (tmp_path / OWN_LOG).stat().st_size <= 500
    assert 'number="0"' in lines(tmp_path)[0]


def test_several_lives_write_one_after_the_other(tmp_path: Path) -> None:
    OwnLog(str(tmp_path)).note("first")
    OwnLog(str(tmp_path), [b"secret"]).note("second", odd="\udcff \ud800")
    assert [line.split(" ")[2] for line in lines(tmp_path)] == ["first", "second"]
