"""A Hub of one user on loopback: the calls that huggingface_hub makes for one commit."""

import base64
import hashlib
import json
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any

import yaml

OWNER = "someone"
TOKEN = "hf_loopbackTokenOfNobody0123456789"


@dataclass
class Commit:
    """One commit as the server received it."""

    branch: str
    summary: str
    files: dict[str, bytes]


@dataclass
class Repo:
    """A model repository: its commits and its uploaded large files."""

    is_private: bool
    branches: list[str] = field(default_factory=lambda: ["main"])
    commits: list[Commit] = field(default_factory=list)
    blobs: dict[str, bytes] = field(default_factory=dict)
    verified: list[str] = field(default_factory=list)


class HubServer:
    """Runs while the `with` block does; refuse[path part] = (status, message) makes it refuse."""

    def __init__(self) -> None:
        self.repos: dict[str, Repo] = {}
        self.refuse: dict[str, tuple[int, str]] = {}
        self.calls: list[str] = []
        hub = self

        class Handler(_Handler):
            server_hub = hub

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> "HubServer":
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._server.shutdown()
        self._server.server_close()


class _Handler(BaseHTTPRequestHandler):
    server_hub: HubServer
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self._serve()

    do_POST = do_PUT = do_GET

    def log_message(self, format: str, *args: Any) -> None:
        """Silent: the tests read calls instead."""

    def _serve(self) -> None:
        hub, path = self.server_hub, self.path.partition("?")[0]
        body = self._body()
        hub.calls.append(f"{self.command} {path}")
        is_storage = path.startswith("/storage/")
        if not is_storage and self.headers.get("Authorization") != f"Bearer {TOKEN}":
            return self._answer(401, {"error": "Invalid credentials in Authorization header"})
        for part, (status, message) in hub.refuse.items():
            if part in path:
                return self._answer(status, {"error": message})
        for start, serve in self._routes().items():
            if path.startswith(start):
                return serve(path, body)
        self._repo_call(path, body)

    def _routes(self) -> dict[str, Callable[[str, bytes], None]]:
        return {
            "/api/whoami-v2": lambda _path, _body: self._answer(200, {"name": OWNER, "orgs": []}),
            "/api/repos/create": self._create,
            "/api/validate-yaml": self._validate,
            "/storage/": self._store,
        }

    def _create(self, _path: str, body: bytes) -> None:
        asked = json.loads(body)
        owner, name = asked.get("organization") or OWNER, asked["name"]
        repo_id = f"{owner}/{name}"
        if owner != OWNER:
            return self._answer(404, {"error": f"No such namespace: {owner}"})
        if repo_id in self.server_hub.repos:
            url = f"{self.server_hub.url}/{repo_id}"
            return self._answer(409, {"error": "You already created this model repo", "url": url})
        is_private = asked.get("visibility") == "private"
        self.server_hub.repos[repo_id] = Repo(is_private=is_private)
        self._answer(200, {"url": f"{self.server_hub.url}/{repo_id}", "name": repo_id})

    def _validate(self, _path: str, body: bytes) -> None:
        """Refuses what the Hub's validator refuses of base_model and datasets: a path."""
        data = yaml.safe_load(json.loads(body)["content"].split("---\n")[1])
        named = [data.get("base_model"), *(data.get("datasets") or [])]
        wrong = [name for name in named if name is not None and name.count("/") != 1]
        if wrong:
            message = f'"base_model" or "datasets" is no id of the Hub: {wrong}'
            return self._answer(400, {"errors": [{"message": message}], "warnings": []})
        self._answer(200, {"errors": [], "warnings": []})

    def _repo_call(self, path: str, body: bytes) -> None:
        parts = path.removeprefix("/api/models").strip("/").split("/")
        repo_id, rest = "/".join(parts[:2]).removesuffix(".git"), parts[2:]
        repo = self.server_hub.repos.get(repo_id)
        if repo is None:
            return self._answer(404, {"error": "Repository not found"}, code="RepoNotFound")
        match rest:
            case []:
                info = {"id": repo_id, "sha": "0" * 40, "private": repo.is_private, "tags": []}
                self._answer(200, {**info, "siblings": []})
            case ["branch", branch]:
                repo.branches.append(branch)
                self._answer(200, {})
            case ["preupload", branch] if branch in repo.branches:
                self._answer(200, {"files": [_mode(f) for f in json.loads(body)["files"]]})
            case ["info", "lfs", "objects", "batch"]:
                objects = [self._object(repo_id, o) for o in json.loads(body)["objects"]]
                self._answer(200, {"transfer": "basic", "objects": objects})
            case ["verify"]:
                asked = json.loads(body)
                blob = repo.blobs.get(asked["oid"])
                is_whole = blob is not None and len(blob) == asked["size"]
                repo.verified.append(asked["oid"])
                self._answer(200 if is_whole else 422, {})
            case ["commit", branch] if branch in repo.branches:
                self._commit(repo, repo_id, branch, body)
            case _:
                self._answer(404, {"error": f"no {path} here"})

    def _object(self, repo_id: str, asked: dict[str, Any]) -> dict[str, Any]:
        """As the Hub has it: an object that is there, committed or not, needs no upload."""
        known = {"oid": asked["oid"], "size": asked["size"]}
        if asked["oid"] in self.server_hub.repos[repo_id].blobs:
            return known
        url = self.server_hub.url
        actions = {
            "upload": {"href": f"{url}/storage/{repo_id}/{asked['oid']}"},
            "verify": {"href": f"{url}/api/models/{repo_id}/verify"},
        }
        return {**known, "actions": actions}

    def _store(self, path: str, body: bytes) -> None:
        repo_id, _, oid = path.removeprefix("/storage/").rpartition("/")
        if hashlib.sha256(body).hexdigest() != oid:
            return self._answer(400, {"error": "the bytes are not the object's"})
        self.server_hub.repos[repo_id].blobs[oid] = body
        self._answer(200, {})

    def _commit(self, repo: Repo, repo_id: str, branch: str, body: bytes) -> None:
        header, *operations = (json.loads(line) for line in body.splitlines())
        files = {}
        for operation in operations:
            value = operation["value"]
            match operation["key"]:
                case "file":
                    files[value["path"]] = base64.b64decode(value["content"])
                case "lfsFile":
                    files[value["path"]] = repo.blobs[value["oid"]]
        repo.commits.append(Commit(branch, header["value"]["summary"], files))
        oid = hashlib.sha1(body).hexdigest()
        url = f"{self.server_hub.url}/{repo_id}/commit/{oid}"
        self._answer(200, {"success": True, "commitOid": oid, "commitUrl": url})

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        chunks = []
        while size := int(self.rfile.readline(), 16):
            chunks.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(chunks)

    def _answer(self, status: int, answer: dict[str, Any], code: str | None = None) -> None:
        text = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        if code is not None:
            self.send_header("X-Error-Code", code)
        if answer.get("error", "\n").isprintable():  # as a header has to be
            self.send_header("X-Error-Message", answer["error"])
        self.end_headers()
        self.wfile.write(text)


def _mode(file: dict[str, Any]) -> dict[str, Any]:
    """Weights and tokenizers go to large file storage, as the Hub's .gitattributes has it."""
    is_large = file["path"].endswith((".safetensors", "tokenizer.json"))
    mode = "lfs" if is_large else "regular"
    return {"path": file["path"], "uploadMode": mode, "shouldIgnore": False}
