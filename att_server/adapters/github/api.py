"""Requests to GitHub's REST API: bounded, sent to one host, and every failure told apart."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import AsyncIterator, Collection, Mapping
from dataclasses import dataclass
from datetime import timedelta
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import urljoin, urlsplit

import httpx2

from att_server.adapters.github.token import read_token
from att_server.core.cycles.forge import ForgeRefused, ForgeUnavailable
from att_server.core.cycles.settings import GitHubSettings
from att_server.core.ports import Clock

API_VERSION = "2022-11-28"
"""The oldest that is served, which servers of companies know too."""

MAX_ANSWER_BYTES = 16 * 1024 * 1024
PAGE_SIZE = 100
MAX_PAGES = 20
REQUEST_TIMEOUT = timedelta(seconds=60)
SECONDARY_PAUSE = timedelta(seconds=60)
"""After a limit that does not say for how long."""
LONGEST_PAUSE = timedelta(hours=1)

_TIMEOUT = httpx2.Timeout(30, connect=10)
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_SAID = 300  # characters of what GitHub says that are passed on


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What GitHub answered. body: of JSON; None where there is none."""

    status: int
    body: Any
    message: str = ""


class GitHubApi:
    """Sends requests; repeats none. Does not ask at all while a limit holds."""

    def __init__(self, *, clock: Clock, environ: Mapping[str, str]) -> None:
        """environ: of the server, where the token may be."""
        self._clock = clock
        self._environ = environ
        self._clients: dict[tuple[str, str], httpx2.AsyncClient] = {}
        # By whom a limit counts: until when, by the monotonic clock.
        self._paused: dict[tuple[str, str, str], float] = {}

    async def aclose(self) -> None:
        """Closes all connections."""
        clients = list(self._clients.values())
        self._clients.clear()
        for client in clients:
            await client.aclose()

    async def ask(
        self,
        settings: GitHubSettings,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        body: Mapping[str, object] | None = None,
        accept: Collection[int] = (),
    ) -> Answer:
        """The answer to one request. path: below the API's address, with a slash in front.

        accept: failures that the caller tells apart itself. Raises ForgeUnavailable
        and ForgeRefused for all others.
        """
        account = (settings.api_url, settings.token_file, settings.token_env)
        self._refuse_while_paused(account)
        token = read_token(settings, self._environ)
        response, content = await self._sent(settings, token, method, path, query, body)
        answer = _answer(response, content)
        if (pause := _pause(response, answer, self._clock)) is not None:
            self._paused[account] = self._clock.monotonic() + pause.total_seconds()
            self._refuse_while_paused(account)
        if answer.status < 300 or answer.status in accept:
            return answer
        if answer.status in _REDIRECTS:
            raise await self._redirected(settings, token, response)
        raise _failure(answer, response, path)

    async def pages(
        self,
        settings: GitHubSettings,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        accept: Collection[int] = (),
    ) -> AsyncIterator[Any]:
        """The bodies of all pages, up to the first that is not full; none for what is accepted."""
        for number in range(1, MAX_PAGES + 1):
            paging = {"per_page": str(PAGE_SIZE), "page": str(number)}
            answer = await self.ask(
                settings, "GET", path, query={**(query or {}), **paging}, accept=accept
            )
            if answer.status >= 300:
                return
            body = answer.body
            yield body
            listed = body if isinstance(body, list) else _only_list(body)
            if len(listed) < PAGE_SIZE:
                return
        raise ForgeRefused(
            "too_many_results", f"GitHub has more than {MAX_PAGES * PAGE_SIZE:,} results at {path}."
        )

    # Sending ------------------------------------------------------------------

    async def _sent(
        self,
        settings: GitHubSettings,
        token: str,
        method: str,
        path: str,
        query: Mapping[str, str] | None,
        body: Mapping[str, object] | None,
    ) -> tuple[httpx2.Response, bytes]:
        host = urlsplit(settings.api_url).netloc
        headers = {"Authorization": f"Bearer {token}"}
        try:
            async with asyncio.timeout(REQUEST_TIMEOUT.total_seconds()):
                async with self._client(settings).stream(
                    method,
                    f"{settings.api_url.rstrip('/')}{path}",
                    params=query,
                    json=body,
                    headers=headers,
                ) as response:
                    return response, await _content(response)
        except (TimeoutError, httpx2.TimeoutException) as error:
            raise ForgeUnavailable(
                "forge_timed_out", f"{host} did not answer in time; whether it acted is looked at."
            ) from error
        except httpx2.HTTPError as error:
            if _is_tls(error):
                raise ForgeUnavailable(
                    "tls_failed",
                    f"No trusted connection to {host}: {_plain(str(error))}. Name the certificates "
                    "that are to be trusted with ca_file in [bootstrap.github] of settings.toml.",
                ) from error
            raise ForgeUnavailable(
                "forge_unreachable",
                f"No answer from {host}: {_plain(str(error)) or type(error).__name__}.",
            ) from error

    def _client(self, settings: GitHubSettings) -> httpx2.AsyncClient:
        key = (settings.api_url, settings.ca_file)
        if key not in self._clients:
            verify: ssl.SSLContext | bool = True
            if settings.ca_file:
                try:
                    verify = ssl.create_default_context(cafile=settings.ca_file)
                except OSError as error:
                    raise ForgeUnavailable(
                        "ca_file_unreadable",
                        f"The certificates in {settings.ca_file} cannot be read: {error}.",
                    ) from error
            self._clients[key] = httpx2.AsyncClient(
                headers={
                    "Accept": "application/vnd.github+json",
                    "X-GitHub-Api-Version": API_VERSION,
                    "User-Agent": "att",
                },
                timeout=_TIMEOUT,
                verify=verify,
                trust_env=False,  # no proxy and no .netrc that nobody named here
            )
        return self._clients[key]

    def _refuse_while_paused(self, account: tuple[str, str, str]) -> None:
        left = self._paused.get(account, 0.0) - self._clock.monotonic()
        if left > 0:
            raise ForgeUnavailable(
                "rate_limited",
                f"GitHub's limit of requests is reached; asked again in {left:.0f} s.",
            )

    async def _redirected(
        self, settings: GitHubSettings, token: str, response: httpx2.Response
    ) -> ForgeUnavailable:
        """What a redirect means. None is followed: the next might lead anywhere with the token."""
        target = urljoin(str(response.url), response.headers.get("location", ""))
        here, there = urlsplit(settings.api_url), urlsplit(target)
        if (here.scheme, here.netloc) != (there.scheme, there.netloc):
            return ForgeUnavailable(
                "redirect_off_host",
                f"{here.netloc} sends requests on to {_plain(there.netloc)}, which is not told the "
                "token. Set api_url in [bootstrap.github] of settings.toml if that is right.",
            )
        name = ""
        prefix = f"{here.path.rstrip('/')}/repositories/"
        if there.path.startswith(prefix):
            number = there.path.removeprefix(prefix).split("/")[0]
            if number.isdigit():
                moved = await self._sent(
                    settings, token, "GET", f"/repositories/{number}", None, None
                )
                body = _answer(*moved).body
                name = _plain(str(body.get("full_name", ""))) if isinstance(body, dict) else ""
        return ForgeUnavailable(
            "repository_renamed",
            f"The repository has another name now{f', {name}' if name else ''}. Set the address of "
            "the project's remote, or repository in [bootstrap.github].",
        )


# Answers ------------------------------------------------------------------------


async def _content(response: httpx2.Response) -> bytes:
    content = bytearray()
    async for chunk in response.aiter_bytes():
        content += chunk
        if len(content) > MAX_ANSWER_BYTES:
            raise ForgeUnavailable(
                "answer_unreadable",
                f"An answer of GitHub has more than {MAX_ANSWER_BYTES:,} bytes.",
            )
    return bytes(content)


def _answer(response: httpx2.Response, content: bytes) -> Answer:
    try:
        body = json.loads(content) if content else None
    except ValueError:
        body = None
        if response.status_code < 300:
            raise ForgeUnavailable(
                "answer_unreadable",
                f"{response.url.host} answered with something that is no JSON. Is it GitHub's API?",
            ) from None
    return Answer(status=response.status_code, body=body, message=_message(body))


def _message(body: Any) -> str:
    """What the answer says, with the errors that it lists."""
    if not isinstance(body, dict):
        return ""
    listed = body.get("errors")
    details = []
    for error in listed if isinstance(listed, list) else []:
        if isinstance(error, dict):
            words = [error.get("message")] if error.get("message") else error.values()
            details.append(" ".join(str(word) for word in words))
        else:
            details.append(str(error))
    return _plain(": ".join([str(body.get("message", "")), *details]))


def _pause(response: httpx2.Response, answer: Answer, clock: Clock) -> timedelta | None:
    """How long GitHub is not to be asked; None: this is no limit."""
    if answer.status not in (403, 429):
        return None
    headers = response.headers
    if (after := headers.get("retry-after", "")).isdigit():
        pause = timedelta(seconds=min(int(after), 10**6))
    elif headers.get("x-ratelimit-remaining") == "0":
        reset = headers.get("x-ratelimit-reset", "")
        pause = SECONDARY_PAUSE
        if reset.isdigit():
            pause = timedelta(seconds=min(int(reset), 10**11) - _now(headers, clock))
    elif answer.status == 429 or "rate limit" in answer.message.lower():
        pause = SECONDARY_PAUSE
    else:
        return None
    return min(max(pause, timedelta(seconds=1)), LONGEST_PAUSE)


def _now(headers: httpx2.Headers, clock: Clock) -> float:
    """The time by GitHub's clock, where it says."""
    try:
        return parsedate_to_datetime(headers["date"]).timestamp()
    except (KeyError, ValueError):
        return clock.now().timestamp()


def _failure(
    answer: Answer, response: httpx2.Response, path: str
) -> ForgeUnavailable | ForgeRefused:
    """The error that the status stands for, with what to do."""
    said = f" GitHub says: {answer.message}." if answer.message else ""
    repository = "/".join(path.split("/")[2:4])
    match answer.status:
        case 401:
            return ForgeUnavailable(
                "token_refused",
                f"GitHub does not take the token: it is wrong, revoked or expired.{said} Put "
                "another one in its place; it is read anew at each request.",
            )
        case 403:
            needed = _plain(response.headers.get("x-accepted-github-permissions", ""))
            needs = f" It needs {needed}." if needed else ""
            return ForgeUnavailable(
                "token_lacks_permission", f"The token may not do this at {repository}.{needs}{said}"
            )
        case 404:
            return ForgeUnavailable(
                "repository_not_found",
                f"GitHub has no {repository}, or the token may not see it. Check the address of "
                "the project's remote, repository in [bootstrap.github], and the token.",
            )
        case status if status >= 500:
            return ForgeUnavailable("forge_failed", f"GitHub fails with status {status}.{said}")
        case status:
            return ForgeRefused(
                "request_refused", f"GitHub refuses the request with status {status}.{said}"
            )


def _only_list(body: Any) -> list[Any]:
    """The list in an answer that counts and lists."""
    lists = [each for each in body.values() if isinstance(each, list)] if body else []
    return lists[0] if len(lists) == 1 else []


def _is_tls(error: BaseException | None) -> bool:
    while error is not None:
        if isinstance(error, ssl.SSLError):
            return True
        error = error.__cause__ or error.__context__
    return False


def _plain(text: str) -> str:
    """What another wrote, printable and short."""
    shown = "".join(letter if letter.isprintable() else " " for letter in text)
    shown = " ".join(shown.split()).rstrip(".")
    return shown if len(shown) <= _SAID else shown[: _SAID - 1] + "…"
