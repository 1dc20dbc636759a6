"""Generates both sides of the contract from `protos/att/v1/*.proto`.

    python protos/generate.py           writes them into the tree
    python protos/generate.py --check   exits 1 and names what differs, writing nothing

One side is stock protobuf and gRPC, beside the `.proto` files (package `att`);
the other is the messages of the SDK, in `att_client/_proto`. Files that no
proto accounts for any more are removed. The tools come from
`requirements/dev.txt`, so the same tree gives the same bytes.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
from importlib.resources import files
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PROTOS = Path("protos")
STOCK = PROTOS / "att" / "v1"
SDK = Path("att_client") / "_proto"
GENERATED = (
    (STOCK, ("*_pb2.py", "*_pb2.pyi", "*_pb2_grpc.py", "*_pb2_grpc.pyi")),
    (SDK, ("**/*.py",)),
)
PLUGINS = ("protoc-gen-mypy", "protoc-gen-mypy_grpc", "protoc-gen-python_betterproto2")


def main() -> int:
    """Runs the command line; returns the exit code."""
    parser = argparse.ArgumentParser(description="Generates both sides of the contract.")
    parser.add_argument("--check", action="store_true", help="compare only, write nothing")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="att-generate-") as name:
        fresh = Path(name)
        generate_stock(fresh)
        generate_sdk(fresh)
        changed = differences(fresh, ROOT)
        if not arguments.check:
            replace(fresh, ROOT, changed)
    if arguments.check and changed:
        print("Generated code is not current; run `make generate`:", file=sys.stderr)
        print("".join(f"  {path}\n" for path in changed), end="", file=sys.stderr)
        return 1
    return 0


def generate_stock(out: Path) -> None:
    """Writes protobuf and gRPC modules with their stubs to `out/protos`."""
    target = out / PROTOS
    target.mkdir(parents=True)
    protos = sorted((ROOT / STOCK).glob("*.proto"))
    services = [path for path in protos if path.stem.endswith("_service")]
    protoc(ROOT / PROTOS, [f"--python_out={target}", f"--mypy_out={target}"], protos)
    grpc = [f"--grpc_python_out={target}", f"--mypy_grpc_out={target}"]
    protoc(ROOT / PROTOS, grpc, services)


def generate_sdk(out: Path) -> None:
    """Writes the betterproto2 messages to `out/att_client/_proto`.

    Roles are the server's business. Without them the messages do not depend on
    `google/protobuf/descriptor.proto`, whose classes would take as long to
    import as all of ours.
    """
    target = out / SDK
    target.mkdir(parents=True)
    with tempfile.TemporaryDirectory(prefix="att-protos-") as name:
        stripped = Path(name)
        folder = stripped / "att" / "v1"
        folder.mkdir(parents=True)
        for path in sorted((ROOT / STOCK).glob("*.proto")):
            if path.name != "access.proto":
                (folder / path.name).write_text(without_roles(path.read_text("utf-8")), "utf-8")
        options = [
            f"--python_betterproto2_out={target}",
            "--python_betterproto2_opt=client_generation=none",
            "--python_betterproto2_opt=server_generation=none",
        ]
        protoc(stripped, options, sorted(folder.glob("*.proto")))


def without_roles(text: str) -> str:
    """The proto file `text` less the import and the uses of `access.proto`."""
    text = re.sub(r'^import "att/v1/access\.proto";\n', "", text, flags=re.MULTILINE)
    return re.sub(r"^ *option \(required_role\) = \w+;\n", "", text, flags=re.MULTILINE)


def protoc(include: Path, options: list[str], protos: list[Path]) -> None:
    """Runs protoc with the plugins beside this interpreter; exits with its errors."""
    scripts = Path(sys.executable).parent
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "grpc_tools.protoc",
            f"-I{include}",
            f"-I{files('grpc_tools') / '_proto'}",
            *(f"--plugin={plugin}={scripts / plugin}" for plugin in PLUGINS),
            *options,
            *(str(path.relative_to(include)) for path in protos),
        ],
        # The betterproto2 plugin formats by the `ruff` in PATH and the settings found from here.
        cwd=ROOT,
        env={**os.environ, "PATH": f"{scripts}{os.pathsep}{os.environ.get('PATH', '')}"},
        stderr=subprocess.PIPE,
        text=True,
    )
    if done.returncode:
        sys.exit(done.stderr.rstrip())


def generated(root: Path) -> set[Path]:
    """The generated files below `root`, relative to it."""
    return {
        path.relative_to(root)
        for folder, patterns in GENERATED
        for pattern in patterns
        for path in (root / folder).glob(pattern)
    }


def differences(fresh: Path, tree: Path) -> list[Path]:
    """The generated files that are not the same in both, by name."""
    return sorted(
        path
        for path in generated(fresh) | generated(tree)
        if not (fresh / path).is_file()
        or not (tree / path).is_file()
        or (fresh / path).read_bytes() != (tree / path).read_bytes()
    )


def replace(fresh: Path, tree: Path, changed: list[Path]) -> None:
    """Makes the `changed` files of `tree` those of `fresh`, and removes those not there."""
    for path in changed:
        if (fresh / path).is_file():
            (tree / path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(fresh / path, tree / path)
        else:
            (tree / path).unlink()
            prune(tree, (tree / path).parent)


def prune(tree: Path, folder: Path) -> None:
    """Removes `folder` and its parents below `tree` as far as they are empty."""
    shutil.rmtree(folder / "__pycache__", ignore_errors=True)
    while folder != tree and not any(folder.iterdir()):
        folder.rmdir()
        folder = folder.parent


if __name__ == "__main__":
    sys.exit(main())
