"""Connects to a server."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from types import TracebackType
from typing import Self

from att_client.bootstrap import Bootstrap
from att_client.code import Code
from att_client.config import ARGUMENT, Config
from att_client.errors import DeadlineExceededError, NotReachableError, UnavailableError
from att_client.events import Events
from att_client.logs import Logs
from att_client.projects import Projects
from att_client.runtimes import Runtimes
from att_client.server import Server
from att_client.transport import Transport

TLS_HINT = (
    "Over TLS the server's certificate must name this host and be signed by one of ATT_CA_FILE, "
    "and a server that asks for a certificate wants ATT_CERT_FILE and ATT_KEY_FILE."
)

_CONNECT_TIMEOUT = timedelta(seconds=10)


def connect(
    target: str | None = None, *, config: Config | None = None, lazy: bool = False
) -> Client:
    """A client of the server at `target`, to be used as `async with connect() as att`.

    target: such as `unix:/run/att/att.sock`; wins over the config. Without both,
        the environment says it: see `att_client.config`.
    lazy: does not ask the server for an answer on entering.

    Raises ConfigInvalidError. Entering raises NotReachableError, which names the
    target and what named it, if no answer comes within 10 s.
    """
    if config is None:
        config = Config.from_env(target=target)
    elif target is not None:
        config = replace(config, target=target, source=ARGUMENT)
    return Client(config, lazy=lazy)


class Client:
    """A connection to a server, open inside `async with`; made by `connect`.

    Of one event loop. Any number of calls may run at once. Every call but the
    streams has a deadline: the config's timeout, plus the wait that a start, stop
    or restart was asked for.
    """

    def __init__(self, config: Config, *, lazy: bool = False) -> None:
        self._config = config
        self._lazy = lazy
        self._transport = Transport(config)
        self.projects = Projects(self._transport, config.timeout)
        self.runtimes = Runtimes(self._transport, config.timeout)
        self.logs = Logs(self._transport, config.timeout)
        self.bootstrap = Bootstrap(self._transport, config.timeout)
        self.code = Code(self._transport, config.timeout)
        self.events = Events(self._transport, config.timeout)
        self.server = Server(self._transport, config.timeout)

    @property
    def target(self) -> str:
        """The server's target."""
        return self._config.target

    async def __aenter__(self) -> Self:
        self._transport.open()
        if not self._lazy:
            try:
                await self._verify()
            except BaseException:
                await self.aclose()
                raise
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Ends all calls and streams; they and later ones raise ClosedError."""
        await self._transport.aclose()

    async def _verify(self) -> None:
        server = Server(self._transport, _CONNECT_TIMEOUT)
        try:
            await server.info()
        except (UnavailableError, DeadlineExceededError) as error:
            if error.reason:
                raise
            # The one end of a handshake that failed knows only that it did.
            hint, cause = "", {}
            if self._config.address.encrypted:
                cause = {"cause": error.message}
                hint = f" {error.message} {TLS_HINT}"
            raise NotReachableError(
                f"No ATT server answers at {self._config.target} (from {self._config.source}). "
                f"Start one with `att serve`, or name another with ATT_TARGET.{hint}",
                code=error.code,
                metadata={"target": self._config.target, "source": self._config.source} | cause,
            ) from error
