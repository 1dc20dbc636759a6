"""`python -m benchmarks.peers DIR`: installs the peers, and what plots need, below DIR.

supervisord, JetStream and matplotlib come from PyPI by the hashes of
`requirements/bench-*.txt`, pm2 from npm. What is there already is left alone.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
PM2 = Path(__file__).with_name("pm2") / "package.json"
PYTHON = ("supervisord", "jetstream", "plots")


def main() -> None:
    (directory,) = map(Path, sys.argv[1:])
    for name in PYTHON:
        install_python(directory / name, ROOT / "requirements" / f"bench-{name}.txt")
    install_pm2(directory / "pm2")


def install_python(environment: Path, lock: Path) -> None:
    """Makes a virtual environment with what the lock names."""
    stamp = environment / ".installed"
    if stamp.is_file() and stamp.read_bytes() == lock.read_bytes():
        return
    print(f"Installing {lock.stem} into {environment}", file=sys.stderr)
    subprocess.run(["uv", "venv", "--quiet", "--clear", str(environment)], check=True)
    python = str(environment / "bin" / "python")
    install = ("uv", "pip", "install", "--quiet", "--require-hashes", "--python", python)
    subprocess.run([*install, "--requirement", str(lock)], check=True)
    shutil.copyfile(lock, stamp)


def install_pm2(directory: Path) -> None:
    """Installs what the package file names."""
    stamp = directory / ".installed"
    if stamp.is_file() and stamp.read_bytes() == PM2.read_bytes():
        return
    print(f"Installing pm2 into {directory}", file=sys.stderr)
    directory.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(PM2, directory / PM2.name)
    options = ("--no-package-lock", "--no-audit", "--no-fund", "--loglevel=error")
    subprocess.run(["npm", "install", *options], cwd=directory, check=True)
    shutil.copyfile(PM2, stamp)


if __name__ == "__main__":
    main()
