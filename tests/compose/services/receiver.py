"""Prints each alert that is posted to it as one line of JSON."""

from __future__ import annotations

import json
from http.server import BaseHTTPRequestHandler, HTTPServer


class _Handler(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        posted = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.send_response(200)
        self.end_headers()
        print(json.dumps(posted), flush=True)  # noqa: T201 - the test reads the container's log

    def log_message(self, *_: object) -> None:
        pass


if __name__ == "__main__":
    HTTPServer(("0.0.0.0", 8000), _Handler).serve_forever()  # noqa: S104 - of a container
