"""The app of a storm of cycles: serves what its changes say, and takes down each start.

argv: port, and whether it fails in the ways that its changes name. GET /health,
/version {"release_id", "changes"}. Each start is a line in `starts` below
ATT_DATA_DIR: release id, run id.
"""

import json
import os
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

HERE = Path(__file__).parent
CHANGES = {path.name: path.read_text().strip() for path in sorted(HERE.glob("changes/*"))}
RELEASE = os.environ.get("ATT_RELEASE_ID", "")


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        healthy = "unhealthy" not in CHANGES.values()
        status = 503 if self.path == "/health" and not healthy else 200
        body = json.dumps({"release_id": RELEASE, "changes": sorted(CHANGES)}).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


class Server(ThreadingHTTPServer):
    allow_reuse_address = True
    daemon_threads = True


def main() -> None:
    with open(Path(os.environ["ATT_DATA_DIR"]) / "starts", "a") as starts:
        starts.write(f"{RELEASE} {os.environ['ATT_RUN_ID']}\n")
    if "crashes" in CHANGES.values():
        sys.exit("a change made it crash")
    Server(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()


main()
