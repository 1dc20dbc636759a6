"""GitHubRepository: what ATT asks of one repository at GitHub, in values of its own."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from datetime import datetime
from typing import Any, TypeVar
from urllib.parse import quote

from pydantic import BaseModel, ValidationError

from att_server.adapters.github.api import Answer, GitHubApi
from att_server.core.cycles.forge import ForgeUnavailable
from att_server.core.cycles.settings import GitHubSettings

_UNSEEN = (422,)  # as which GitHub answers for a commit that it has not seen

M = TypeVar("M", bound=BaseModel)


class _Name(BaseModel):
    full_name: str


class _Branch(BaseModel):
    ref: str
    sha: str
    repo: _Name | None = None


class Pull(BaseModel):
    """A pull request. mergeable: None while GitHub does not know. merged_at: None: it is not."""

    number: int
    html_url: str
    state: str
    body: str | None = None
    head: _Branch
    base: _Branch
    merged_at: datetime | None = None
    merge_commit_sha: str | None = None
    mergeable: bool | None = None
    mergeable_state: str = "unknown"


class _App(BaseModel):
    id: int


class _Output(BaseModel):
    title: str | None = None
    summary: str | None = None


class CheckRun(BaseModel):
    """A check of a commit, by an app. conclusion: None until its status is completed."""

    id: int
    name: str
    status: str
    conclusion: str | None = None
    html_url: str | None = None
    app: _App | None = None
    output: _Output = _Output()


class CommitStatus(BaseModel):
    """What somebody says of a commit: `success`, `pending`, `failure` or `error`."""

    context: str
    state: str
    target_url: str | None = None
    description: str | None = None


class RequiredCheck(BaseModel):
    """A check that has to pass before a merge. app_id: by whom; None: by anybody."""

    context: str
    app_id: int | None = None


class Comment(BaseModel):
    """A comment on a pull request."""

    body: str | None = None


class Facts(BaseModel):
    """What a repository is, and what the token may do there (None: GitHub does not say)."""

    full_name: str
    archived: bool = False
    permissions: Mapping[str, bool] | None = None
    allow_merge_commit: bool | None = None
    allow_squash_merge: bool | None = None

    def allows(self, method: str) -> bool:
        """Whether it merges by `merge` or `squash`, as far as GitHub says."""
        allowed = self.allow_squash_merge if method == "squash" else self.allow_merge_commit
        return allowed is not False


class BranchRules(BaseModel):
    """What a branch asks of a merge. merge_queue: it takes changes through a queue alone."""

    required: tuple[RequiredCheck, ...] = ()
    merge_queue: bool = False


class _Checks(BaseModel):
    contexts: list[str] = []
    checks: list[RequiredCheck] = []


class _Protection(BaseModel):
    required_status_checks: _Checks | None = None


class _BranchAnswer(BaseModel):
    protection: _Protection | None = None


class _RuleCheck(BaseModel):
    context: str
    integration_id: int | None = None


class _RuleParameters(BaseModel):
    required_status_checks: list[_RuleCheck] = []


class _Rule(BaseModel):
    type: str
    parameters: _RuleParameters | None = None


class GitHubRepository:
    """One repository. Every method raises ForgeUnavailable and ForgeRefused, as `GitHubApi.ask`."""

    def __init__(self, api: GitHubApi, settings: GitHubSettings, name: str) -> None:
        """name: as `owner/name`."""
        self._api = api
        self._settings = settings
        self.name = name
        self.owner = name.split("/")[0]

    async def facts(self) -> Facts:
        """What it is."""
        return _as(Facts, (await self._ask("GET", "")).body)

    async def rules(self, branch: str) -> BranchRules:
        """What the branch asks of a merge, by rules and by its older protection together."""
        required: list[RequiredCheck] = []
        queue = False
        rules = await self._ask(
            "GET", f"/rules/branches/{quote(branch, safe='')}", accept=(403, 404)
        )
        if rules.status == 403 and "upgrade" not in rules.message.lower():
            raise ForgeUnavailable(
                "token_lacks_permission",
                f"The token may not read the rules of {branch} at {self.name}: {rules.message}.",
            )
        for each in rules.body if isinstance(rules.body, list) else []:
            rule = _as(_Rule, each)
            queue = queue or rule.type == "merge_queue"
            if rule.type == "required_status_checks" and rule.parameters is not None:
                required += [
                    RequiredCheck(context=check.context, app_id=check.integration_id)
                    for check in rule.parameters.required_status_checks
                ]
        answer = await self._ask("GET", f"/branches/{quote(branch, safe='')}", accept=(404,))
        if answer.status == 200:
            protection = _as(_BranchAnswer, answer.body).protection
            checks = protection.required_status_checks if protection is not None else None
            if checks is not None:
                named = {check.context for check in checks.checks}
                others = [name for name in checks.contexts if name not in named]
                required += checks.checks
                required += [RequiredCheck(context=name) for name in others]
        return BranchRules(required=tuple(required), merge_queue=queue)

    async def check_runs(self, commit: str) -> list[CheckRun]:
        """The latest of each app and name; none where GitHub has not seen the commit."""
        return await self._listed(CheckRun, f"/commits/{commit}/check-runs", "check_runs", _UNSEEN)

    async def statuses(self, commit: str) -> list[CommitStatus]:
        """The latest of each context; none where GitHub has not seen the commit."""
        return await self._listed(CommitStatus, f"/commits/{commit}/status", "statuses", _UNSEEN)

    async def pulls(self, branch: str, base: str) -> list[Pull]:
        """The pull requests of a branch of this repository to a base, open or not, newest first."""
        query = {"head": f"{self.owner}:{branch}", "base": base, "state": "all"}
        listed = await self._listed(Pull, "/pulls", "", query=query)
        # A filter that GitHub does not understand, it leaves out.
        return [
            pull
            for pull in listed
            if pull.head.ref == branch
            and pull.base.ref == base
            and (pull.head.repo is None or pull.head.repo.full_name.lower() == self.name.lower())
        ]

    async def pull(self, number: int) -> Pull:
        """The pull request with all that GitHub knows of it."""
        return _as(Pull, (await self._ask("GET", f"/pulls/{number}")).body)

    async def open_pull(self, branch: str, base: str, title: str, body: str) -> Pull | Answer:
        """The new pull request; the answer, of status 422, where GitHub does not take it."""
        given = {"title": title, "body": body, "head": branch, "base": base}
        answer = await self._ask("POST", "/pulls", body=given, accept=(422,))
        return answer if answer.status == 422 else _as(Pull, answer.body)

    async def merge(
        self, number: int, *, head: str, method: str, title: str, message: str
    ) -> Answer:
        """Asks for the merge of the pull request if it is at `head`: 200, 405, 409 or 422."""
        given = {
            "sha": head,
            "merge_method": method,
            "commit_title": title,
            "commit_message": message,
        }
        return await self._ask("PUT", f"/pulls/{number}/merge", body=given, accept=(405, 409, 422))

    async def close_pull(self, number: int) -> None:
        """Closes it without a merge; without effect on one that is closed."""
        answer = await self._ask("PATCH", f"/pulls/{number}", body={"state": "closed"})
        _as(Pull, answer.body)

    async def comments(self, number: int) -> list[Comment]:
        """All comments on the pull request."""
        return await self._listed(Comment, f"/issues/{number}/comments", "")

    async def comment(self, number: int, body: str) -> None:
        """Adds a comment to the pull request."""
        answer = await self._ask("POST", f"/issues/{number}/comments", body={"body": body})
        _as(Comment, answer.body)

    async def _ask(
        self,
        method: str,
        path: str,
        *,
        body: Mapping[str, object] | None = None,
        accept: Collection[int] = (),
    ) -> Answer:
        return await self._api.ask(
            self._settings, method, f"/repos/{self.name}{path}", body=body, accept=accept
        )

    async def _listed(
        self,
        model: type[M],
        path: str,
        key: str,
        accept: Collection[int] = (),
        *,
        query: Mapping[str, str] | None = None,
    ) -> list[M]:
        """All of a list, over its pages. key: of the list in the answer; empty: that is it."""
        found: list[M] = []
        async for body in self._api.pages(
            self._settings, f"/repos/{self.name}{path}", query=query, accept=accept
        ):
            listed = body if not key else body.get(key) if isinstance(body, dict) else None
            if not isinstance(listed, list):
                raise _unreadable(f"no list {key}")
            found += [_as(model, each) for each in listed]
        return found


def _as(model: type[M], body: Any) -> M:
    try:
        return model.model_validate(body)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        raise _unreadable(".".join(map(str, first["loc"]))) from error


def _unreadable(what: str) -> ForgeUnavailable:
    return ForgeUnavailable(
        "answer_unreadable",
        f"GitHub's answer is not in the form that its description promises, at {what}. "
        "Is api_url in [bootstrap.github] that of its REST API?",
    )
