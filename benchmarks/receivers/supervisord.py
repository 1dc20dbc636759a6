"""Receives from supervisord over its HTTP port: `PORT KIND LINES`."""

from __future__ import annotations

import http.client
import xmlrpc.client

from benchmarks.receivers.receiving import Receiver, asked

_PIECE = 1 << 20


def follow(port: int, receiver: Receiver) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", port)
    connection.request("GET", "/logtail/app")
    response = connection.getresponse()
    receiver.begin()
    while data := response.read1(1 << 16):
        if receiver.take(data):
            return


def read(port: int, receiver: Receiver) -> None:
    proxy = xmlrpc.client.ServerProxy(f"http://127.0.0.1:{port}/RPC2")
    receiver.begin()
    offset, done = 0, False
    while not done:
        piece = proxy.supervisor.readProcessStdoutLog("app", offset, _PIECE)
        assert isinstance(piece, str)
        data = piece.encode()
        offset += len(data)
        done = receiver.take(data)


if __name__ == "__main__":
    (where,), what = asked()
    (read if what.kind == "read" else follow)(int(where), what)
