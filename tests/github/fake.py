"""A small GitHub on a real socket, with a bare repository for its git.

It keeps pull requests, comments, checks and rules; merges for real; and fails as it is
told. What it is asked and what it answers is held against GitHub's own description:
`wrong` lists all that was not in its form.
"""

from __future__ import annotations

import json
import subprocess
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from socket import SHUT_RDWR
from types import TracebackType
from typing import Any, Self
from urllib.parse import parse_qsl, urlsplit

from tests.contract.git_projects import git
from tests.github.contract import example, operation, wrong_in_answer, wrong_in_request

NAME = "octo/app"
TOKEN = "ghp_a-token-for-tests"
ID = 1296269
UNSEEN: dict[str, object] = {"message": "No commit found for SHA"}
LATER = "2026-01-01T00:00:00Z"


@dataclass(frozen=True, kw_only=True)
class Fault:
    """What a request meets. status None: the connection ends without an answer.

    acts: whether what was asked for is done all the same. then: is called before that,
    afterwards: after it, and before an answer.
    """

    status: int | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    body: Any = None
    acts: bool = False
    then: Callable[[], object] = lambda: None
    afterwards: Callable[[], object] = lambda: None


DIES_BEFORE = Fault()
DIES_AFTER = Fault(acts=True)


@dataclass(frozen=True, kw_only=True)
class Pull:
    number: int
    head: str
    base: str
    title: str
    body: str
    sha: str
    state: str = "open"
    merged: str = ""


@dataclass(frozen=True, kw_only=True)
class Run:
    """A check run."""

    name: str = "test"
    conclusion: str | None = "success"
    app: int = 15368
    summary: str = ""


class Refused(Exception):
    """An answer with an error."""

    def __init__(self, status: int, message: str, **more: object) -> None:
        super().__init__(message)
        self.status = status
        self.body: dict[str, object] = {
            "message": message,
            "documentation_url": "https://docs.github.com",
            **more,
        }


class FakeGitHub:
    """Serves one repository. All that tests may set are public attributes."""

    def __init__(self, remote: Path) -> None:
        """remote: the bare repository."""
        self.remote = remote
        self.pulls: dict[int, Pull] = {}
        self.comments: dict[int, list[str]] = {}
        self.runs: Callable[[str], list[Run]] = lambda _: [Run()]
        self.statuses: Callable[[str], list[tuple[str, str]]] = lambda _: []
        self.rules: list[dict[str, Any]] = []
        self.required: list[str] = []
        self.allows = {"merge": True, "squash": True}
        self.blocked = ""
        self.may_write = True
        self.archived = False
        self.moved_to = ""
        self.weather: Callable[[str, str], Fault | None] = lambda _method, _path: None
        self.faults: list[tuple[str, str, Fault]] = []
        self.seen: list[tuple[str, str, int | None]] = []
        self.wrong: list[str] = []
        self._lock = threading.RLock()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def fails(self, method: str, path: str, *faults: Fault) -> None:
        """The next requests of the method whose paths end so meet these, one each."""
        self.faults += [(method, path, fault) for fault in faults]

    def count(self, method: str, path: str) -> int:
        """How many requests of the method came to paths that end so."""
        return sum(m == method and p.endswith(path) for m, p, _ in self.seen)

    # Serving ------------------------------------------------------------------

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        fake = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def log_message(self, *_: object) -> None:
                pass

            def answer(self) -> None:
                length = int(self.headers.get("Content-Length", 0))
                body = json.loads(self.rfile.read(length)) if length else None
                headers = {name.lower(): value for name, value in self.headers.items()}
                answered = fake.answer(self.command, self.path, headers, body)
                if answered is None:
                    self.close_connection = True
                    self.connection.shutdown(SHUT_RDWR)
                    return
                status, given, said = answered
                content = b"" if said is None else json.dumps(said).encode()
                self.send_response_only(status)
                own = {"Content-Type": "application/json", "Date": self.date_time_string()}
                for name, value in {**own, **given}.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            do_GET = do_POST = do_PUT = do_PATCH = answer  # noqa: N815 - the server's names

        return Handler

    def answer(
        self, method: str, target: str, headers: Mapping[str, str], body: Any
    ) -> tuple[int, Mapping[str, str], Any] | None:
        """Status, headers and body; None: the connection ends."""
        url = urlsplit(target)
        query = dict(parse_qsl(url.query))
        with self._lock:
            asked = operation(method, url.path)
            if asked is not None:
                self.wrong += [
                    f"{method} {url.path}: {what}"
                    for what in wrong_in_request(asked, query, headers, body)
                ]
            fault = self._fault(method, url.path)
            if fault is not None:
                fault.then()
                if not fault.acts:
                    self.seen.append((method, url.path, fault.status))
                    status = fault.status
                    return None if status is None else (status, fault.headers, fault.body)
            try:
                status, answered = self._act(method, url.path, headers, query, body)
            except Refused as refused:
                status, answered = refused.status, refused.body
            given = {}
            if status == 301:
                given["Location"] = answered["url"]
            # That a commit is unknown, GitHub says with a status that it does not describe.
            elif asked is not None and status not in (401, 403, 404) and answered is not UNSEEN:
                self.wrong += [
                    f"{method} {url.path} {status}: {what}"
                    for what in wrong_in_answer(asked, status, answered)
                ]
            if fault is not None:
                fault.afterwards()
                self.seen.append((method, url.path, fault.status))
                return None if fault.status is None else (fault.status, fault.headers, fault.body)
            self.seen.append((method, url.path, status))
            return status, given, answered

    def _fault(self, method: str, path: str) -> Fault | None:
        for index, (wanted, end, fault) in enumerate(self.faults):
            if method == wanted and path.endswith(end):
                del self.faults[index]
                return fault
        return self.weather(method, path)

    def _act(
        self,
        method: str,
        path: str,
        headers: Mapping[str, str],
        query: Mapping[str, str],
        body: Any,
    ) -> tuple[int, Any]:
        if headers.get("authorization") != f"Bearer {TOKEN}":
            raise Refused(401, "Bad credentials")
        if path == f"/repositories/{ID}":
            return 200, self._repository(self.moved_to)
        if path != f"/repos/{NAME}" and not path.startswith(f"/repos/{NAME}/"):
            raise Refused(404, "Not Found")
        rest = path.removeprefix(f"/repos/{NAME}")
        if self.moved_to:
            return 301, {
                "message": "Moved Permanently",
                "url": f"{self.url}/repositories/{ID}{rest}",
            }
        if method != "GET" and not self.may_write:
            raise Refused(403, "Resource not accessible by personal access token")
        self._follow_git()
        match (method, *rest.split("/")[1:]):
            case ("GET",):
                return 200, self._repository(NAME)
            case ("GET", "rules", "branches", _):
                return 200, _page(self.rules, query)
            case ("GET", "branches", branch):
                return 200, self._branch(branch)
            case ("GET", "commits", sha, "check-runs"):
                self._has(sha)
                runs = [_run(number, run, sha) for number, run in enumerate(self.runs(sha), 1)]
                return 200, {"total_count": len(runs), "check_runs": _page(runs, query)}
            case ("GET", "commits", sha, "status"):
                self._has(sha)
                return 200, self._status(sha, query)
            case ("GET", "pulls"):
                listed = [p for p in reversed(self.pulls.values()) if self._fits(p, query)]
                return 200, _page([self._shown(p, simple=True) for p in listed], query)
            case ("POST", "pulls"):
                return 201, self._shown(self._open(body))
            case ("GET", "pulls", number):
                return 200, self._shown(self._pull(number))
            case ("PATCH", "pulls", number):
                self._put(replace(self._pull(number), state=body["state"]))
                return 200, self._shown(self._pull(number))
            case ("PUT", "pulls", number, "merge"):
                sha = self._merge(self._pull(number), body)
                return 200, {
                    "sha": sha,
                    "merged": True,
                    "message": "Pull Request successfully merged",
                }
            case ("GET", "issues", number, "comments"):
                said = self.comments.get(int(number), [])
                return 200, _page([_comment(text) for text in said], query)
            case ("POST", "issues", number, "comments"):
                self.comments.setdefault(int(number), []).append(body["body"])
                return 201, _comment(body["body"])
        raise Refused(404, "Not Found")

    # What there is ------------------------------------------------------------

    def at(self, branch: str) -> str:
        """The commit of a branch, empty if there is none."""
        return git(self.remote, "for-each-ref", "--format=%(objectname)", f"refs/heads/{branch}")

    def person_merges(self, number: int) -> str:
        """Somebody presses the button: the commit that brings it."""
        with self._lock:
            return self._merge(self.pulls[number], {"merge_method": "merge"}, by_hand=True)

    def _follow_git(self) -> None:
        """As GitHub does when branches are pushed and removed."""
        for pull in self.pulls.values():
            if pull.state == "open":
                sha = self.at(pull.head)
                self._put(replace(pull, sha=sha) if sha else replace(pull, state="closed"))

    def _put(self, pull: Pull) -> None:
        self.pulls = {**self.pulls, pull.number: pull}

    def _pull(self, number: str) -> Pull:
        if not number.isdigit() or int(number) not in self.pulls:
            raise Refused(404, "Not Found")
        return self.pulls[int(number)]

    def _has(self, sha: str) -> None:
        known = subprocess.run(
            ["git", "cat-file", "-e", f"{sha}^{{commit}}"],
            cwd=self.remote, capture_output=True, check=False,
        )  # fmt: skip
        if known.returncode:
            refused = Refused(422, "")
            refused.body = UNSEEN
            raise refused

    def _fits(self, pull: Pull, query: Mapping[str, str]) -> bool:
        state = query.get("state", "open")
        return (
            query.get("head") in (None, f"octo:{pull.head}")
            and query.get("base") in (None, pull.base)
            and state in ("all", pull.state)
        )

    def _open(self, body: Mapping[str, str]) -> Pull:
        head, base = body["head"], body["base"]

        def refuse(**error: str) -> None:
            raise Refused(422, "Validation Failed", errors=[{"resource": "PullRequest", **error}])

        if not self.at(head):
            refuse(field="head", code="invalid")
        if not self.at(base):
            refuse(field="base", code="invalid")
        if git(self.remote, "rev-list", "--count", f"{base}..{head}") == "0":
            refuse(code="custom", message=f"No commits between {base} and {head}")
        if any((p.head, p.base, p.state) == (head, base, "open") for p in self.pulls.values()):
            refuse(code="custom", message=f"A pull request already exists for octo:{head}.")
        number = len(self.pulls) + 1
        pull = Pull(
            number=number, head=head, base=base, title=body["title"], body=body.get("body", ""),
            sha=self.at(head),
        )  # fmt: skip
        self._put(pull)
        return pull

    def _merge(self, pull: Pull, body: Mapping[str, str], *, by_hand: bool = False) -> str:
        method = body.get("merge_method", "merge")
        if pull.state != "open":
            raise Refused(405, "Pull Request is not mergeable")
        if body.get("sha", pull.sha) != pull.sha:
            raise Refused(409, "Head branch was modified. Review and try the merge again.")
        if not self.allows[method]:
            raise Refused(405, f"{method.title()} merges are not allowed on this repository.")
        if self.blocked and not by_hand:
            raise Refused(405, self.blocked)
        base = self.at(pull.base)
        tree = self._merged_tree(base, pull.sha)
        if tree is None:
            raise Refused(405, "Pull Request is not mergeable")
        title = body.get("commit_title", f"Merge pull request #{pull.number} from octo/{pull.head}")
        message = body.get("commit_message", pull.title)
        parents = ["-p", base] if method == "squash" else ["-p", base, "-p", pull.sha]
        sha = git(self.remote, "commit-tree", tree, *parents, "-m", f"{title}\n\n{message}")
        git(self.remote, "update-ref", f"refs/heads/{pull.base}", sha, base)
        self._put(replace(pull, state="closed", merged=sha))
        return sha

    def _merged_tree(self, base: str, head: str) -> str | None:
        merged = subprocess.run(
            ["git", "merge-tree", "--write-tree", base, head],
            cwd=self.remote, capture_output=True, text=True, check=False,
        )  # fmt: skip
        return merged.stdout.strip() if merged.returncode == 0 else None

    # As GitHub shows it ---------------------------------------------------------

    def _repository(self, name: str) -> dict[str, Any]:
        shown: dict[str, Any] = example("full-repository-default-response")
        del shown["source"]  # the description asks for more than its own example has
        return {
            **shown,
            "full_name": name,
            "language": "Python",
            "archived": self.archived,
            "permissions": {"admin": False, "push": self.may_write, "pull": True},
            "allow_merge_commit": self.allows["merge"],
            "allow_squash_merge": self.allows["squash"],
        }

    def _branch(self, branch: str) -> dict[str, Any]:
        sha = self.at(branch)
        if not sha:
            raise Refused(404, "Branch not found")
        shown: dict[str, Any] = example("branch-get")
        checks = {
            "enforcement_level": "non_admins" if self.required else "off",
            "contexts": self.required,
            "checks": [{"context": name, "app_id": None} for name in self.required],
        }
        shown["protection"] = {
            "enabled": bool(self.required),
            "required_status_checks": checks,
        }
        return {**shown, "name": branch, "commit": {**shown["commit"], "sha": sha}}

    def _status(self, sha: str, query: Mapping[str, str]) -> dict[str, Any]:
        shown: dict[str, Any] = example("combined-commit-status")
        one = shown["statuses"][0]
        found = self.statuses(sha)
        listed = [{**one, "context": context, "state": state} for context, state in found]
        page = _page(listed, query)
        return {
            **shown,
            "sha": sha,
            "state": "pending",
            "statuses": page,
            "total_count": len(found),
        }

    def _shown(self, pull: Pull, *, simple: bool = False) -> dict[str, Any]:
        shown: dict[str, Any] = (
            example("pull-request-simple-items")[0] if simple else example("pull-request")
        )
        shown["requested_teams"] = []  # the description does not allow its own example's
        shown["head"] |= {"ref": pull.head, "sha": pull.sha}
        shown["head"]["repo"]["full_name"] = NAME
        shown["base"] |= {"ref": pull.base, "sha": self.at(pull.base)}
        shown |= {
            "number": pull.number,
            "html_url": f"{self.url}/{NAME}/pull/{pull.number}",
            "title": pull.title,
            "body": pull.body,
            "state": pull.state,
            "merged_at": LATER if pull.merged else None,
            "merge_commit_sha": pull.merged or None,
        }
        if simple:
            return shown
        fits = (
            None if pull.merged else self._merged_tree(shown["base"]["sha"], pull.sha) is not None
        )
        state = "blocked" if self.blocked else "clean" if fits else "dirty"
        return {**shown, "merged": bool(pull.merged), "mergeable": fits, "mergeable_state": state}


def _run(number: int, run: Run, sha: str) -> dict[str, Any]:
    shown: dict[str, Any] = example("check-run-paginated")["check_runs"][0]
    shown["output"] |= {"title": run.name, "summary": run.summary}
    shown["app"]["id"] = run.app
    done = run.conclusion is not None
    return {
        **shown,
        "id": number,
        "name": run.name,
        "head_sha": sha,
        "status": "completed" if done else "in_progress",
        "conclusion": run.conclusion,
        "completed_at": LATER if done else None,
        "pull_requests": [],
    }


def _comment(text: str) -> dict[str, Any]:
    return {**example("issue-comment"), "body": text}


def _page(listed: list[Any], query: Mapping[str, str]) -> list[Any]:
    size, number = int(query.get("per_page", 30)), int(query.get("page", 1))
    return listed[size * (number - 1) : size * number]
