"""A small Hub on loopback for data sets with a history: `with HubServer() as hub: hub.publish(...)`.

It answers what `huggingface_hub` and `datasets` ask before and while files are read: repository info by a
revision, file tree, and files by range, sent to another host (127.0.0.2) as the Hub does for large ones.
`hub.faults` holds (part of a path, status) pairs, each answered once; `hub.requests` what was asked;
`hub.refused` a status and headers by repository: how the Hub answers to those who may not read it. With a
`token` it answers nobody without, with a `signature` its blobs' addresses carry one; what has a part of
`hub.withheld` in its path is refused, in words that repeat the token.
"""

import hashlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

BLOB_HOST = "127.0.0.2"


class HubServer:
    """Repositories in memory; every publication is a commit, and `main` is the newest."""

    def __init__(self, *, token: str = "", signature: str = "") -> None:
        self.token, self.signature = token, signature
        self.withheld: list[str] = []
        self.commits: dict[str, dict[str, dict[str, bytes]]] = {}
        self.faults: list[tuple[str, int]] = []
        self.requests: list[str] = []
        self.refused: dict[str, tuple[int, dict[str, str]]] = {}
        self._server = ThreadingHTTPServer(("0.0.0.0", 0), _handler(self))
        self.port = self._server.server_port
        self.url = f"http://127.0.0.1:{self.port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)

    def __enter__(self) -> "HubServer":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def publish(self, repository: str, files: dict[str, bytes]) -> str:
        """Add a commit that holds these files; returns its name."""
        listed = json.dumps({name: hashlib.sha1(data).hexdigest() for name, data in files.items()})
        commit = hashlib.sha1(listed.encode()).hexdigest()
        self.commits.setdefault(repository, {})[commit] = files
        return commit

    def resolve(self, repository: str, revision: str) -> str | None:
        """A commit by its name, or the newest as `main`."""
        history = self.commits[repository]
        return list(history)[-1] if revision == "main" else revision if revision in history else None

    def digest(self, name: str) -> str:
        """The sha256 of the newest file of a name."""
        trees = [files for history in self.commits.values() for files in history.values() if name in files]
        return hashlib.sha256(trees[-1][name]).hexdigest()

    def blob(self, digest: str) -> bytes:
        """A file by the sha256 of its bytes."""
        files = (
            data for history in self.commits.values() for tree in history.values() for data in tree.values()
        )
        return next(data for data in files if hashlib.sha256(data).hexdigest() == digest)


def _handler(hub: HubServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            hub.requests.append(f"{self.command} {self.path}")
            for fault in hub.faults:
                if fault[0] in self.path:
                    hub.faults.remove(fault)
                    self.send(fault[1], b"")
                    return
            for repository, (status, headers) in hub.refused.items():
                if f"/{repository}/" in f"{urlsplit(self.path).path}/":
                    self.send(status, b"{}", headers)
                    return
            if self.forbidden():
                return
            parts = unquote(urlsplit(self.path).path).strip("/").split("/")
            if parts[0] == "blobs":
                self.send_bytes(hub.blob(parts[1]))
            elif parts[:2] == ["api", "datasets"]:
                self.send_facts("/".join(parts[2:4]), parts[4:])
            elif parts[0] == "datasets" and parts[3] == "resolve":
                self.send_file("/".join(parts[1:3]), parts[4], "/".join(parts[5:]))
            else:
                self.refuse("EntryNotFound")

        do_HEAD = do_GET

        def forbidden(self) -> bool:
            """Whether the request was refused: for want of the token or signature, or as withheld."""
            blob, given = self.path.startswith("/blobs/"), self.headers.get("Authorization", "")
            known = hub.signature in self.path if blob else given == f"Bearer {hub.token}" or not hub.token
            if known and not any(part in self.path for part in hub.withheld):
                return False
            why = f"{given or 'nobody'} may not read this"
            self.send(403 if known else 401, b"{}", {"X-Error-Message": why})
            return True

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class's name
            """Silence: tests read `hub.requests`."""

        def send_facts(self, repository: str, rest: list[str]) -> None:
            if repository not in hub.commits:
                self.refuse("RepoNotFound")
                return
            commit = hub.resolve(repository, rest[1] if len(rest) > 1 else "main")
            if commit is None:
                self.refuse("RevisionNotFound")
                return
            files = hub.commits[repository][commit]
            if rest[:1] == ["tree"]:
                found = _tree(files, "/".join(rest[2:]), deep="recursive=true" in self.path.lower())
                self.send(200, json.dumps(found).encode())
                return
            body = {"id": repository, "sha": commit, "siblings": [{"rfilename": name} for name in files]}
            body |= {
                "private": False,
                "gated": False,
                "disabled": False,
                "downloads": 0,
                "likes": 0,
                "tags": [],
            }
            self.send(200, json.dumps(body).encode())

        def send_file(self, repository: str, revision: str, name: str) -> None:
            commit = hub.resolve(repository, revision) if repository in hub.commits else None
            files = hub.commits[repository][commit] if commit else {}
            if name not in files:
                self.refuse("EntryNotFound" if files else "RepoNotFound")
                return
            data = files[name]
            digest = hashlib.sha256(data).hexdigest()
            headers = {"X-Repo-Commit": str(commit), "ETag": f'"{hashlib.sha1(data).hexdigest()}"'}
            if not _is_large(name):
                self.send_bytes(data, headers)
                return
            headers |= {"X-Linked-Size": str(len(data)), "X-Linked-Etag": f'"{digest}"'}
            signed = f"?X-Amz-Signature={hub.signature}" if hub.signature else ""
            where = f"http://{BLOB_HOST}:{hub.port}/blobs/{digest}{signed}"
            self.send(302, b"", {**headers, "Location": where})

        def send_bytes(self, data: bytes, headers: dict[str, str] | None = None) -> None:
            wanted = self.headers.get("Range", "")
            if not wanted.startswith("bytes="):
                self.send(200, data, headers)
                return
            first, _, last = wanted.removeprefix("bytes=").partition("-")
            start, stop = int(first), min(int(last) + 1 if last else len(data), len(data))
            told = {**(headers or {}), "Content-Range": f"bytes {start}-{stop - 1}/{len(data)}"}
            self.send(206, data[start:stop], told)

        def refuse(self, code: str) -> None:
            self.send(404, b"{}", {"X-Error-Code": code})

        def send(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
            self.send_response(status)
            for key, value in {**(headers or {}), "Content-Length": str(len(body))}.items():
                self.send_header(key, value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

    return Handler


def _is_large(name: str) -> bool:
    return name.endswith((".parquet", ".gz", ".zst", ".jsonl"))


def _tree(files: dict[str, bytes], folder: str, *, deep: bool) -> list[dict[str, Any]]:
    inside = f"{folder}/" if folder else ""
    found: dict[str, dict[str, Any]] = {}
    for name, data in files.items():
        if not name.startswith(inside):
            continue
        steps = name.removeprefix(inside).split("/")
        for depth in range(1, len(steps)):
            path = inside + "/".join(steps[:depth])
            if deep or depth == 1:
                found[path] = {"type": "directory", "path": path, "oid": "0" * 40, "size": 0}
        if deep or len(steps) == 1:
            entry = {"type": "file", "path": name, "oid": hashlib.sha1(data).hexdigest(), "size": len(data)}
            if _is_large(name):
                entry["lfs"] = {
                    "oid": hashlib.sha256(data).hexdigest(),
                    "size": len(data),
                    "pointerSize": 130,
                }
            found[name] = entry
    return list(found.values())
