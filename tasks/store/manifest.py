"""Manifests: written last, so a node exists when its manifest does (DESIGN law 2)."""

import hashlib
import json
from pathlib import Path
from typing import Self

import msgspec

from tasks.store.errors import StoreDamaged
from tasks.store.json import JSON
from tasks.store.paths import Store, temporary_name

NAME = "manifest.json"


class FileEntry(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A file of a node: what whole means for it."""

    name: str
    sha256: str
    bytes: int
    rows: int | None = None


class Manifest(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What a node is made of, from what, and what was counted on the way.

    A `msgspec.Struct`: a plan of 10,000 shards reads 60,000 of these, in less than half of pydantic's time.
    """

    stage: str
    version: int
    fingerprint: str
    config: JSON
    inputs: dict[str, str]
    files: list[FileEntry]
    documents_in: int = 0
    documents_out: int = 0
    dropped: dict[str, int] = {}
    tokens: int = 0
    drift: str = ""
    package: str = ""
    """Version of daptflow that made it."""
    commit: str = ""
    """Of the checkout that made it, where there was one; no identity."""
    started: str = ""
    seconds: float = 0.0
    peak_rss_bytes: int = 0
    details: JSON = {}
    """What only this stage tells: rates, sizes, scores."""
    how: JSON = {}
    """How it was computed (ranks, ZeRO stage, ...): recorded, no identity."""

    # A corpus' own (CONTRACT section 3).
    budget: int | None = None
    sequence_length: int | None = None
    sequences: int | None = None
    shards: list[JSON] | None = None

    @property
    def path(self) -> str:
        """Where the node stands, relative to the store's root."""
        return f"{self.stage}/{self.fingerprint[:2]}/{self.fingerprint}"

    def to_json(self) -> JSON:
        """Plain JSON, without the keys that do not apply."""
        told: JSON = msgspec.to_builtins(self)
        told["files"] = [_applying(file) for file in told["files"]]
        return _applying(told)

    @classmethod
    def from_json(cls, given: JSON) -> Self:
        """The manifest that `to_json` told of.

        Raises:
            ValueError: it is no manifest.
        """
        return msgspec.convert(given, cls)


def _applying(told: JSON) -> JSON:
    return {name: value for name, value in told.items() if value is not None}


_decoded = msgspec.json.Decoder(Manifest).decode


def read_manifest(store: Store, path: str) -> Manifest | None:
    """The manifest of a node, None where there is none or it is not whole."""
    try:
        return _decoded(store.read(f"{path}/{NAME}"))
    except (FileNotFoundError, NotADirectoryError, msgspec.DecodeError):
        return None


def stands(store: Store, path: str) -> Manifest | None:
    """The manifest of a node whose files are all there in the right size: a hit. Cheap: no digest is made."""
    manifest = read_manifest(store, path)
    if manifest is None:
        return None
    for entry in manifest.files:
        if store.size(f"{path}/{entry.name}") != entry.bytes:
            return None
    return manifest


def write_manifest(store: Store, manifest: Manifest) -> None:
    """Write it, last of all."""
    text = json.dumps(manifest.to_json(), indent=1, ensure_ascii=False) + "\n"
    store.write(f"{manifest.path}/{NAME}", text.encode())


def set_aside(store: Store, path: str) -> None:
    """Take a node's manifest out of the way: it is rebuilt by the next run."""
    source = f"{path}/{NAME}"
    if store.size(source) is not None:
        store.fs.mv(store.inside(source), store.inside(f"{path}/{temporary_name('damaged-manifest.json')}"))


def why_damaged(store: Store, path: str) -> str | None:
    """Re-hash everything of a node: None when it is whole, else what is wrong. Reads all its bytes."""
    if store.size(f"{path}/{NAME}") is None:
        return "the manifest is missing"
    manifest = read_manifest(store, path)
    if manifest is None:
        return "the manifest is not readable"
    for entry in manifest.files:
        size = store.size(f"{path}/{entry.name}")
        if size is None:
            return f"{entry.name} is missing"
        if size != entry.bytes:
            return f"{entry.name} has {size} bytes, its manifest says {entry.bytes}"
        if file_sha256(store, f"{path}/{entry.name}") != entry.sha256:
            return f"{entry.name} does not hash to what its manifest says"
    return None


def file_sha256(store: Store, path: str) -> str:
    """The sha256 of a file of the store, streamed."""
    with store.fs.open(store.inside(path), "rb") as data:
        return hashlib.file_digest(data, "sha256").hexdigest()


def require_whole(store: Store, path: str, entry: FileEntry, file: Path) -> None:
    """Check a file about to be read against its manifest entry.

    Raises:
        StoreDamaged: it is not whole; its manifest has been set aside.
    """
    with file.open("rb") as data:
        if (
            file.stat().st_size == entry.bytes
            and hashlib.file_digest(data, "sha256").hexdigest() == entry.sha256
        ):
            return
    set_aside(store, path)
    raise StoreDamaged(store.address(f"{path}/{entry.name}"), "it does not hash to what its manifest says")
