"""`python -m att_server.launcher STATE_DIR SOCKET_PATH [OPTION…]`; `att launch` becomes this.

Exit codes: 0 the server was asked to end, or this process was; 2 another launcher is there.
"""

from __future__ import annotations

import sys

from att_server.launcher.launcher import Launcher
from att_server.launcher.record import holder

_, state_dir, socket_path, *options = sys.argv
try:
    launcher = Launcher(state_dir, socket_path, options)
except BlockingIOError:
    sys.stderr.write(
        f"att: ALREADY_RUNNING: Process {holder(state_dir)} launches the server of {state_dir} "
        "already. Use it, or stop it with `att shutdown`.\n"
    )
    sys.exit(2)
launcher.run()
