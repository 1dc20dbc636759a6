"""`python -m tests.github.subset DESCRIPTION`: cuts GitHub's OpenAPI description to what ATT uses.

DESCRIPTION is `generated/api.github.com.json` of the npm package `@octokit/openapi`
(MIT), which `make github-openapi` installs. The result, `openapi.json` beside this file,
is committed: tests hold requests and answers against it, and `make check-github` serves it.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

SUBSET = Path(__file__).with_name("openapi.json")
OPERATIONS = {
    "/repos/{owner}/{repo}": ("get",),
    "/repos/{owner}/{repo}/branches/{branch}": ("get",),
    "/repos/{owner}/{repo}/rules/branches/{branch}": ("get",),
    "/repos/{owner}/{repo}/commits/{ref}/check-runs": ("get",),
    "/repos/{owner}/{repo}/commits/{ref}/status": ("get",),
    "/repos/{owner}/{repo}/pulls": ("get", "post"),
    "/repos/{owner}/{repo}/pulls/{pull_number}": ("get", "patch"),
    "/repos/{owner}/{repo}/pulls/{pull_number}/merge": ("put",),
    "/repos/{owner}/{repo}/issues/{issue_number}/comments": ("get", "post"),
}
_TYPE = "application/vnd.github+json"
"""What ATT asks for, as GitHub recommends; the description only names the plain one."""

_PROSE = frozenset({"tags", "summary", "externalDocs", "x-github", "x-octokit", "x-multi-segment"})


def subset(description: dict[str, Any]) -> dict[str, Any]:
    """The description of `OPERATIONS`, with all that they refer to, and without prose."""
    paths = {
        path: {name: description["paths"][path][name] for name in names}
        for path, names in OPERATIONS.items()
    }
    found: dict[str, Any] = {}
    _collect(paths, description, found)
    components: dict[str, dict[str, Any]] = {}
    for reference, value in sorted(found.items()):
        kind, name = reference.removeprefix("#/components/").split("/")
        components.setdefault(kind, {})[name] = value
    version = description["info"]["version"]
    cut: dict[str, Any] = _plain(
        {
            "openapi": description["openapi"],
            "info": {
                "title": f"What ATT uses of GitHub's description, as of @octokit/openapi {version}",
                "version": version,
                "license": description["info"]["license"],
            },
            "servers": description["servers"],
            "paths": paths,
            "components": components,
        }
    )
    return cut


def _collect(value: Any, description: dict[str, Any], found: dict[str, Any]) -> None:
    """Adds all that `value` refers to, directly or not, by reference."""
    if isinstance(value, dict):
        reference = value.get("$ref")
        if isinstance(reference, str) and reference not in found:
            target: Any = description
            for part in reference.removeprefix("#/").split("/"):
                target = target[part]
            found[reference] = target
            _collect(target, description, found)
    if isinstance(value, dict | list):
        for each in value.values() if isinstance(value, dict) else value:
            _collect(each, description, found)


def _plain(value: Any, *, within: str = "") -> Any:
    """`value` without prose, and with the media type that ATT asks for beside the plain one."""
    if isinstance(value, list):
        return [_plain(each) for each in value]
    if not isinstance(value, dict):
        return value
    # In a list of properties, `description` is the name of one.
    names = within in ("properties", "examples")
    kept = {
        # What an example shows is no description of anything.
        name: each if name in ("value", "example") else _plain(each, within=name)
        for name, each in value.items()
        if names or (name not in _PROSE and not (name == "description" and _is_optional(value)))
    }
    if kept.get("nullable") is True and None not in kept.get("enum", [None]):
        kept["enum"] = [*kept["enum"], None]  # as GitHub means it, and OpenAPI wants it said
    if within == "content" and "application/json" in kept:
        kept[_TYPE] = kept["application/json"]
    return kept


def _is_optional(value: dict[str, Any]) -> bool:
    """Whether OpenAPI asks for no description here: everywhere but in answers."""
    return not ({"content", "headers"} & value.keys() or value.keys() == {"description"})


def main() -> int:
    description = json.loads(Path(sys.argv[1]).read_text())
    SUBSET.write_text(json.dumps(subset(description), indent=1, sort_keys=True) + "\n")
    print(f"{SUBSET.name}: {SUBSET.stat().st_size:,} bytes, {len(OPERATIONS)} paths")
    return 0


if __name__ == "__main__":
    sys.exit(main())
