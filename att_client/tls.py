"""A client's side of TLS, of files that may be replaced while it runs."""

from __future__ import annotations

import os
from pathlib import Path

import grpc

from att_client.config import Config
from att_client.errors import ConfigInvalidError

_Stamp = tuple[tuple[int, int], ...]


class TlsFiles:
    """What a connection over TLS is made with, as the files say it now."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._read: _Stamp = ()

    def credentials(self) -> grpc.ChannelCredentials:
        """Of the files as they are. Raises ConfigInvalidError."""
        # First: what changes while it is read is read again.
        self._read = self._stamp()
        return grpc.ssl_channel_credentials(
            root_certificates=_pem(self._config.ca_file),
            private_key=_pem(self._config.key_file),
            certificate_chain=_pem(self._config.cert_file),
        )

    def renewed(self) -> bool:
        """Whether they were replaced or written to since they were read."""
        return self._stamp() != self._read

    def _stamp(self) -> _Stamp:
        config, found = self._config, []
        for path in (config.ca_file, config.key_file, config.cert_file):
            if path is not None:
                try:
                    status = os.stat(path)
                except OSError:
                    found.append((0, 0))
                else:
                    found.append((status.st_ino, status.st_mtime_ns))
        return tuple(found)


def _pem(path: Path | None) -> bytes | None:
    if path is None:
        return None
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ConfigInvalidError(f"The file {path} cannot be read: {error.strerror}.") from error
    # gRPC takes anything, and fails at the first connection without a word of why.
    if b"-----BEGIN " not in content:
        raise ConfigInvalidError(f"The file {path} is no PEM file.")
    return content
