"""A server on this machine that answers what huggingface_hub asks when it makes a repository and commits files."""

import base64
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

OWNER = "somebody"


class StandInHub(ThreadingHTTPServer):
    """What was pushed, and what was asked."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.files: dict[str, bytes] = {}
        self.made: list[dict[str, Any]] = []
        self.asked: list[tuple[str, str | None]] = []
        """Paths with the token that came along."""
        self.status = 200
        """Of every answer: another one is a refusal."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    """Every request carries JSON, one object a line for a commit."""

    server: StandInHub

    def do_POST(self) -> None:  # the name that the base class calls
        body = self.rfile.read(int(self.headers.get("Content-Length", 0))) if "Content-Length" in self.headers else b""
        if self.headers.get("Transfer-Encoding") == "chunked":
            body = b"".join(iter(self._chunk, b""))
        self.server.asked.append((self.path, self.headers.get("Authorization")))
        answer = {} if self.server.status != 200 else self._answer([json.loads(line) for line in body.splitlines()])
        content = json.dumps(answer).encode()
        self.send_response(self.server.status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def _chunk(self) -> bytes:
        content = self.rfile.read(int(self.rfile.readline(), 16))
        self.rfile.readline()
        return content

    def _answer(self, lines: list[dict[str, Any]]) -> dict[str, Any]:
        hub = self.server
        if self.path.startswith("/api/repos/create"):
            hub.made += lines
            return {"url": f"{hub.url}/{lines[0].get('organization') or OWNER}/{lines[0]['name']}"}
        if "/preupload/" in self.path:
            files = [
                {"path": each["path"], "uploadMode": "regular", "shouldIgnore": False} for each in lines[0]["files"]
            ]
            return {"files": files}
        if "/commit/" in self.path:
            for line in lines:
                if line["key"] == "file":
                    hub.files[line["value"]["path"]] = base64.b64decode(line["value"]["content"])
            repo = self.path.removeprefix("/api/models/").partition("/commit/")[0]
            return {"commitUrl": f"{hub.url}/{repo}/commit/{'a' * 40}", "commitOid": "a" * 40, "hookOutput": ""}
        return {"errors": [], "warnings": []}

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing on stderr, which the tests read."""


@contextmanager
def stand_in_hub() -> Iterator[StandInHub]:
    """Serve for as long as the block lasts."""
    with StandInHub() as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()
