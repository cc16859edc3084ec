"""The store: a folder or any fsspec URL, addressed by paths relative to its root.

Writes are atomic: on a local disk a temporary name in the same directory, fsync, rename; on an object store
one PUT. A path that would leave the root is refused, whoever made it.
"""

import errno
import os
import secrets
import shutil
import stat
import tempfile
from pathlib import Path, PurePosixPath

import fsspec

from tasks.store.errors import DaptError, ResourceError

DEFAULT_ROOT = "./store"
"""Where a store is when nothing says so."""
_BLOCK = 1 << 14
TEMPORARY = ".tmp-"
"""Marks names that are not data yet; what carries it may be removed by whoever holds the node's lock."""


def temporary_name(name: str) -> str:
    """A name beside `name` that nobody takes for data."""
    return f"{name}{TEMPORARY}{os.getpid()}-{secrets.token_hex(4)}"


def replace_durably(temporary: Path, final: Path) -> None:
    """Rename after the bytes, and then the name, have reached the disk."""
    with temporary.open("rb") as written:
        os.fsync(written.fileno())
    temporary.replace(final)
    folder = os.open(final.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


class Store:
    """Bytes by relative path under one root.

    Args:
        root: a folder, or a URL that fsspec knows (`s3://bucket/prefix`, `memory://name`).

    Raises:
        ResourceError: the root is a file, or cannot be made.
    """

    def __init__(self, root: str) -> None:
        url = root if "://" in root else str(Path(root).expanduser().absolute())
        try:
            # without a listing cache: other processes write here too
            self.fs, base = fsspec.core.url_to_fs(url, use_listings_cache=False)
        except (ImportError, ValueError) as err:
            raise ResourceError(f"the store {root!r} cannot be opened: {err}") from err
        self.base = str(base).rstrip("/")
        self.local = Path(self.base) if "local" in _protocols(self.fs.protocol) else None
        self.root = self.base if self.local else url.rstrip("/")
        if self.local:
            there = next(path for path in (self.local, *self.local.parents) if path.exists())
            if not there.is_dir():
                raise ResourceError(
                    f"the store {root} cannot be a folder, {there} is a file; set DAPT_STORE to another place"
                )

    def inside(self, path: str) -> str:
        """The address of `path` for `fs`; refuses what leads out of the store."""
        if path[:1] not in "/." and path[-1] != "/" and "/." not in path and "//" not in path:
            return f"{self.base}/{path}"  # as PurePosixPath would say it, in a twentieth of the time
        pure = PurePosixPath(path)
        if pure.is_absolute() or ".." in pure.parts:
            raise DaptError(f"{path!r} leads out of the store {self.root}; expected a path relative to it")
        return f"{self.base}/{pure}" if pure.parts else self.base

    def address(self, path: str) -> str:
        """An absolute path, or the URL, of something in the store."""
        self.inside(path)
        return f"{self.root}/{path}"

    def local_path(self, path: str) -> Path:
        """The absolute path on the local disk; only for a local store."""
        assert self.local is not None, "local_path of a remote store"
        return Path(self.inside(path))

    def size(self, path: str) -> int | None:
        """Bytes of a file, None where there is none."""
        try:
            if self.local is not None:  # a plan asks for every file of every shard
                status = os.stat(self.inside(path))  # noqa: PTH116 - a tenth of what fsspec takes
                return status.st_size if not stat.S_ISDIR(status.st_mode) else None
            found = self.fs.info(self.inside(path))
        except (FileNotFoundError, NotADirectoryError):
            return None
        return int(found["size"]) if found["type"] != "directory" else None

    def read(self, path: str) -> bytes:
        """The whole of a small file.

        Raises:
            FileNotFoundError: there is none.
        """
        if self.local is None:
            return bytes(self.fs.cat_file(self.inside(path)))
        file = os.open(self.inside(path), os.O_RDONLY)  # half the cost of Path.read_bytes
        try:
            found = [os.read(file, _BLOCK)]
            while len(found[-1]) == _BLOCK:  # less is the end of a file on a disk
                found.append(os.read(file, _BLOCK))
        finally:
            os.close(file)
        return b"".join(found)

    def write(self, path: str, data: bytes) -> None:
        """Write a small file so that it is there whole or not at all."""
        if self.local is None:
            self.fs.pipe_file(self.inside(path), data)
            return
        final = self.local_path(path)
        final.parent.mkdir(parents=True, exist_ok=True)
        temporary = final.with_name(temporary_name(final.name))
        try:
            temporary.write_bytes(data)
            replace_durably(temporary, final)
        finally:
            temporary.unlink(missing_ok=True)

    def take(self, file: Path, path: str) -> None:
        """Move a finished local file to its place: a rename, from another disk a copy first; else one PUT."""
        if self.local is None:
            self.fs.put_file(str(file), self.inside(path))
            file.unlink()
            return
        final = self.local_path(path)
        final.parent.mkdir(parents=True, exist_ok=True)
        try:
            replace_durably(file, final)
        except OSError as err:
            if err.errno != errno.EXDEV:
                raise
            temporary = final.with_name(temporary_name(final.name))
            shutil.copyfile(file, temporary)
            replace_durably(temporary, final)
            file.unlink()

    def remove(self, path: str) -> None:
        """Remove a file or a folder with all in it; nothing where there is none."""
        if self.fs.exists(self.inside(path)):
            self.fs.rm(self.inside(path), recursive=True)

    def names(self, path: str) -> list[str]:
        """Sorted names in a folder; none where there is no folder."""
        try:
            entries = self.fs.ls(self.inside(path), detail=False)
        except (FileNotFoundError, NotADirectoryError):
            return []
        return sorted(PurePosixPath(entry).name for entry in entries)

    def scratch(self, path: str, parent: str | None) -> Path:
        """A local folder in which `path` is made: its own place on a local store, else a temporary one."""
        if self.local is not None:
            folder = self.local_path(path)
            folder.mkdir(parents=True, exist_ok=True)
            return folder
        return Path(tempfile.mkdtemp(prefix="dapt-", dir=parent))


def _protocols(protocol: str | tuple[str, ...]) -> tuple[str, ...]:
    return (protocol,) if isinstance(protocol, str) else protocol
