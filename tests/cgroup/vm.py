"""`python -m tests.cgroup.vm --cache DIR`: the tests of control groups, where the kernel bounds.

They run in a machine of Debian's kernel, emulated, whose packages are fetched into DIR the first
time. Further words are pytest's, in place of the tests.
"""

from __future__ import annotations

import argparse
import os
import shlex
import sys
from pathlib import Path

from tests.cgroup.machine import Machine

TESTS = ("tests/supervisor/test_cgroup.py", "tests/cgroup")
DELEGATE = """
import os, sys
from att_server.supervisor.cgroup import delegated
os.setxattr("/sys/fs/cgroup/att.service", "user.delegate", b"1")
sys.exit(None if delegated() else "no group is delegated, so that tests would be skipped")
"""
WITHIN = 1800.0
"""Seconds that the machine has."""


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.cgroup.vm", description=__doc__)
    parser.add_argument("--cache", type=Path, required=True, metavar="DIR")
    parser.add_argument("words", nargs="*", metavar="WORD")
    options = parser.parse_args()
    machine = Machine(options.cache)
    machine.install()
    python = shlex.quote(sys.executable)
    tests = shlex.join(options.words or TESTS)
    return machine.run(
        f"cd {shlex.quote(os.getcwd())}\n"
        f"export PATH={shlex.quote(os.environ['PATH'])} HOME=/run TMPDIR=/run\n"
        f"{python} -c {shlex.quote(DELEGATE)} || exit\n"
        f"{python} -m pytest -p no:cacheprovider -v --color=no --durations 5 {tests}\n",
        within=WITHIN,
    )


if __name__ == "__main__":
    sys.exit(main())
