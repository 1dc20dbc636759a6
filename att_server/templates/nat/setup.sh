#!/bin/sh
# Makes or updates .venv, the project's own virtual environment: the toolkit pins
# versions (click, grpcio, protobuf, pydantic) that other programs may not share.
# PYTHON names the interpreter, of version 3.11 to 3.13; the default is python3.
set -eu
cd "$(dirname "$0")"
[ -x .venv/bin/python ] || "${PYTHON:-python3}" -m venv .venv
pip() { .venv/bin/python -m pip --disable-pip-version-check --quiet "$@"; }
pip install --requirement requirements.txt
pip install --no-deps --no-build-isolation --editable .
