"""Connects to a server, blocking."""

from __future__ import annotations

from types import TracebackType
from typing import Self

from att_client import client
from att_client.config import Config
from att_client.sync.background_loop import BackgroundLoop
from att_client.sync.groups import Bootstrap, Code, Events, Logs, Projects, Runtimes, Server


def connect(
    target: str | None = None, *, config: Config | None = None, lazy: bool = False
) -> Client:
    """A client of the server at `target`, to be used as `with connect() as att`.

    Arguments and errors are those of `att_client.connect`.
    """
    return Client(client.connect(target, config=config, lazy=lazy))


class Client:
    """A connection to a server, open inside `with`; made by `connect`.

    Of any number of threads. Deadlines are those of `att_client.Client`.
    """

    def __init__(self, original: client.Client) -> None:
        self._original = original
        self._loop = BackgroundLoop()
        self.projects = Projects(self._loop, original.projects)
        self.runtimes = Runtimes(self._loop, original.runtimes)
        self.logs = Logs(self._loop, original.logs)
        self.bootstrap = Bootstrap(self._loop, original.bootstrap)
        self.code = Code(self._loop, original.code)
        self.events = Events(self._loop, original.events)
        self.server = Server(self._loop, original.server)

    @property
    def target(self) -> str:
        """The server's target."""
        return self._original.target

    def __enter__(self) -> Self:
        self._loop.start()
        try:
            self._loop.call(self._original.__aenter__())
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Ends all calls and streams, in every thread; they and later ones raise ClosedError."""
        self._loop.stop(self._original.aclose)
