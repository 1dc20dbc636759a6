"""A server over TLS whose certificate nobody knows, and what it was asked."""

from __future__ import annotations

import ssl
import subprocess
import threading
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from types import TracebackType
from typing import Self


class TlsServer:
    """Answers each GET as it is told; `seen` are the headers of all that came.

    status, headers: of the answer, whose body names a repository. elsewhere: of the
    answer to who has asked for it as `localhost`.
    """

    def __init__(self, directory: Path) -> None:
        """directory: where its certificate is kept."""
        self.certificate = directory / "cert.pem"
        self.status = 200
        self.elsewhere = 401
        self.headers: Mapping[str, str] = {}
        self.seen: list[Mapping[str, str]] = []
        key = directory / "key.pem"
        subprocess.run(
            [
                "openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt",
                "ec_paramgen_curve:prime256v1", "-nodes", "-days", "1", "-subj", "/CN=localhost",
                "-addext", "subjectAltName=IP:127.0.0.1,DNS:localhost",
                "-keyout", key, "-out", self.certificate,
            ],
            check=True, capture_output=True,
        )  # fmt: skip
        self._server = HTTPServer(("127.0.0.1", 0), self._handler())
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.certificate, key)
        self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))

    @property
    def port(self) -> int:
        return self._server.server_port

    @property
    def url(self) -> str:
        return f"https://127.0.0.1:{self.port}"

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

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                server.seen.append({name.lower(): value for name, value in self.headers.items()})
                elsewhere = self.headers["Host"].startswith("localhost")
                self.send_response(server.elsewhere if elsewhere else server.status)
                for name, value in server.headers.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(b'{"full_name": "octo/app"}')

            def log_message(self, *_: object) -> None:
                pass

        return Handler
