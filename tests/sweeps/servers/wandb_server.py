"""A loopback server that speaks as much of W&B's API as a run of scalars needs."""

import gzip
import json
import threading
from collections import defaultdict
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class WandbServer:
    """Takes runs in; `refusal` and `stop` make it fail as real servers do.

    Attributes:
        rows: history rows received, by run id.
        known_steps: last step of the runs that it says it has from before, by run id.
        refusal: HTTP status that every request gets, once set.
    """

    def __init__(self) -> None:
        self.rows: dict[str, list[dict[str, Any]]] = defaultdict(list)
        self.known_steps: dict[str, int] = {}
        self.refusal: int | None = None
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers.get("content-length", 0)))
                if self.headers.get("content-encoding") == "gzip":
                    body = gzip.decompress(body)
                self._send(server.refusal or 200, server.answer(self.path, body))

            do_PUT = do_POST

            def _send(self, status: int, answer: dict[str, Any]) -> None:
                content = json.dumps(answer).encode()
                self.send_response(status)
                self.send_header("content-length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._http.server_port}"
        threading.Thread(target=self._http.serve_forever, daemon=True).start()

    def stop(self) -> None:
        """Close the port; nothing listens there from now on."""
        self._http.shutdown()
        self._http.server_close()

    def answer(self, path: str, body: bytes) -> dict[str, Any]:
        if self.refusal:
            return {"errors": [{"message": "refused"}]}
        if path.endswith("/file_stream"):
            files = json.loads(body).get("files") or {}
            lines = files.get("wandb-history.jsonl", {}).get("content", [])
            self.rows[path.split("/")[-2]] += map(json.loads, lines)
            return {"limits": {}}
        if path != "/graphql":
            return {}
        query = json.loads(body)
        return {"data": self._data(query["operationName"], query.get("variables", {}))}

    def _data(self, operation: str, variables: dict[str, Any]) -> dict[str, Any]:
        if operation == "UpsertBucket":
            project = {"id": "p", "name": "proj", "entity": {"id": "e", "name": "me"}}
            bucket = {"id": "b", "name": variables["name"], "config": "{}", "project": project}
            return {"upsertBucket": {"bucket": bucket, "inserted": True}}
        if operation == "RunResumeStatus" and variables["name"] in self.known_steps:
            step = self.known_steps[variables["name"]]
            bucket = {
                "id": "b",
                "name": variables["name"],
                "summaryMetrics": "{}",
                "config": "{}",
                "logLineCount": 0,
                "historyLineCount": 1,
                "eventsLineCount": 0,
                "tags": [],
                "historyTail": json.dumps([json.dumps({"_step": step, "_runtime": 1})]),
                "eventsTail": "[]",
                "wandbConfig": json.dumps({"t": 1}),
            }
            return {
                "model": {
                    "id": "p",
                    "name": "proj",
                    "entity": {"id": "e", "name": "me"},
                    "bucket": bucket,
                }
            }
        if operation == "CreateRunFiles":
            files = [{"name": f, "uploadUrl": f"{self.url}/up/{f}"} for f in variables["files"]]
            return {"createRunFiles": {"runID": "b", "uploadHeaders": [], "files": files}}
        if operation == "Viewer":
            return {"viewer": {"id": "v", "username": "me", "entity": "me"}}
        return {"model": None}
