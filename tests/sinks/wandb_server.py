"""A W&B server for tests: real HTTP on this machine, which does as `mode` says and keeps what it is sent."""

from __future__ import annotations

import gzip
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class WandbServer:
    """Keeps the runs that arrive: by id, `upserts` (their variables), `history` rows and the last `summary`.

    mode: `ok`, a status code (`401`, `500`), `hung` (never an answer), or `dead` (connections are closed unanswered).
    """

    def __init__(self) -> None:
        self.mode = "ok"
        self.upserts: list[dict[str, Any]] = []
        self.history: dict[str, list[dict[str, Any]]] = {}
        self.summary: dict[str, dict[str, Any]] = {}
        self.exit_codes: dict[str, int] = {}
        self.release = threading.Event()
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._http.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._http.server_address[1]}"
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.05,), daemon=True)

    def start(self) -> None:
        """Serve."""
        self._thread.start()

    def close(self) -> None:
        """Serve no more: connections are refused from then on."""
        self.release.set()
        self._http.shutdown()
        self._http.server_close()

    def answer(self, path: str, body: bytes) -> dict[str, Any]:
        """Keep a request, and return the answer's JSON."""
        if "/file_stream" in path:
            self._keep(path.split("/")[-2], json.loads(body or b"{}"))
        if not path.endswith("/graphql"):
            return {}
        values = json.loads(body)
        name, variables = values.get("operationName"), values.get("variables", {})
        if name == "UpsertBucket":
            self.upserts.append(variables)
            project = {"id": "p", "name": variables["project"], "entity": {"id": "e", "name": "us"}}
            bucket = {"id": "b", "name": variables["name"], "displayName": "", "project": project, "config": "{}"}
            return {"data": {"upsertBucket": {"bucket": {**bucket, "historyLineCount": 0}, "inserted": True}}}
        if name == "CreateRunFiles":
            files = [{"name": one, "uploadUrl": f"{self.url}/storage/{one}"} for one in variables["files"]]
            return {"data": {"createRunFiles": {"runID": "b", "uploadHeaders": [], "files": files}}}
        if name == "RunResumeStatus" and variables["name"] in self.summary:
            counts = dict.fromkeys(("logLineCount", "historyLineCount", "eventsLineCount"), 0)
            texts = {"historyTail": "[]", "eventsTail": "[]", "config": "{}", "displayName": "", "notes": ""}
            known = {
                "id": "b",
                "name": variables["name"],
                "summaryMetrics": json.dumps(self.summary[variables["name"]]),
            }
            bucket = {**known, **counts, **texts, "tags": [], "wandbConfig": '{"t": 1}'}
            return {"data": {"model": {"id": "m", "name": "p", "entity": {"id": "e", "name": "us"}, "bucket": bucket}}}
        return {"data": {"model": None}}

    def _keep(self, run: str, values: dict[str, Any]) -> None:
        for name, file in values.get("files", {}).items():
            if name == "wandb-history.jsonl":
                self.history.setdefault(run, []).extend(map(json.loads, file["content"]))
            if name == "wandb-summary.json":
                self.summary[run] = json.loads(file["content"][-1])
        if values.get("complete"):
            self.exit_codes[run] = values["exitcode"]

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                if self.headers.get("Content-Encoding") == "gzip":
                    body = gzip.decompress(body)
                if server.mode == "hung":
                    server.release.wait(120.0)
                if server.mode in ("hung", "dead"):
                    self.close_connection = True
                    return
                code = 200 if server.mode == "ok" else int(server.mode)
                answer = server.answer(self.path, body) if code == 200 else {"errors": [{"message": "no"}]}
                content = json.dumps(answer).encode()
                self.send_response(code)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            do_GET = do_PUT = do_POST

            def log_message(self, *_: object) -> None:
                """Print nothing."""

        return Handler


@contextmanager
def serving() -> Iterator[WandbServer]:
    """Serve meanwhile."""
    server = WandbServer()
    server.start()
    try:
        yield server
    finally:
        server.close()
