"""The socket file of a server: bound under a name of this epoch, shown by a rename."""

from __future__ import annotations

import contextlib
import errno
import os
from pathlib import Path


class SocketFile:
    """Where clients connect, from `show` to `remove`.

    Whoever connects reaches this server or the one before: there is a socket at
    every moment. What gRPC removes at the end of the one before is its own name for
    it, which is there no more.
    """

    def __init__(self, path: Path, epoch: int) -> None:
        """path: where clients connect; a file that is no socket stays. Raises OSError."""
        if path.exists() and not path.is_socket():
            raise FileExistsError(errno.EEXIST, "it is no socket", str(path))
        self._path = path
        self._draft = path.with_name(f"{path.stem}-{epoch}{path.suffix}")
        # A name that fits into an address, however long the directory's is.
        self._directory = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        self._shown: os.stat_result | None = None
        for left in path.parent.glob(f"{path.stem}-*{path.suffix}"):
            if left.is_socket():  # of a server that was killed before it showed it
                left.unlink(missing_ok=True)

    @property
    def address(self) -> str:
        """What gRPC is to bind."""
        return f"unix:/proc/self/fd/{self._directory}/{self._draft.name}"

    def show(self) -> None:
        """Has clients reach what listens at `address`. Raises OSError."""
        self._draft.chmod(0o600)
        self._shown = self._draft.stat()
        self._draft.rename(self._path)

    def remove(self) -> None:
        """Removes the file, unless another server has shown its own."""
        with contextlib.suppress(OSError):
            if self._shown is not None and os.path.samestat(self._shown, self._path.stat()):
                self._path.unlink()
        os.close(self._directory)
