"""The bytes of a listed file: at any place of it, or whole on the local disk; checked to be what was listed.

A local file is known by its sha256, an object by its version or ETag. A file of the Hub comes through
`tasks/download/remote.py`: whole, its sha256 is checked; in part, what `tasks/download/transfer.py` can
check. Its bytes lie in the folder of whoever asks, so that another try has them, else in a temporary one.
"""

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, TYPE_CHECKING, cast

from tasks.download.addresses import filesystem, is_local, is_sha256, object_digest, sha256_of, told
from tasks.download.config import SourceFile
from tasks.download.remote import HubFile
from tasks.download.transfer import is_pinned
from tasks.runtime.imports import Late
from tasks.store.errors import SourceError, TransientError

if TYPE_CHECKING:
    import pyarrow as pa
else:
    pa = Late("pyarrow")

COPY_BYTES = 8 * 2**20


@contextlib.contextmanager
def opened(file: SourceFile, work: Path | None = None) -> Iterator[IO[bytes]]:
    """A file for reading at any place; of a remote one exactly the ranges asked for are fetched.

    Args:
        file: as listed. Whether it still is that is checked of one of the Hub alone.
        work: where bytes of the Hub's lie and stay; None: in a temporary folder.

    Raises:
        SourceError: there is none, or it cannot be read.
        TransientError: the network failed.
    """
    if is_pinned(file.address):
        with _of_hub(file, work) as data:
            yield cast(IO[bytes], data)
        return
    with told(file.address):
        if is_local(file.address):
            with Path(file.address).open("rb") as local:
                yield local
            return
        fs, path = filesystem(file.address)
        # The default read-ahead of 5 MB fetched 71 % of a file to read one small column of it.
        with fs.open(path, "rb", cache_type="none") as remote:
            yield remote


@contextlib.contextmanager
def _of_hub(file: SourceFile, work: Path | None) -> Iterator[HubFile]:
    with contextlib.ExitStack() as stack:
        folder = work or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="dapt-source-")))
        data = stack.enter_context(contextlib.closing(HubFile(file.address, file.digest, file.bytes, folder)))
        with told(file.address):
            try:
                yield data
            except (pa.ArrowException, OSError):
                data.discard()  # the next try shall not meet the same bytes
                raise


@contextlib.contextmanager
def whole_file(file: SourceFile, work: Path | None = None) -> Iterator[Path]:
    """A whole file on the local disk, checked to be what was listed; a remote one is fetched for the while.

    Args:
        file: as listed.
        work: as of `opened`.

    Raises:
        SourceError: it is not what was listed.
        TransientError: the network failed, or delivered something else.
    """
    if is_local(file.address):
        require_unchanged(file)
        with told(file.address):
            yield Path(file.address)
        return
    if is_pinned(file.address):
        with _of_hub(file, work) as data:
            data.expect([(0, file.bytes)])
            data.wait_for(0, file.bytes)
            if not _is_listed(file, data.path):
                data.discard()
                raise _other(file)
            yield data.path
        return
    require_unchanged(file)
    with tempfile.TemporaryDirectory(prefix="dapt-source-") as scratch:
        copy = Path(scratch) / "file"
        with opened(file) as remote, copy.open("wb") as local:
            while block := remote.read(COPY_BYTES):
                local.write(block)
        if not _is_listed(file, copy):
            raise _other(file)
        with told(file.address):
            yield copy


def require_unchanged(file: SourceFile) -> None:
    """Check that a file is still what was listed; a local one is hashed once in a process.

    What the Hub pins by commit cannot change, and is checked as it is fetched.

    Raises:
        SourceError: it has changed, or is gone; listing again takes the new contents.
        TransientError: the network failed.
    """
    if is_pinned(file.address):
        return
    if is_local(file.address):
        same = _is_listed(file, Path(file.address))
    else:
        filesystem(file.address)[0].invalidate_cache()
        same = object_digest(file.address)[0] == file.digest
    if not same:
        raise SourceError(
            f"{file.address} has changed since it was listed; run again to take its new contents"
        )


def _is_listed(file: SourceFile, path: Path) -> bool:
    """Whether the bytes at a local path are the file's, as far as its digest tells."""
    with told(str(path)):
        status = path.stat()
        if status.st_size != file.bytes or not is_sha256(file.digest):
            return status.st_size == file.bytes
        return sha256_of(str(path), status.st_size, status.st_mtime_ns, status.st_ino) == file.digest


def _other(file: SourceFile) -> TransientError:
    return TransientError(f"{file.address}: what arrived is not what its host lists; run again")
