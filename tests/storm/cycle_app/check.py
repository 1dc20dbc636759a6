"""Tests, checks and build of the app of a storm: argv names the way to fail that it looks for."""

import sys
import time
from pathlib import Path

time.sleep(0.05)  # So that there is something to kill.
wanted = sys.argv[1]
found = [path.name for path in Path("changes").glob("*") if path.read_text().strip() == wanted]
if found:
    sys.exit(f"{wanted}: {', '.join(found)}")
print(f"{wanted}: no change does")
