"""A machine without KVM, of Debian's packages, that has control groups v2 and nothing else.

Its root is the host's, which it cannot write: what it writes is in its memory, and gone with it.
"""

from __future__ import annotations

import lzma
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

PACKAGES = ("qemu-system-x86", "linux-image-amd64", "busybox-static")
MODULES = ("virtio_pci", "9pnet_virtio", "9p", "overlay")
MEMORY = "1500M"
_LIBRARIES = ("usr/lib/x86_64-linux-gnu", "lib/x86_64-linux-gnu")


class Machine:
    """QEMU, a kernel and busybox, in a directory; nothing is installed on the host."""

    def __init__(self, cache: Path) -> None:
        self._cache = cache.absolute()
        self._files = self._cache / "files"

    def install(self) -> None:
        """Fetches the packages, the first time. Raises SystemExit."""
        if self._files.is_dir():
            return
        if shutil.which("apt-get") is None:
            raise SystemExit("the packages of the machine come from Debian, by apt-get")
        print(f"fetching {', '.join(PACKAGES)} into {self._cache}", flush=True)
        with tempfile.TemporaryDirectory(dir=_made(self._cache)) as directory:
            fetched, unpacked = Path(directory, "apt"), Path(directory, "files")
            for name in ("lists/partial", "archives/partial"):
                _made(fetched / name)
            apt = (
                "apt-get", "-qq", "-o", "Debug::NoLocking=1", "-o", "APT::Sandbox::User=",
                "-o", f"Dir::Cache={fetched}", "-o", f"Dir::State::lists={fetched}/lists",
            )  # fmt: skip
            subprocess.run([*apt, "update"], check=True)
            only = ("--download-only", "--reinstall", "--no-install-recommends", "--yes")
            subprocess.run([*apt, "install", *only, *PACKAGES], check=True)
            for package in fetched.glob("archives/*.deb"):
                subprocess.run(["dpkg", "-x", package, unpacked], check=True)
            # The order in which modules need each other is else told when a kernel is installed.
            subprocess.run(
                [unpacked / "bin/busybox", "depmod", "-b", unpacked, _version(unpacked)],
                check=True,
                stderr=subprocess.DEVNULL,
            )
            unpacked.rename(self._files)

    def run(self, command: str, *, within: float) -> int:
        """Runs a shell command in `/sys/fs/cgroup/att.service/supervisor`: its exit code.

        What it prints goes to our output. within: seconds, after which the machine is
        ended. Raises SystemExit.
        """
        with tempfile.TemporaryDirectory() as directory:
            initrd, told = Path(directory, "initrd"), Path(directory, "told")
            initrd.write_bytes(self._initrd(command))
            try:
                subprocess.run(
                    self._qemu(initrd, told),
                    check=True,
                    stdin=subprocess.DEVNULL,
                    timeout=within,
                    env={
                        **os.environ,
                        "LD_LIBRARY_PATH": ":".join(str(self._files / name) for name in _LIBRARIES),
                    },
                )
            except subprocess.TimeoutExpired as error:
                raise SystemExit(f"the machine did not end in {within:.0f} s") from error
            code = told.read_text().strip()
        if not code:
            raise SystemExit("the machine ended before the command did")
        return int(code)

    def _qemu(self, initrd: Path, told: Path) -> list[str]:
        share = self._files / "usr/share"
        (kernel,) = self._files.glob("boot/vmlinuz-*")
        return [
            "nice", "-n", "19", str(self._files / "usr/bin/qemu-system-x86_64"),
            "-L", f"{share}/seabios", "-L", f"{share}/qemu",
            "-accel", "tcg", "-cpu", "max", "-smp", "1", "-m", MEMORY,
            "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot",
            "-kernel", str(kernel), "-initrd", str(initrd),
            "-append", "console=ttyS0 quiet panic=-1 cgroup_no_v1=all mitigations=off",
            "-fsdev", "local,id=host,path=/,security_model=none,readonly=on,multidevs=remap",
            "-device", "virtio-9p-pci,fsdev=host,mount_tag=host",
            "-serial", "stdio", "-serial", f"file:{told}",
        ]  # fmt: skip

    def _initrd(self, command: str) -> bytes:
        """The file system that the kernel starts with."""
        modules = self._modules()
        entries: dict[str, bytes | None] = dict.fromkeys(
            ("bin", "modules", "proc", "dev", "host", "written", "merged")
        )
        entries["bin/busybox"] = (self._files / "bin/busybox").read_bytes()
        entries["init"] = Path(__file__).with_name("init.sh").read_bytes()
        entries["command"] = command.encode()
        entries["modules/order"] = "\n".join(modules).encode()
        entries |= {f"modules/{name}": content for name, content in modules.items()}
        return b"".join(_cpio(entries))

    def _modules(self) -> dict[str, bytes]:
        """What has to be loaded, by name, each after those that it needs."""
        directory = self._files / "lib/modules" / _version(self._files)
        needs = {}
        for line in (directory / "modules.dep").read_text().splitlines():
            path, _, others = line.partition(":")
            needs[path] = others.split()
        ordered: dict[str, bytes] = {}

        def add(path: str) -> None:
            for other in needs[path]:
                add(other)
            content = (directory / path).read_bytes()
            ordered[_name(path)] = lzma.decompress(content) if path.endswith(".xz") else content

        # What is not there is built into the kernel.
        found = {_name(path): path for path in needs}
        for name in MODULES:
            if f"{name}.ko" in found:
                add(found[f"{name}.ko"])
        return ordered


def _version(files: Path) -> str:
    (directory,) = files.glob("lib/modules/*")
    return directory.name


def _name(path: str) -> str:
    return Path(path).name.removesuffix(".xz")


def _made(directory: Path) -> Path:
    directory.mkdir(parents=True, exist_ok=True)
    return directory


def _cpio(entries: dict[str, bytes | None]) -> Iterator[bytes]:
    """An archive as the kernel unpacks it (newc); None is a directory."""
    for number, (name, content) in enumerate([*entries.items(), ("TRAILER!!!", b"")], 1):
        mode = 0o040755 if content is None else 0o100755
        body = content or b""
        path = name.encode() + b"\0"
        fields = (number, mode, 0, 0, 1, 0, len(body), 0, 0, 0, 0, len(path), 0)
        yield _padded(b"070701" + b"".join(b"%08x" % field for field in fields) + path)
        yield _padded(body)


def _padded(part: bytes) -> bytes:
    return part + bytes(-len(part) % 4)
