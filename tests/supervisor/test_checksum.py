"""The checksum of a log is that of zlib, with and without the library that makes it quicker."""

from __future__ import annotations

import subprocess
import sys
import zlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from isal import isal_zlib

from att_server.supervisor import checksum

ROOT = Path(__file__).parents[2]
SITE = Path(isal_zlib.__file__).parents[1]


def test_the_quicker_one_is_used_where_it_is_there() -> None:
    assert checksum.crc32 is isal_zlib.crc32


@given(st.binary(max_size=1000), st.binary(max_size=1000))
def test_both_make_the_same_number_and_go_on_from_it(first: bytes, then: bytes) -> None:
    begun = checksum.crc32(first)
    assert begun == zlib.crc32(first)
    assert checksum.crc32(memoryview(then), begun) == zlib.crc32(first + then)


@pytest.mark.parametrize("folders", [[ROOT], [ROOT, SITE]], ids=["without", "with"])
def test_a_supervisor_loads_without_it_too(folders: list[Path]) -> None:
    # As the zygote is started, which knows nothing of installed packages.
    code = (
        "import sys; sys.path += sys.argv[1:]; import att_server.supervisor.zygote; "
        "from att_server.supervisor.checksum import crc32; print(crc32.__module__, crc32(b'att'))"
    )
    command = [sys.executable, "-I", "-S", "-c", code, *map(str, folders)]
    module = "isal.isal_zlib" if SITE in folders else "zlib"
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert printed.split() == [module, str(zlib.crc32(b"att"))]
