"""Runs `att` as `python -m att_client.cli`."""

from __future__ import annotations

from att_client.cli import main

main()
