"""Whether a user could enter a directory, found out by becoming that user."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from att_server.supervisor.user import NoUser, become, find_user, lacking_rights


def reach(request: Mapping[str, Any]) -> Mapping[str, object]:
    """Becomes the user `run_as` and enters `directory`; the process can do nothing else then.

    The result has `uid`, of the user, and one of `reached` (true), `directory_unreachable`
    and `no_right` (why not); or `user_not_found` alone. directory: empty: none is entered.
    """
    try:
        user = find_user(request["run_as"])
    except NoUser as error:
        return {"user_not_found": str(error)}
    lacking = () if user.ours else lacking_rights()
    if lacking:
        return {"uid": user.uid, "no_right": f"the server lacks {', '.join(lacking)}"}
    try:
        become(user)
    except OSError as error:
        return {"uid": user.uid, "no_right": str(error.strerror)}
    try:
        if request["directory"]:
            os.chdir(request["directory"])
    except OSError as error:
        return {"uid": user.uid, "directory_unreachable": str(error.strerror)}
    return {"uid": user.uid, "reached": True}
