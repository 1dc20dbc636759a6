"""Which changes a person has to approve, since they touch what judges changes.

Pure. What counts is the settings as of the base and the paths that differ from it.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Collection, Iterable
from dataclasses import asdict
from enum import StrEnum
from pathlib import PurePosixPath

from att_server.core.cycles.gate_files import touched_gate_files
from att_server.core.cycles.model import CycleRequest
from att_server.core.cycles.settings import SETTINGS_FILE, BootstrapSettings, ForgeKind


class ApprovalReason(StrEnum):
    """Why a decision is needed; the first that applies is the one that is told."""

    TOUCHES_ATT_TOML = "touches_att_toml"
    TOUCHES_CI_SCRIPT = "touches_ci_script"
    """It changes a file that a command for tests, checks or builds runs, or the forge itself."""
    TOUCHES_PROTECTED_PATH = "touches_protected_path"
    OTHER_BASE_BRANCH = "other_base_branch"
    """The request names another base than the settings: other gates would judge."""
    REQUIRED_BY_REQUEST = "required_by_request"
    REQUIRED_BY_SETTINGS = "required_by_settings"


def approval_reasons(
    settings: BootstrapSettings,
    request: CycleRequest,
    changed: Collection[str],
    *,
    other_base: bool = False,
) -> tuple[ApprovalReason, ...]:
    """All reasons that apply, in order; empty: nobody has to decide.

    settings: in force. changed: paths that differ from the base, old and new names.
    other_base: the base is not the one that settings name.
    """
    commands = (settings.test.command, settings.ci.command, settings.release.build)
    at_forge = settings.forge is ForgeKind.GITHUB and any(map(_is_workflow, changed))
    applies = {
        ApprovalReason.TOUCHES_ATT_TOML: any(map(_is_settings, changed)),
        ApprovalReason.TOUCHES_CI_SCRIPT: at_forge or bool(touched_gate_files(commands, changed)),
        ApprovalReason.TOUCHES_PROTECTED_PATH: any(
            is_protected(path, settings.approval.protected_paths) for path in changed
        ),
        ApprovalReason.OTHER_BASE_BRANCH: other_base,
        ApprovalReason.REQUIRED_BY_REQUEST: bool(request.require_approval),
        ApprovalReason.REQUIRED_BY_SETTINGS: (
            settings.approval.required and not request.require_approval
        ),
    }
    return tuple(reason for reason in ApprovalReason if applies[reason])


def plan_digest(
    settings: BootstrapSettings, request: CycleRequest, *, base_commit: str, tree: str
) -> str:
    """Names what a decision is about: this change of this base, judged and deployed so."""
    form = {
        "base": base_commit,
        "tree": tree,
        "settings": asdict(settings),
        "request": {
            **asdict(request),
            # They do not matter for what is done, or are in `settings` and `tree`.
            **dict.fromkeys(("edited_paths", "has_patch", "keep_worktree", "reason")),
        },
    }
    text = json.dumps(form, sort_keys=True, default=str)
    return hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()


# Paths ------------------------------------------------------------------------


def is_protected(path: str, patterns: Iterable[str]) -> bool:
    """Whether a pattern names the path, or a directory above it.

    In a pattern `*` stands for anything within a part of a path and `**`, as a
    whole part, for any number of parts.
    """
    above = [path, *map(str, PurePosixPath(path).parents)][:-1]
    return any(_pattern(each).fullmatch(name) for each in patterns for name in above)


def _pattern(pattern: str) -> re.Pattern[str]:
    text = ""
    for part in pattern.strip("/").split("/"):
        if part == "**":
            text += "(?:[^/]+/)*"
        else:
            text += "[^/]*".join(map(re.escape, part.split("*"))) + "/"
    # The last part has nothing behind it; `a/**` names all that is below `a`.
    return re.compile(text[:-1] if text.endswith("/") else f"{text}[^/]+", re.DOTALL)


def _is_workflow(path: str) -> bool:
    """Whether GitHub may take its checks from the file: workflows, and actions that they use."""
    return path.split("/")[0].casefold() == ".github"


def _is_settings(path: str) -> bool:
    # Some file systems take other cases for the same name.
    return path.split("/")[0].casefold() == SETTINGS_FILE
