"""Files by address: an absolute path, or a URL that fsspec knows. Globs, facts, faults."""

import contextlib
import fnmatch
import hashlib
import os
from collections.abc import Iterator
from functools import lru_cache
from glob import has_magic
from pathlib import Path
from typing import TYPE_CHECKING, Any

import fsspec

from tasks.runtime.imports import Late
from tasks.store.errors import DaptError, SourceError, TransientError

if TYPE_CHECKING:
    import pyarrow as pa
    from huggingface_hub import errors as hub_errors
else:
    pa, hub_errors = Late("pyarrow"), Late("huggingface_hub.errors")

_NETWORK = {
    "aiobotocore",
    "aiohttp",
    "botocore",
    "httpcore",
    "httpcore2",
    "httpx",
    "httpx2",
    "requests",
    "urllib3",
}
TRANSIENT_STATUS = {408, 425, 429, 500, 502, 503, 504}


def filesystem(address: str) -> tuple[Any, str]:
    """The fsspec file system of an address, and the address as that file system says it.

    Raises:
        SourceError: the protocol is unknown, or what speaks it is not installed.
    """
    try:
        fs, path = fsspec.core.url_to_fs(address)
    except (ImportError, ValueError) as err:
        raise SourceError(f"{address}: {err}; expected a path or a URL that fsspec can open") from err
    return fs, str(path)


def is_local(address: str) -> bool:
    """Whether it is a path of this machine."""
    return "://" not in address


def absolute(entry: str, folder: Path) -> str:
    """An entry of a recipe as an address: URLs as they are, paths relative to the recipe's folder."""
    if entry.startswith("file://"):
        entry = entry.removeprefix("file://")
    if not is_local(entry):
        return entry
    return os.path.normpath(folder.absolute() / Path(entry).expanduser())


def expand(entry: str, folder: Path) -> list[str]:
    """The files an entry names: itself, or what its glob matches, sorted.

    Raises:
        SourceError: nothing matches, or it is a folder.
        TransientError: the network failed.
    """
    address = absolute(entry, folder)
    fs, path = filesystem(address)
    with told(address):
        fs.invalidate_cache()  # a process that lives for days lists again
        if fs.isfile(path):
            return [address]
        if fs.isdir(path):
            raise SourceError(f"{address} is a folder, expected files; write {address.rstrip('/')}/*.parquet")
        entries = fs.glob(path, detail=True) if has_magic(path) else {}
    found = sorted(match for match, facts in entries.items() if facts["type"] == "file")
    if not found:
        raise SourceError(f"{entry!r} matches no file (looked for {address}); correct it, or leave it out")
    return [str(match) if is_local(address) else str(fs.unstrip_protocol(match)) for match in found]


def matches(address: str, pattern: str, folder: Path) -> bool:
    """Whether an exclude pattern means this file: by whole address, path from `folder`, or bare name."""
    name = address.rsplit("/", 1)[-1]
    return (
        fnmatch.fnmatchcase(address, absolute(pattern, folder))
        or fnmatch.fnmatchcase(address, pattern)
        or fnmatch.fnmatchcase(address, f"*/{pattern}")
        or fnmatch.fnmatchcase(name, pattern)
    )


def info(address: str) -> dict[str, Any]:
    """What the file system tells about a file.

    Raises:
        SourceError: there is none.
        TransientError: the network failed.
    """
    fs, path = filesystem(address)
    with told(address):
        return dict(fs.info(path))


def object_digest(url: str) -> tuple[str, int]:
    """What stands for an object's contents, a version id or else its ETag; and its size.

    Raises:
        SourceError: it is not there, or its host tells neither.
        TransientError: the network failed.
    """
    facts = info(url)
    size = int(facts.get("size") or 0)
    version = facts.get("VersionId") or facts.get("version_id") or facts.get("generation")
    if version and version != "null":
        return f"version:{version}", size
    etag = facts.get("ETag") or facts.get("etag") or facts.get("md5Hash") or facts.get("Content-MD5")
    if etag:
        return f"etag:{str(etag).strip(chr(34))}:{size}", size
    digest = facts.get("sha256")
    if digest:
        return str(digest), size
    raise SourceError(
        f"{url}: its host tells neither a version nor an ETag, so a change could not be noticed; "
        "copy the file to a local disk, or to an object store"
    )


def require_unchanged_object(url: str, digest: str) -> None:
    """Check that an object is still what was listed; what the Hub pins by commit cannot change.

    Raises:
        SourceError: it has changed, or is gone.
        TransientError: the network failed.
    """
    if url.startswith("hf://"):
        return
    filesystem(url)[0].invalidate_cache()
    if object_digest(url)[0] != digest:
        raise SourceError(f"{url} has changed since it was listed; run again to take its new contents")


def is_sha256(digest: str) -> bool:
    """Whether a digest is a bare sha256 of the bytes."""
    return len(digest) == 64 and ":" not in digest


def id_prefix(digest: str) -> str:
    """The 16 hex digits that ids of documents of a file begin with."""
    return digest[:16] if is_sha256(digest) else hashlib.sha256(digest.encode()).hexdigest()[:16]


@lru_cache(maxsize=100_000)
def sha256_of(path: str, size: int, mtime_ns: int, inode: int) -> str:
    """sha256 of a local file; size, time and inode are the key under which this process remembers it."""
    with Path(path).open("rb") as data:
        return hashlib.file_digest(data, "sha256").hexdigest()


@contextlib.contextmanager
def told(address: str) -> Iterator[None]:
    """Turn what went wrong with a source into an error that names it."""
    try:
        yield
    except DaptError:
        raise
    except pa.ArrowException as err:
        raise SourceError(f"{address} cannot be read: {err}; mend it, or leave it out with exclude") from err
    except Exception as err:  # what a file system raises has no common base; only its own faults are taken
        if is_transient(err):
            raise TransientError(f"{address}: the network failed: {err or type(err).__name__}") from err
        if isinstance(err, FileNotFoundError):
            raise SourceError(f"{address} is not there; correct the recipe, or bring it back") from err
        if isinstance(err, OSError | EOFError) or _module(err) in _NETWORK:
            raise SourceError(f"{address} cannot be read: {err}") from err
        raise


def is_transient(err: BaseException) -> bool:
    """Whether it is the network's fault, so that the same call may go through later."""
    status = getattr(getattr(err, "response", None), "status_code", None)
    if isinstance(status, int):
        return status in TRANSIENT_STATUS
    if isinstance(err, FileNotFoundError | PermissionError | hub_errors.OfflineModeIsEnabled):
        return False
    return isinstance(err, ConnectionError | TimeoutError) or _module(err) in _NETWORK


def _module(err: BaseException) -> str:
    return type(err).__module__.partition(".")[0]
