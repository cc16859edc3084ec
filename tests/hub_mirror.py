"""A loopback Hub for data sets: serves folders laid out `owner/name/...` as the Hub would, to HF_ENDPOINT.

Just what `datasets` asks for when it loads a Parquet data set whole: repository info, file tree, files (HEAD,
GET, ranges). A repository has one commit, made from its files' names and contents. Requests are noted.
"""

import contextlib
import hashlib
import json
import threading
from collections.abc import Iterator
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit


@contextlib.contextmanager
def hub_mirror(root: Path) -> Iterator["HubMirror"]:
    """Serve `root` on a free loopback port for a while."""
    server = HubMirror(root)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class HubMirror(ThreadingHTTPServer):
    """The server; `url` is what HF_ENDPOINT takes."""

    daemon_threads = True

    def __init__(self, root: Path) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.root = root
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.requests: list[str] = []

    def files(self, repository: str) -> dict[str, Path]:
        folder = self.root / repository
        if repository.count("/") != 1 or not folder.is_dir():
            return {}
        return {str(file.relative_to(folder)): file for file in sorted(folder.rglob("*")) if file.is_file()}

    def commit(self, repository: str) -> str:
        listed = "\n".join(f"{name} {_sha1(file)}" for name, file in self.files(repository).items())
        return hashlib.sha1(listed.encode()).hexdigest()


@cache
def _sha1(file: Path) -> str:
    return hashlib.sha1(file.read_bytes()).hexdigest()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: HubMirror

    def do_GET(self) -> None:
        self._answer(with_body=True)

    def do_HEAD(self) -> None:
        self._answer(with_body=False)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class's name
        self.server.requests.append(format % args)

    def _answer(self, *, with_body: bool) -> None:
        parts = unquote(urlsplit(self.path).path).strip("/").split("/")
        if parts[:2] == ["api", "datasets"] and len(parts) >= 4:
            self._tell("/".join(parts[2:4]), parts[4:], with_body=with_body)
        elif parts[0] == "datasets" and len(parts) > 5 and parts[3] == "resolve":
            self._serve("/".join(parts[1:3]), parts[4], "/".join(parts[5:]), with_body=with_body)
        else:
            self._send(404, b"{}", {"X-Error-Code": "RepoNotFound"}, with_body=with_body)

    def _tell(self, repository: str, rest: list[str], *, with_body: bool) -> None:
        files = self.server.files(repository)
        if not files:
            self._send(404, b"{}", {"X-Error-Code": "RepoNotFound"}, with_body=with_body)
            return
        commit = self.server.commit(repository)
        if rest and rest[0] == "tree":
            folder = "/".join(rest[2:])
            body: object = _tree(files, folder)
            if folder and not body:
                self._send(404, b"{}", {"X-Error-Code": "EntryNotFound"}, with_body=with_body)
                return
        else:
            body = {"id": repository, "sha": commit, "siblings": [{"rfilename": name} for name in files]}
            body |= {
                "private": False,
                "gated": False,
                "disabled": False,
                "downloads": 0,
                "likes": 0,
                "tags": [],
            }
        self._send(200, json.dumps(body).encode(), {"X-Repo-Commit": commit}, with_body=with_body)

    def _serve(self, repository: str, revision: str, name: str, *, with_body: bool) -> None:
        files = self.server.files(repository)
        commit = self.server.commit(repository)
        if not files or name not in files:
            code = "EntryNotFound" if files else "RepoNotFound"
            self._send(404, b"", {"X-Error-Code": code, "X-Repo-Commit": commit}, with_body=with_body)
            return
        if revision not in ("main", commit):
            self._send(404, b"", {"X-Error-Code": "RevisionNotFound"}, with_body=with_body)
            return
        data, status = files[name].read_bytes(), 200
        headers = {"X-Repo-Commit": commit, "ETag": f'"{_sha1(files[name])}"', "Accept-Ranges": "bytes"}
        wanted = self.headers.get("Range", "")
        if wanted.startswith("bytes="):
            first, _, last = wanted.removeprefix("bytes=").partition("-")
            start, stop = int(first), int(last) + 1 if last else len(data)
            headers["Content-Range"] = f"bytes {start}-{min(stop, len(data)) - 1}/{len(data)}"
            data, status = data[start:stop], 206
        self._send(status, data, headers, with_body=with_body)

    def _send(self, status: int, body: bytes, headers: dict[str, str], *, with_body: bool) -> None:
        self.send_response(status)
        for key, value in {
            "Content-Type": "application/json",
            **headers,
            "Content-Length": str(len(body)),
        }.items():
            self.send_header(key, value)
        self.end_headers()
        if with_body:
            self.wfile.write(body)


def _tree(files: dict[str, Path], folder: str) -> list[dict[str, Any]]:
    """Everything under a folder, its folders too: clients that want one level pick it."""
    inside = f"{folder}/" if folder else ""
    found: dict[str, dict[str, Any]] = {}
    for name, file in files.items():
        if not name.startswith(inside):
            continue
        for parent in [str(one) for one in Path(name).parents if str(one) not in (".", folder)]:
            if parent.startswith(inside):
                found.setdefault(parent, {"type": "directory", "path": parent, "oid": "0" * 40, "size": 0})
        found[name] = {"type": "file", "path": name, "oid": _sha1(file), "size": file.stat().st_size}
    return list(found.values())
