"""A W&B server for tests: real HTTP on this machine, which does as `mode` says and keeps what it is sent.

It answers wandb's public API too: a project's runs with their files, and a sweep's agents.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class WandbServer:
    """Keeps the runs that arrive: by id, `upserts` (their variables), `history` rows, the last `summary` and `files`.

    bodies: of every request. sweep: the configuration of the one sweep; `waiting`: the arguments of its runs to come,
    which `wandb agent` gets one at a time.
    delay: the seconds that each answer takes, as over a slow connection.
    mode: `ok`, a status code (`401`, `500`), `hung` (never an answer), or `dead` (connections are closed unanswered).
    """

    def __init__(self) -> None:
        self.mode = "ok"
        self.delay = 0.0
        self.upserts: list[dict[str, Any]] = []
        self.history: dict[str, list[dict[str, Any]]] = {}
        self.summary: dict[str, dict[str, Any]] = {}
        self.exit_codes: dict[str, int] = {}
        self.groups: dict[str, str] = {}
        self.files: dict[tuple[str, str], bytes] = {}
        self.bodies: list[bytes] = []
        self.sweep = ""
        self.waiting: list[dict[str, Any]] = []
        self.heartbeats = 0
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

    def answer(self, method: str, path: str, body: bytes) -> bytes:
        """Keep a request, and return the answer's content."""
        self.bodies.append(body)
        if path.startswith("/storage/"):
            _, _, run, name = path.split("/", 3)
            if method == "PUT":
                self.files[run, name] = body
            return self.files[run, name]
        if "/file_stream" in path:
            self._keep(path.split("/")[-2], json.loads(body or b"{}"))
        if not path.endswith("/graphql"):
            return b"{}"
        values = json.loads(body)
        found = re.search(r"(?:query|mutation)\s+(\w+)", values["query"])
        # An anonymous query asks who is logged in.
        name = values.get("operationName") or (found.group(1) if found else "Viewer")
        handle = getattr(self, f"answer_{name}", None)
        data = handle(values.get("variables") or {}) if handle else None
        return json.dumps({"data": data or {"model": None}}).encode()

    def answer_UpsertBucket(self, given: dict[str, Any]) -> dict[str, Any]:
        """Open a run, or change it."""
        self.upserts.append(given)
        if given.get("groupName"):
            self.groups[given["name"]] = given["groupName"]
        project = {"id": "p", "name": given["project"], "entity": {"id": "e", "name": "us"}}
        bucket = {"id": "b", "name": given["name"], "displayName": "", "project": project, "config": "{}"}
        return {"upsertBucket": {"bucket": {**bucket, "historyLineCount": 0}, "inserted": True}}

    def answer_CreateRunFiles(self, given: dict[str, Any]) -> dict[str, Any]:
        """Say where a run's files are uploaded."""
        urls = {one: f"{self.url}/storage/{given['run']}/{one}" for one in given["files"]}
        files = [{"name": name, "uploadUrl": url} for name, url in urls.items()]
        return {"createRunFiles": {"runID": "b", "uploadHeaders": [], "files": files}}

    def answer_RunResumeStatus(self, given: dict[str, Any]) -> dict[str, Any] | None:
        """Return what there is of a run."""
        run = given["name"]
        if run not in self.summary:
            return None
        rows = self.history.get(run, [])
        counts = {"historyLineCount": len(rows), **dict.fromkeys(("logLineCount", "eventsLineCount"), 0)}
        tail = json.dumps([json.dumps(one) for one in rows[-1:]])
        texts = {"historyTail": tail, "eventsTail": "[]", "config": "{}", "displayName": "", "notes": ""}
        known = {"id": "b", "name": run, "summaryMetrics": json.dumps(self.summary[run])}
        bucket = {**known, **counts, **texts, "tags": [], "wandbConfig": '{"t": 1}'}
        return {"model": {"id": "m", "name": "p", "entity": {"id": "e", "name": "us"}, "bucket": bucket}}

    def answer_Viewer(self, given: dict[str, Any]) -> dict[str, Any]:
        """Say who is logged in."""
        teams: dict[str, Any] = {"edges": []}
        return {"viewer": {"id": "u", "entity": "us", "username": "us", "email": "", "flags": "{}", "teams": teams}}

    answer_GetDefaultEntity = answer_Viewer

    def answer_Runs(self, given: dict[str, Any]) -> dict[str, Any]:
        """List a page of the project's runs, of the groups that the filter names."""
        wanted = json.loads(given["filters"] or "{}").get("group", {}).get("$in")
        names = [one for one in sorted(self.groups) if wanted is None or self.groups[one] in wanted]
        start = int(given.get("cursor") or 0)
        page = names[start : start + min(given["perPage"], 3)]
        edges = [{"node": self._node(one), "cursor": str(start + place)} for place, one in enumerate(page, 1)]
        more = {"endCursor": str(start + len(page)), "hasNextPage": start + len(page) < len(names)}
        found = {"edges": edges, "pageInfo": more}
        return {"project": {"internalId": "1", "runCount": len(names), "readOnly": False, "runs": found}}

    def _node(self, run: str) -> dict[str, Any]:
        empty = dict.fromkeys(("sweepName", "jobType", "commit", "description", "notes"))
        about = {"tags": [], "readOnly": False, "createdAt": "2026-11-01T00:00:00", "heartbeatAt": ""}
        user = {"name": "us", "username": "us"}
        state = {"state": "finished", "group": self.groups[run], "historyLineCount": len(self.history.get(run, []))}
        return {"id": run, "name": run, "displayName": run, "projectId": "1", **empty, **about, **state, "user": user}

    def answer_RunFiles(self, given: dict[str, Any]) -> dict[str, Any]:
        """List those files of a run that are asked for."""
        files = {name: data for (run, name), data in self.files.items() if run == given["name"]}
        nodes = [
            {
                "id": name,
                "name": name,
                "url": f"{self.url}/storage/{given['name']}/{name}",
                "directUrl": None,
                "sizeBytes": str(len(data)),
                "mimetype": None,
                "updatedAt": None,
                "md5": hashlib.md5(data).hexdigest(),
            }
            for name, data in sorted(files.items())
            if name in given["fileNames"]
        ]
        edges = [{"node": node, "cursor": node["name"]} for node in nodes]
        found = {"edges": edges, "pageInfo": {"endCursor": None, "hasNextPage": False}}
        return {"project": {"internalId": "1", "run": {"fileCount": len(nodes), "files": found}}}

    def answer_SweepWithRuns(self, given: dict[str, Any]) -> dict[str, Any]:
        """Return the sweep's configuration, as its agent asks for it."""
        about = {"id": "s", "name": given["sweep"], "state": "RUNNING", "config": self.sweep, "runs": {"edges": []}}
        return {"project": {"sweep": about}}

    def answer_CreateAgent(self, given: dict[str, Any]) -> dict[str, Any]:
        """Take in an agent."""
        return {"createAgent": {"agent": {"id": "a"}}}

    def answer_Heartbeat(self, given: dict[str, Any]) -> dict[str, Any]:
        """Hand an agent its next run while it has none; tell it to end where there are no more."""
        commands: list[dict[str, Any]] = []
        if not json.loads(given["runState"] or "{}"):
            if self.waiting:
                self.heartbeats += 1
                arguments = {name: {"value": value} for name, value in self.waiting.pop(0).items()}
                about = {"type": "run", "run_id": f"agent{self.heartbeats}", "program": "stability.wandb_sweep"}
                commands = [{**about, "args": arguments}]
            else:
                commands = [{"type": "exit"}]
        return {"agentHeartbeat": {"agent": {"id": "a"}, "commands": json.dumps(commands)}}

    def _keep(self, run: str, values: dict[str, Any]) -> None:
        for name, file in values.get("files", {}).items():
            if name == "wandb-history.jsonl":
                rows, start = self.history.setdefault(run, []), file["offset"]
                rows[start : start + len(file["content"])] = map(json.loads, file["content"])
            if name == "wandb-summary.json":
                self.summary[run] = json.loads(file["content"][-1])
        if values.get("complete"):
            self.exit_codes[run] = values["exitcode"]

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def handle(self) -> None:
                # A program that is killed leaves its connections open.
                with suppress(ConnectionError):
                    super().handle()

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                if self.headers.get("Content-Encoding") == "gzip":
                    body = gzip.decompress(body)
                if server.mode == "hung":
                    server.release.wait(120.0)
                if server.mode in ("hung", "dead"):
                    self.close_connection = True
                    return
                time.sleep(server.delay)
                code = 200 if server.mode == "ok" else int(server.mode)
                refused = b'{"errors": [{"message": "no"}]}'
                content = server.answer(self.command, self.path, body) if code == 200 else refused
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
