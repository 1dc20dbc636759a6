"""TLS of the listeners: checked at the start, read again when the files are renewed."""

from __future__ import annotations

import logging
import os
import ssl
import stat
from pathlib import Path

import grpc

from att_server.core.errors import RefusalReason, StartRefused
from att_server.core.listeners import TlsFiles

_OTHERS = 0o077

log = logging.getLogger(__name__)

_Stamp = tuple[tuple[int, int, int], ...]


class ServerTls:
    """The server's side of TLS, of files that may be replaced while it serves.

    Every handshake looks whether they have changed. New ones that do not fit each
    other, or whose key others may read, are told in the log, and the old ones stay.
    """

    def __init__(self, files: TlsFiles) -> None:
        """Raises StartRefused: INSECURE_KEY_FILE, TLS_FILE_INVALID."""
        self._files = files
        self._stamp = _stamp(files)
        self._first = _configuration(files)

    def credentials(self) -> grpc.ServerCredentials:
        """What a secure port is made with."""
        return grpc.dynamic_ssl_server_credentials(
            self._first,
            self._renewed,  # type: ignore[arg-type]  # None means: as before
            require_client_authentication=self._files.client_ca is not None,
        )

    def _renewed(self) -> grpc.ServerCertificateConfiguration | None:
        """Called by gRPC, on a thread of its own, at each handshake; None: as before."""
        try:
            stamp = _stamp(self._files)
            if stamp == self._stamp:
                return None
            self._stamp = stamp
            renewed = _configuration(self._files)
        except StartRefused as refused:
            log.error("the new TLS files are not used: %s", refused.message)
            return None
        log.info("the TLS files were renewed")
        return renewed


def _configuration(files: TlsFiles) -> grpc.ServerCertificateConfiguration:
    """What gRPC takes. Raises StartRefused."""
    key, certificate = _read(files.key), _read(files.certificate)
    mode = files.key.stat().st_mode
    if mode & _OTHERS:
        raise StartRefused(
            RefusalReason.INSECURE_KEY_FILE,
            f"Others may use the key {files.key} (mode {stat.S_IMODE(mode):04o}): chmod 600 "
            f"{files.key}, and have a new key made if they could read it.",
        )
    authority = None if files.client_ca is None else _read(files.client_ca)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        context.load_cert_chain(files.certificate, files.key, password=_no_password)
        if files.client_ca is not None:
            context.load_verify_locations(files.client_ca)
    except (ssl.SSLError, OSError, ValueError) as error:
        raise StartRefused(
            RefusalReason.TLS_FILE_INVALID,
            f"{files.certificate}, {files.key} and the CA of clients are no PEM files that belong "
            f"together: {error}. Give a certificate with its chain, its key without a password, "
            "and the certificate of the CA.",
        ) from error
    return grpc.ssl_server_certificate_configuration([(key, certificate)], authority)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise StartRefused(
            RefusalReason.TLS_FILE_INVALID, f"{path} cannot be read: {error.strerror}."
        ) from error


def _stamp(files: TlsFiles) -> _Stamp:
    """Differs when a file was replaced or written to."""
    found = []
    for path in (files.certificate, files.key, files.client_ca):
        if path is not None:
            try:
                status = os.stat(path)
            except OSError:
                found.append((0, 0, 0))
            else:
                found.append((status.st_ino, status.st_mtime_ns, status.st_mode))
    return tuple(found)


def _no_password() -> bytes:
    """Asked for by OpenSSL, which would ask the terminal else."""
    return b""
