"""Tests of the example app, from the outside: `python3 -m unittest`."""
# ruff: noqa: PT009, PT027 the app and its tests need nothing but the standard library

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import tempfile
import time
import unittest
from pathlib import Path
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

APP = Path(__file__).with_name("app.py")


class RunningApp:
    """The app as a process on a free port; its output goes to files."""

    def __init__(self, *options: str) -> None:
        self._directory = tempfile.TemporaryDirectory()
        directory = Path(self._directory.name)
        self.printed_file = directory / "printed.json"
        self._outputs = {name: directory / name for name in ("stdout", "stderr")}
        with self._outputs["stdout"].open("wb") as out, self._outputs["stderr"].open("wb") as err:
            self.process = subprocess.Popen(
                [
                    sys.executable,
                    str(APP),
                    "--port",
                    "0",
                    *options,
                    "--printed-file",
                    str(self.printed_file),
                ],
                stdout=out,
                stderr=err,
            )

    def __enter__(self) -> RunningApp:
        return self

    def __exit__(self, *error: object) -> None:
        self.process.kill()
        self.process.wait()
        self._directory.cleanup()

    def output(self, stream: str) -> bytes:
        """What the app has written to "stdout" or "stderr" so far."""
        return self._outputs[stream].read_bytes()

    def port(self) -> int:
        """The port, once the app has said it."""
        deadline = time.monotonic() + 10
        while b"serves on port" not in self.output("stderr"):
            if time.monotonic() > deadline or self.process.poll() is not None:
                raise AssertionError(f"it does not serve: {self.output('stderr')!r}")
            time.sleep(0.01)
        text = self.output("stderr").decode()
        return int(text.partition("serves on port ")[2].split()[0])

    def get(self, page: str, body: object = None) -> dict[str, object]:
        """The JSON answer of a page."""
        data = None if body is None else json.dumps(body).encode()
        request = Request(f"http://127.0.0.1:{self.port()}{page}", data=data)
        with urlopen(request, timeout=10) as response:  # noqa: S310 - of this host, over http
            answer = json.load(response)
        assert isinstance(answer, dict)
        return answer

    def stop(self) -> int:
        """Stops the app with SIGTERM and returns its exit code."""
        self.process.terminate()
        return self.process.wait(timeout=10)


class AppTest(unittest.TestCase):
    """The app's pages, output and modes."""

    def test_it_is_healthy_and_tells_its_version(self) -> None:
        with RunningApp("--rate", "0") as app:
            self.assertEqual(app.get("/health"), {"status": "ok"})
            self.assertRegex(str(app.get("/version")["version"]), r"^\d+\.\d+\.\d+$")

    def test_it_answers_questions(self) -> None:
        answers = {
            "what is 6 * 7": "42",
            "What is (1 + 2) / -4?": "-0.75",
            "reverse abc": "cba",
            "count one two three": "3 words",
        }
        with RunningApp("--rate", "0") as app:
            for question, answer in answers.items():
                self.assertEqual(app.get("/ask", {"question": question})["answer"], answer)

    def test_a_bad_question_is_refused_and_the_app_goes_on(self) -> None:
        bad: list[object] = [{"question": "what is __import__('os')"}, {"question": 7}, ["?"]]
        bad.append({"question": "what is 1 / 0"})
        with RunningApp("--rate", "0") as app:
            for body in bad:
                with self.assertRaises(HTTPError) as refused:
                    app.get("/ask", body)
                self.assertEqual(refused.exception.code, 400)
                refused.exception.close()
            self.assertEqual(app.get("/health"), {"status": "ok"})

    def test_an_unknown_page_is_not_found(self) -> None:
        with RunningApp("--rate", "0") as app:
            with self.assertRaises(HTTPError) as refused:
                app.get("/nothing")
            self.assertEqual(refused.exception.code, 404)
            refused.exception.close()

    def test_what_it_counts_is_what_it_wrote(self) -> None:
        with RunningApp("--rate", "500", "--flood", "1000") as app:
            app.get("/ask", {"question": "what is 1 + 1"})
            self.assertEqual(app.stop(), 0)
            printed = json.loads(app.printed_file.read_text())
            for stream in ("stdout", "stderr"):
                written = app.output(stream)
                self.assertGreater(written.count(b"\n"), 0)
                self.assertEqual(
                    printed[stream],
                    {
                        "lines": written.count(b"\n"),
                        "sha256": hashlib.sha256(written).hexdigest(),
                    },
                )

    def test_a_slow_start_is_unhealthy_first(self) -> None:
        with RunningApp("--rate", "0", "--slow-start", "60") as app:
            with self.assertRaises(HTTPError) as refused:
                app.get("/health")
            self.assertEqual(refused.exception.code, 503)
            refused.exception.close()

    def test_a_crash_leaves_a_traceback_and_exit_code_1(self) -> None:
        with RunningApp("--rate", "100", "--crash-after", "0.1") as app:
            self.assertEqual(app.process.wait(timeout=10), 1)
            self.assertIn(b"Traceback (most recent call last):", app.output("stderr"))
            with self.assertRaises(URLError):
                app.get("/health")

    def test_a_daemon_child_outlives_it(self) -> None:
        with RunningApp("--rate", "0", "--daemon-child", "0.3") as app:
            app.port()
            self.assertEqual(app.stop(), 0)
            deadline = time.monotonic() + 10
            while b"line 2\n" not in app.output("stdout"):
                self.assertLess(time.monotonic(), deadline)
                time.sleep(0.01)


if __name__ == "__main__":
    unittest.main()
