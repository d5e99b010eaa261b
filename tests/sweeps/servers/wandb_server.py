"""A loopback server that speaks as much of W&B's API as sweeps need: runs, a sweep, artifacts."""

import base64
import gzip
import json
import re
import threading
from collections import defaultdict
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import yaml

_PROJECT = {"id": "p", "name": "proj", "entity": {"id": "e", "name": "me"}}


@dataclass
class ServedRun:
    """What the server was told of one run."""

    facts: dict[str, Any] = field(default_factory=dict)
    """Variables of UpsertBucket that were not null, the latest of each: sweep, jobType, ..."""
    config: dict[str, Any] = field(default_factory=dict)
    summary: dict[str, Any] = field(default_factory=dict)
    exit_code: int | None = None
    is_stopped: bool = False
    """Whether somebody has pressed Stop in the browser."""


@dataclass
class ServedArtifact:
    """An artifact with the files that were uploaded for it."""

    facts: dict[str, Any]
    """The input of CreateArtifact."""
    files: dict[str, bytes] = field(default_factory=dict)
    manifest: dict[str, Any] = field(default_factory=dict)
    is_committed: bool = False


class WandbServer:
    """Takes runs in; `refusal`, `is_silent` and `stop` make it fail as real servers do.

    Attributes:
        runs: by run id; a dict keeps their order.
        rows: history rows received, by run id.
        sweeps: the configs of the sweeps that were made, by sweep id, with "prior_runs".
        artifacts: by "type/name", the last version of each.
        files: contents of files of runs, by "run id/name".
        known_steps: last step of the runs that it says it has from before, by run id.
        refusal: HTTP status that every request gets, once set.
        is_silent: keeps all requests waiting, until `end_outage`.
    """

    def __init__(self) -> None:
        self.runs: dict[str, ServedRun] = defaultdict(ServedRun)
        self.rows: dict[str, list[dict[str, Any]]] = defaultdict(list)
        self.sweeps: dict[str, dict[str, Any]] = {}
        self.artifacts: dict[str, ServedArtifact] = {}
        self.files: dict[str, bytes] = {}
        self.known_steps: dict[str, int] = {}
        self.refusal: int | None = None
        self.is_silent = False
        self.has_sweeps = True
        self._by_id: dict[str, ServedArtifact] = {}
        self._lock = threading.RLock()
        self._over = threading.Condition()
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers.get("content-length", 0)))
                if self.headers.get("content-encoding") == "gzip":
                    body = gzip.decompress(body)
                if server.breaks_off():
                    self.close_connection = True
                    return
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

        class Server(ThreadingHTTPServer):
            def handle_error(self, request: Any, client_address: Any) -> None:
                """wandb breaks connections off when it ends."""

        self._http = Server(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._http.server_port}"
        threading.Thread(target=self._http.serve_forever, daemon=True).start()

    def stop(self) -> None:
        """Close the port; nothing listens there from now on."""
        self._http.shutdown()
        self._http.server_close()

    def press_stop(self, run_id: str) -> None:
        """What W&B's Stop button does to a run."""
        self.runs[run_id].is_stopped = True

    def end_outage(self) -> None:
        """Requests that waited are broken off, and new ones are answered."""
        with self._over:
            self.is_silent = False
            self._over.notify_all()

    def breaks_off(self) -> bool:
        """Whether a request is to get no answer; in an outage it waits for its end."""
        with self._over:
            was_silent = self.is_silent
            self._over.wait_for(lambda: not self.is_silent)
        return was_silent

    def answer(self, path: str, body: bytes) -> dict[str, Any]:
        if self.refusal:
            return {"errors": [{"message": "refused"}]}
        with self._lock:
            if path.endswith("/file_stream"):
                return self._stream(path.split("/")[-2], json.loads(body))
            if path == "/graphql":
                return self._answer_query(json.loads(body))
            kind, _, rest = path.lstrip("/").partition("/")
            if kind == "artifact":
                artifact_id, _, name = rest.partition("/")
                self._by_id[artifact_id].files[name] = body
            elif kind == "manifest":
                self._by_id[rest].manifest = json.loads(body)
            elif kind == "up":
                self.files[rest] = body
            return {}

    def _stream(self, run_id: str, request: dict[str, Any]) -> dict[str, Any]:
        run, files = self.runs[run_id], request.get("files") or {}
        if "wandb-history.jsonl" in files:
            chunk = files["wandb-history.jsonl"]
            start, new = chunk["offset"], [json.loads(line) for line in chunk["content"]]
            self.rows[run_id][start : start + len(new)] = new
        if "wandb-summary.json" in files:
            run.summary = json.loads(files["wandb-summary.json"]["content"][-1])
        if request.get("complete"):
            run.exit_code = request["exitcode"]
        return {"limits": {}, "stopped": run.is_stopped}

    def _answer_query(self, request: dict[str, Any]) -> dict[str, Any]:
        named = re.search(r"(?:query|mutation)\s+(\w+)", request["query"])
        operation, variables = named.group(1) if named else "", request.get("variables") or {}
        if operation == "UpsertSweep" and not self.has_sweeps:
            return {"errors": [{"message": "this server has no sweeps"}], "data": None}
        answer = getattr(self, f"_answer_{operation}", lambda _: {"model": None, "project": None})
        return {"data": answer(variables)}

    def _answer_Viewer(self, _: dict[str, Any]) -> dict[str, Any]:
        return {"viewer": {"id": "v", "username": "me", "entity": "me", "teams": {"edges": []}}}

    def _answer_UpsertSweep(self, variables: dict[str, Any]) -> dict[str, Any]:
        sweep_id = f"sweep{len(self.sweeps)}"
        prior = json.loads(variables.get("priorRunsFilters") or '{"$or": []}')["$or"]
        config = yaml.safe_load(variables["config"])
        self.sweeps[sweep_id] = config | {"prior_runs": [run["name"] for run in prior]}
        sweep = {"name": sweep_id, "project": _PROJECT}
        return {"upsertSweep": {"sweep": sweep, "configValidationWarnings": []}}

    def _answer_StoppedRuns(self, variables: dict[str, Any]) -> dict[str, Any]:
        asked = {key: name for key, name in variables.items() if re.fullmatch(r"r\d+", key)}
        known = {key: name for key, name in asked.items() if name in self.runs}
        stopped = {key: {"stopped": self.runs[name].is_stopped} for key, name in known.items()}
        return {"project": dict.fromkeys(asked) | stopped}

    def _answer_UpsertBucket(self, variables: dict[str, Any]) -> dict[str, Any]:
        run = self.runs[variables["name"]]
        run.facts |= {name: value for name, value in variables.items() if value is not None}
        for name, entry in json.loads(variables.get("config") or "{}").items():
            run.config[name] = entry["value"]
        bucket = {
            "id": variables["name"],
            "name": variables["name"],
            "displayName": run.facts.get("displayName"),
            "sweepName": run.facts.get("sweep"),
            "config": "{}",
            "historyLineCount": len(self.rows[variables["name"]]),
            "project": _PROJECT,
        }
        return {"upsertBucket": {"bucket": bucket, "inserted": True}}

    def _answer_RunResumeStatus(self, variables: dict[str, Any]) -> dict[str, Any]:
        name = variables["name"]
        if name not in self.known_steps and name not in self.runs:
            return {"model": None}
        rows = self.rows[name] or [{"_step": self.known_steps.get(name, -1)}]
        tail = [json.dumps({"_runtime": 1} | rows[-1])] if rows[-1]["_step"] >= 0 else []
        config = {key: {"value": value} for key, value in self.runs[name].config.items()}
        bucket = {
            "id": name,
            "name": name,
            "summaryMetrics": json.dumps(self.runs[name].summary),
            "config": json.dumps(config),
            "logLineCount": 0,
            "historyLineCount": len(rows) if tail else 0,
            "eventsLineCount": 0,
            "tags": [],
            "historyTail": json.dumps(tail),
            "eventsTail": "[]",
            "wandbConfig": json.dumps({"t": 1}),
        }
        return {"model": {**_PROJECT, "bucket": bucket}}

    def _answer_CreateRunFiles(self, variables: dict[str, Any]) -> dict[str, Any]:
        run = variables["run"]
        files = [{"name": f, "uploadUrl": f"{self.url}/up/{run}/{f}"} for f in variables["files"]]
        return {"createRunFiles": {"runID": run, "uploadHeaders": [], "files": files}}

    def _answer_CreateArtifact(self, variables: dict[str, Any]) -> dict[str, Any]:
        facts = variables["input"]
        artifact = ServedArtifact(facts)
        artifact_id = base64.b64encode(f"a{len(self._by_id)}".encode()).decode()
        self._by_id[artifact_id] = artifact
        self.artifacts[f"{facts['artifactTypeName']}/{facts['artifactCollectionName']}"] = artifact
        sequence = {"latestArtifact": None}
        created = {"id": artifact_id, "state": "PENDING", "artifactSequence": sequence}
        return {"createArtifact": {"artifact": created}}

    def _answer_CreateArtifactManifest(self, variables: dict[str, Any]) -> dict[str, Any]:
        artifact_id = variables["artifactID"]
        file = {"id": "f", "uploadUrl": None, "uploadHeaders": []}
        if variables["includeUpload"]:
            file["uploadUrl"] = f"{self.url}/manifest/{artifact_id}"
        return {"createArtifactManifest": {"artifactManifest": {"id": artifact_id, "file": file}}}

    def _answer_CreateArtifactFiles(self, variables: dict[str, Any]) -> dict[str, Any]:
        edges = [
            {
                "node": {
                    "storagePath": spec["name"],
                    "uploadUrl": f"{self.url}/artifact/{spec['artifactID']}/{spec['name']}",
                    "uploadHeaders": [],
                    "uploadMultipartUrls": None,
                    "artifact": {"id": spec["artifactID"]},
                }
            }
            for spec in variables["input"]["artifactFiles"]
        ]
        return {"createArtifactFiles": {"files": {"edges": edges}}}

    def _answer_CommitArtifact(self, variables: dict[str, Any]) -> dict[str, Any]:
        artifact = self._by_id[variables["artifactID"]]
        artifact.is_committed = True
        facts = {"id": variables["artifactID"], "digest": artifact.facts["digest"]}
        return {"commitArtifact": {"artifact": facts}}
