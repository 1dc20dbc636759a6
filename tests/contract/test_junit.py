"""JUnit XML is read as tests of all kinds write it, and hostile files do no harm."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import pytest

from att_server.adapters.junit import MAX_ALL_MESSAGES_BYTES, MAX_BYTES, JUnitDirectory, read_junit
from att_server.core.cycles.test_report import (
    MAX_MESSAGE_BYTES,
    MAX_RESULTS,
    JUnitResults,
    TestOutcome,
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "junit.xml"


def read(path: Path, text: str | bytes) -> JUnitResults:
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return read_junit(path)


def suite(*cases: str) -> str:
    return f"<testsuites><testsuite>{''.join(cases)}</testsuite></testsuites>"


# What tests write ------------------------------------------------------------------


def test_what_pytest_writes_is_read(path: Path, tmp_path: Path) -> None:
    (tmp_path / "test_it.py").write_text(
        "import pytest\n"
        "def test_good(): pass\n"
        "def test_bad(): assert 1 == 2, 'not equal'\n"
        "def test_skipped(): pytest.skip('later')\n"
        "@pytest.fixture\n"
        "def broken(): raise OSError('no disk')\n"
        "def test_error(broken): pass\n"
        "class TestGroup:\n"
        "    @pytest.mark.parametrize('x', ['<&>'])\n"
        "    def test_named(self, x): print('out')\n"
    )
    subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"--junitxml={path}"],
        cwd=tmp_path, check=False, capture_output=True,
    )  # fmt: skip
    results = read_junit(path)
    assert results.problem == ""
    assert (results.passed_count, results.failed_count, results.skipped_count) == (2, 2, 1)
    assert [(each.name, each.outcome.value) for each in results.results] == [
        ("test_it::test_bad", "failed"),
        ("test_it::test_error", "failed"),
        ("test_it::test_skipped", "skipped"),
        ("test_it::test_good", "passed"),
        ("test_it.TestGroup::test_named[<&>]", "passed"),
    ]
    assert "not equal" in results.results[0].message
    assert "no disk" in results.results[1].message
    assert "later" in results.results[2].message


def test_a_file_of_the_test_names_it_rather_than_its_class(path: Path) -> None:
    found = read(path, '<testsuite><testcase file="a/b.py" classname="a.b" name="t"/></testsuite>')
    assert found.results[0].name == "a/b.py::t"


def test_names_that_are_missing_or_hold_lines_are_made_up_for(path: Path) -> None:
    cases = "<testcase/>", '<testcase name="a&#10;b"/>', '<testcase classname="C"/>'
    found = read(path, suite(*cases))
    assert [each.name for each in found.results] == ["unnamed", "a b", "C"]


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("1.5", 1.5), ("1,000.25", 1000.25), ("", 0), ("x", 0), ("-1", 0), ("nan", 0), ("inf", 0)],
)
def test_a_duration_is_one_or_none(path: Path, text: str, seconds: float) -> None:
    found = read(path, suite(f'<testcase name="t" time="{text}"/>'))
    assert found.results[0].duration == timedelta(seconds=seconds)


def test_a_duration_without_end_is_bounded(path: Path) -> None:
    assert read(path, suite('<testcase name="t" time="1e300"/>')).results[0].duration.days <= 3650


def test_a_namespace_and_another_encoding_do_not_matter(path: Path) -> None:
    text = '<?xml version="1.0" encoding="{}"?><s xmlns="urn:x"><testcase name="ü"/></s>'
    for encoding in ("utf-8", "iso-8859-1", "utf-16"):
        found = read(path, text.format(encoding).encode(encoding))
        assert [each.name for each in found.results] == ["ü"]


def test_of_several_outcomes_of_a_test_the_worst_counts(path: Path) -> None:
    ends = '<skipped message="s"/><error message="e"/><failure message="f"/>'
    found = read(path, suite(f'<testcase name="t">{ends}</testcase>'))
    assert (found.results[0].outcome, found.results[0].message) == (TestOutcome.FAILED, "e")
    assert found.failed_count == 1


def test_what_a_test_prints_is_no_reason_of_its_failure(path: Path) -> None:
    case = (
        '<testcase name="t"><system-out>out<failure>no</failure></system-out>'
        "<failure>yes</failure><system-err>err</system-err></testcase>"
    )
    assert read(path, suite(case)).results[0].message == "yes"


# What is kept of it -----------------------------------------------------------------


def test_of_too_many_results_those_that_failed_are_kept(path: Path) -> None:
    cases = ['<testcase name="p"/>'] * (MAX_RESULTS + 5)
    cases += [
        '<testcase name="f"><failure/></testcase>',
        '<testcase name="s"><skipped/></testcase>',
    ]
    found = read(path, suite(*cases))
    assert len(found.results) == MAX_RESULTS
    assert [each.name for each in found.results[:3]] == ["f", "s", "p"]
    assert (found.passed_count, found.failed_count, found.skipped_count) == (MAX_RESULTS + 5, 1, 1)


def test_messages_are_cut_each_and_all_together(path: Path) -> None:
    case = f'<testcase name="{"n" * 5000}"><failure>{"ü" * 10_000}</failure></testcase>'
    found = read(path, suite(*[case] * 300))
    sizes = [len(each.message.encode()) for each in found.results]
    assert sizes[0] == MAX_MESSAGE_BYTES
    assert sum(sizes) <= MAX_ALL_MESSAGES_BYTES
    assert len(found.results) == found.failed_count == 300
    assert len(found.results[0].name) == 500


# What does no harm --------------------------------------------------------------------

_ENTITIES = "".join(
    f'<!ENTITY {name} "{f"&{of};" * 10}">' for of, name in zip("abcdefgh", "bcdefghi", strict=True)
)
LAUGHS = f'<!DOCTYPE l [<!ENTITY a "ha">{_ENTITIES}]><testsuite>&i;</testsuite>'


@pytest.mark.parametrize(
    "text",
    [
        LAUGHS,
        '<!DOCTYPE s [<!ENTITY x SYSTEM "file:///etc/passwd">]><s><testcase name="&x;"/></s>',
        '<!DOCTYPE s SYSTEM "http://127.0.0.1:1/x.dtd"><s/>',
        "<!DOCTYPE s><s/>",
    ],
)
def test_a_document_type_is_refused(path: Path, text: str) -> None:
    assert read(path, text) == JUnitResults(problem="junit_has_doctype")


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"not XML",
        b"\0" * 1000,
        b"<testsuite>",
        b"<a></b>",
        b"\xff\xfe<",
        b'<?xml version="1.0" encoding="no-such"?><s/>',
        b'<?xml version="1.0" encoding="utf-7"?><s/>',
        b"<s>&unknown;</s>",
        b"<d>" * 200 + b"</d>" * 200,
        b"<d>" * 500_000,
        os.urandom(10_000),
    ],
)
def test_what_is_no_junit_is_malformed(path: Path, text: bytes) -> None:
    assert read(path, text) == JUnitResults(problem="junit_malformed")


def test_what_was_read_before_the_end_broke_off_is_told(path: Path) -> None:
    found = read(path, '<testsuite><testcase name="t"/><testcase name="u">')
    assert [each.name for each in found.results] == ["t"]
    assert found.problem == "junit_malformed"


def test_a_file_that_is_too_large_is_not_read(path: Path) -> None:
    path.touch()
    os.truncate(path, MAX_BYTES + 1)
    assert read_junit(path).problem == "junit_too_large"


def test_the_largest_file_that_is_read_is_read(path: Path) -> None:
    case = b"<testcase/>"
    body = case * ((MAX_BYTES - 20) // len(case))
    found = read(path, b"<s>" + body + b"</s>")
    assert found.problem == ""
    assert found.passed_count == len(body) // len(case)


def test_only_a_regular_file_is_read(path: Path, tmp_path: Path) -> None:
    assert read_junit(path).problem == "junit_missing"
    assert read_junit(path / "below").problem == "junit_missing"
    (tmp_path / "file").write_text(suite('<testcase name="t"/>'))
    assert read_junit(tmp_path / "file" / "below").problem == "junit_not_a_file"
    path.symlink_to(tmp_path / "file")
    assert read_junit(path).problem == "junit_not_a_file"
    path.unlink()
    path.mkdir()
    assert read_junit(path).problem == "junit_not_a_file"
    path.rmdir()
    os.mkfifo(path)
    assert read_junit(path).problem == "junit_not_a_file"
    path.unlink()
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(path))
        assert read_junit(path).problem == "junit_not_a_file"
    assert read_junit(Path("/dev/zero")).problem == "junit_not_a_file"


# Where tests write ---------------------------------------------------------------------


async def test_a_place_is_empty_and_of_one_cycle(tmp_path: Path) -> None:
    files = JUnitDirectory(tmp_path / "junit")
    first, second = await files.place("C1"), await files.place("C2")
    first.write_text(suite('<testcase name="t"/>'))
    (first.parent / "more").mkdir()
    assert (await files.read(first)).passed_count == 1
    assert not second.exists()
    assert not (await files.place("C1")).exists()
    await files.discard("C1")
    await files.discard("C1")
    await files.discard("C2")
    assert list((tmp_path / "junit").iterdir()) == []
