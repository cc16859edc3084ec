"""A small Hub on loopback for data sets with a history: `with HubServer() as hub: hub.publish(...)`.

It answers what `huggingface_hub`, `datasets` and we ask: repository info by a revision, the file tree in
pages, and files, by range and with ETags. Large files are sent from another host (127.0.0.2) under an address
that may be signed, as the Hub does.

A `Fault` is what goes wrong with the next requests it means: a status with headers, or a body that is cut,
reset, stalled or slow from some byte on. `hub.asked` holds every request with what was sent of its body.
`hub.refused` is a status and headers by repository: how the Hub answers to those who may not read it. With a
`token` it answers nobody without, with a `signature` its blobs' addresses carry one, and no other is taken;
what has a part of `hub.withheld` in its path is refused, in words that repeat the token; what `hub.altered`
holds by digest is sent in a file's place.
"""

import contextlib
import hashlib
import json
import socket
import struct
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Literal
from urllib.parse import parse_qs, unquote, urlsplit

BLOB_HOST = "127.0.0.2"
_SLOW_BYTES, _SLOW_S = 2000, 0.005
_LINGER_NOT = struct.pack("ii", 1, 0)  # close() sends RST


@dataclass
class Fault:
    """What goes wrong with requests that have `where` in their "METHOD path range"; the first one counts."""

    where: str
    status: int = 0
    """The answer in place of the true one."""
    headers: dict[str, str] = field(default_factory=dict)
    then: Literal["", "cut", "reset", "stall", "slow"] = ""
    """What becomes of the true body, behind `after` bytes of it."""
    after: int = 0
    times: int = 1
    skip: int = 0
    """Requests that it lets pass first."""


@dataclass
class Asked:
    """A request."""

    what: str
    """Method and path."""
    host: str
    start: int | None
    """Of the range asked for."""
    end: int | None
    headers: dict[str, str]
    """By names in lower case."""
    at_s: float
    """On a monotonic clock."""
    sent: int = 0
    """Bytes of the body."""


class HubServer:
    """Repositories in memory; every publication is a commit, and `main` is the newest."""

    def __init__(self, *, token: str = "", signature: str = "", page: int = 1000) -> None:
        self.token, self.signature, self.page = token, signature, page
        self.latency_s = 0.0
        self.withheld: list[str] = []
        self.altered: dict[str, bytes] = {}
        self.commits: dict[str, dict[str, dict[str, bytes]]] = {}
        self.faults: list[Fault] = []
        self.asked: list[Asked] = []
        self.refused: dict[str, tuple[int, dict[str, str]]] = {}
        self.lock, self.stopping = threading.Lock(), threading.Event()
        self._server = _Server(("0.0.0.0", 0), _handler(self))
        self.port = self._server.server_port
        self.url = f"http://127.0.0.1:{self.port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)

    def __enter__(self) -> "HubServer":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stopping.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def publish(self, repository: str, files: dict[str, bytes]) -> str:
        """Add a commit that holds these files; returns its name."""
        listed = json.dumps({name: hashlib.sha1(data).hexdigest() for name, data in files.items()})
        commit = hashlib.sha1(listed.encode()).hexdigest()
        self.commits.setdefault(repository, {})[commit] = files
        return commit

    def publish_folder(self, root: Path) -> None:
        """Publish what lies in a folder as `owner/name/...`."""
        for folder in sorted(path for path in root.glob("*/*") if path.is_dir()):
            files = {
                str(file.relative_to(folder)): file.read_bytes()
                for file in sorted(folder.rglob("*"))
                if file.is_file()
            }
            self.publish(str(folder.relative_to(root)), files)

    def resolve(self, repository: str, revision: str) -> str | None:
        """A commit by its name, or the newest as `main`."""
        history = self.commits.get(repository, {})
        return (
            list(history)[-1] if revision == "main" and history else revision if revision in history else None
        )

    def digest(self, name: str) -> str:
        """The sha256 of the newest file of a name."""
        trees = [files for history in self.commits.values() for files in history.values() if name in files]
        return hashlib.sha256(trees[-1][name]).hexdigest()

    def blob(self, digest: str) -> bytes | None:
        """What is sent for the file of this sha256."""
        if digest in self.altered:
            return self.altered[digest]
        files = (
            data for history in self.commits.values() for tree in history.values() for data in tree.values()
        )
        return next((data for data in files if _sha256(data) == digest), None)

    def blobs_asked(self) -> list[Asked]:
        """The requests for blobs, in order."""
        return [one for one in self.asked if one.what.startswith("GET /blobs/")]

    def fault_of(self, what: str) -> Fault | None:
        """The fault that this request meets."""
        with self.lock:
            for fault in self.faults:
                if fault.where in what:
                    if fault.skip:
                        fault.skip -= 1
                        continue
                    fault.times -= 1
                    if not fault.times:
                        self.faults.remove(fault)
                    return fault
        return None


@contextlib.contextmanager
def hub_of(root: Path) -> Iterator[HubServer]:
    """A Hub of what lies in a folder as `owner/name/...`."""
    with HubServer() as hub:
        hub.publish_folder(root)
        yield hub


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Silence: clients that leave are part of the play."""


def _handler(hub: HubServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        fault: Fault | None
        asked: Asked

        def do_GET(self) -> None:
            what = f"{self.command} {self.path}"
            headers = {key.lower(): value for key, value in self.headers.items()}
            self.asked = Asked(what, headers.get("host", ""), *self.span(), headers, time.monotonic())
            hub.asked.append(self.asked)
            hub.stopping.wait(hub.latency_s)
            self.fault = hub.fault_of(f"{what} {self.headers.get('Range', '')}")
            if self.fault and self.fault.status:
                self.send(self.fault.status, b"{}", self.fault.headers)
                return
            for repository, (status, headers) in hub.refused.items():
                if f"/{repository}/" in f"{urlsplit(self.path).path}/":
                    self.send(status, b"{}", headers)
                    return
            if self.forbidden():
                return
            parts = unquote(urlsplit(self.path).path).strip("/").split("/")
            if parts[0] == "blobs":
                self.send_blob(parts[1])
            elif parts[:2] == ["api", "datasets"]:
                self.send_facts("/".join(parts[2:4]), parts[4:])
            elif parts[0] == "datasets" and parts[3:4] == ["resolve"]:
                self.send_file("/".join(parts[1:3]), parts[4], "/".join(parts[5:]))
            else:
                self.refuse("EntryNotFound")

        do_HEAD = do_GET

        def span(self) -> tuple[int | None, int | None]:
            first, dash, last = self.headers.get("Range", "").removeprefix("bytes=").partition("-")
            return (int(first), int(last) + 1 if last else None) if dash else (None, None)

        def forbidden(self) -> bool:
            """Whether the request was refused: for want of the token or signature, or as withheld."""
            blob, given = self.path.startswith("/blobs/"), self.headers.get("Authorization", "")
            known = hub.signature in self.path if blob else given == f"Bearer {hub.token}" or not hub.token
            if known and not any(part in self.path for part in hub.withheld):
                return False
            why = f"{given or 'nobody'} may not read this"
            self.send(403 if known or blob else 401, b"{}", {"X-Error-Message": why})
            return True

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class's name
            """Silence: tests read `hub.asked`."""

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
                self.send_tree(files, "/".join(rest[2:]))
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
            self.send(200, json.dumps(body).encode(), {"X-Repo-Commit": commit})

        def send_tree(self, files: dict[str, bytes], folder: str) -> None:
            query = parse_qs(urlsplit(self.path).query)
            deep = query.get("recursive", [""])[0].lower() == "true"
            found, start = _tree(files, folder, deep=deep), int(query.get("cursor", ["0"])[0])
            if folder and not found:
                self.refuse("EntryNotFound")
                return
            more = start + hub.page
            base = f"{hub.url}{urlsplit(self.path).path}"
            link = f'<{base}?recursive={deep}&cursor={more}>; rel="next"'
            headers = {"Link": link} if more < len(found) else {}
            self.send(200, json.dumps(found[start:more]).encode(), headers)

        def send_file(self, repository: str, revision: str, name: str) -> None:
            commit = hub.resolve(repository, revision)
            files = hub.commits[repository][commit] if commit else {}
            if name not in files:
                known = "RevisionNotFound" if repository in hub.commits else "RepoNotFound"
                self.refuse("EntryNotFound" if files else known)
                return
            data = files[name]
            headers = {"X-Repo-Commit": str(commit), "ETag": f'"{_git_name(data)}"'}
            if not _is_large(name):
                self.send_bytes(data, headers)
                return
            digest = _sha256(data)
            headers |= {"X-Linked-Size": str(len(data)), "X-Linked-Etag": f'"{digest}"'}
            signed = f"?X-Amz-Signature={hub.signature}" if hub.signature else ""
            where = f"http://{BLOB_HOST}:{hub.port}/blobs/{digest}{signed}"
            self.send(302, b"", {**headers, "Location": where})

        def send_blob(self, digest: str) -> None:
            data = hub.blob(digest)
            if data is None:
                self.refuse("EntryNotFound")
                return
            self.send_bytes(data, {"ETag": f'"{_md5(data)}"'})  # another kind than the Hub's

        def send_bytes(self, data: bytes, headers: dict[str, str]) -> None:
            start, end = self.asked.start, self.asked.end
            if start is None or self.headers.get("If-Range", headers["ETag"]) != headers["ETag"]:
                self.send(200, data, headers)
                return
            stop = min(len(data) if end is None else end, len(data))
            told = {**headers, "Content-Range": f"bytes {start}-{stop - 1}/{len(data)}"}
            self.send(206, data[start:stop], told)

        def refuse(self, code: str) -> None:
            self.send(404, b"{}", {"X-Error-Code": code})

        def send(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
            self.send_response(status)
            for key, value in {**(headers or {}), "Content-Length": str(len(body))}.items():
                self.send_header(key, value)
            self.end_headers()
            if self.command == "HEAD":
                return
            fault = self.fault if self.fault and self.fault.then else None
            self.write(body[: fault.after] if fault else body)
            if fault:
                self.fail(fault.then, body[fault.after :])

        def write(self, data: bytes) -> None:
            self.asked.sent += len(data)  # before: who has them may look at once
            self.wfile.write(data)

        def fail(self, how: str, rest: bytes) -> None:
            if how == "slow":
                for at in range(0, len(rest), _SLOW_BYTES):
                    self.write(rest[at : at + _SLOW_BYTES])
                    hub.stopping.wait(_SLOW_S)
                return
            self.close_connection = True
            if how == "stall":
                hub.stopping.wait(60)
            elif how == "reset":
                hub.stopping.wait(0.2)  # what was sent is read first
                self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_NOT)
                self.connection.close()

    return Handler


def _is_large(name: str) -> bool:
    return name.endswith((".parquet", ".gz", ".zst", ".jsonl"))


@cache
def _sha256(data: bytes) -> str:
    return _sha256(data)


@cache
def _md5(data: bytes) -> str:
    return hashlib.md5(data).hexdigest()


@cache
@cache
def _sha256(data: bytes) -> str:
    return _sha256(data)


@cache
def _md5(data: bytes) -> str:
    return hashlib.md5(data).hexdigest()


@cache
@cache
def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@cache
def _md5(data: bytes) -> str:
    return hashlib.md5(data).hexdigest()


@cache
def _git_name(data: bytes) -> str:
    name = hashlib.sha1(b"blob %d\0" % len(data))
    name.update(data)
    return name.hexdigest()


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
            entry = {"type": "file", "path": name, "oid": _git_name(data), "size": len(data)}
            if _is_large(name):
                entry["lfs"] = {
                    "oid": _sha256(data),
                    "size": len(data),
                    "pointerSize": 130,
                }
            found[name] = entry
    return list(found.values())
