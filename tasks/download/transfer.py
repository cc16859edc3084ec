"""Bytes of a Hub's file over HTTP, through whatever the network does.

The address (`hf://datasets/owner/name@commit/path`; what a commit names cannot change) is resolved once, by a
HEAD to the endpoint; what the Hub says of digest (`X-Linked-Etag` is the sha256 of a large file, an ETag
git's name of a small one) and of size has to be what was listed. Ranges are then asked of where the Hub
points to: one request a range, not two. An address that ran out (they are signed for a while) is resolved
again. The token goes to the endpoint and to no other host.

A body that is cut, reset or stalls for `STALL_S` is resumed at the byte where it stopped. Of each answer
position, length, whole size and ETag are checked, and `If-Range` names the ETag met first: of a file that
changed no byte is mixed with the old one's. Faults that may pass (no connection, 408, 425, 429, 5xx, a cut
body) are met with another try: after 1, 2, 4 ... s, never more than `MOST_BACKOFF_S`, give or take a half, or
when the host says (`Retry-After`, or the rate limit's own reset), which holds for all ranges of the file.
`TRIES` in a row without progress, about a minute and a half of waiting, are a `TransientError`; the task then
tries again, and has what came.

The digest of a whole file cannot be checked on a part of it. What vouches for a range is that the Hub lists
the digest for the file it points to, that the ETag stays, TLS, and the checksums of Parquet pages that have
them.

Memory: a segment (1 MB) a range in flight.
"""

import contextlib
import email.utils
import logging
import random
import re
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import quote, urljoin, urlsplit

from tasks.download.addresses import TRANSIENT_STATUS, is_sha256, told
from tasks.runtime.imports import Late
from tasks.store.errors import SourceError, TransientError
from tasks.store.masking import masked

if TYPE_CHECKING:
    import httpx2
    import huggingface_hub as hub
    from huggingface_hub import constants
else:  # a plan of what was listed before asks nobody
    hub, constants = Late("huggingface_hub"), Late("huggingface_hub.constants")
hub_utils: Any = Late("huggingface_hub.utils")  # exports nothing that type checkers believe

logger = logging.getLogger(__name__)

TRIES = 8
LISTING_TRIES = 5
"""Of a question before anything runs: somebody waits for the answer."""
BACKOFF_S = 1.0
MOST_BACKOFF_S = 32.0
MOST_WAIT_S = 300.0
"""The Hub counts requests in windows of five minutes; who asks for a longer wait is not waited for."""
STALL_S = 20.0
SEGMENT_BYTES = 2**20
PROGRESS_BYTES = 2**18
"""A try that brought this much was no failure; with less, a host that cuts all would be asked for ever."""

_ADDRESS = re.compile(r"hf://datasets/(?P<repo>[^@]+)@(?P<commit>[0-9a-f]{40})/(?P<path>.+)")
_CONTENT_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+|\*)")
_EXPIRED = {401, 403, 404, 410}
_MOST_REDIRECTS = 5
_Found = TypeVar("_Found")


def is_pinned(address: str) -> bool:
    """Whether an address is of the Hub, at a commit."""
    return _ADDRESS.fullmatch(address) is not None


class Stopped(Exception):
    """Nobody wants the bytes any more."""


def persistent(find: Callable[[], _Found]) -> _Found:
    """A question to the Hub, asked again while the network fails.

    Raises:
        TransientError: `LISTING_TRIES` times in a row.
    """
    patience = _Patience("the Hub", most=LISTING_TRIES)
    while True:
        try:
            return find()
        except TransientError as err:
            patience.wait(err)


@dataclass(frozen=True, slots=True, eq=False)
class _Target:
    """Where the bytes are, as the Hub said once; another time is another, whatever it said."""

    url: str
    headers: dict[str, str]


class Transfer:
    """One file of the Hub, for ranges of it to be fetched from any thread.

    Args:
        address: `hf://datasets/owner/name@commit/path`.
        digest: as listed.
        size: of the whole file, as listed.
    """

    def __init__(self, address: str, digest: str, size: int) -> None:
        self.address, self._digest, self._size = address, digest, size
        self._hold = _Hold()
        self._lock = threading.Lock()
        self._where: _Target | None = None
        self._etag = ""
        self._refused = 0

    def stop(self) -> None:
        """End what is in flight, soon."""
        self._hold.stopped.set()

    def fetch(self, start: int, end: int, take: Callable[[int, bytes], None]) -> None:
        """Fetch the bytes [start, end).

        Args:
            start: the first.
            end: behind the last.
            take: is given each segment as it arrives: where it begins, and its bytes.

        Raises:
            SourceError: the file is not what was listed, is refused, or the Hub is switched off.
            TransientError: the network failed for too long.
            Stopped: `stop` was called.
        """
        at, patience = start, _Patience(self.address, self._hold)
        while at < end:
            begun, held, failure = at, bytearray(), None
            try:
                for data in self._body(at, end):
                    held += data
                    if len(held) >= SEGMENT_BYTES:
                        take(at, bytes(held))
                        at += len(held)
                        held.clear()
            except TransientError as err:
                failure = err
            if held:
                take(at, bytes(held))
                at += len(held)
            if at - begun >= PROGRESS_BYTES:
                patience.tries = 0
            if failure and at < end:
                patience.wait(failure)

    def _body(self, start: int, end: int) -> Iterator[bytes]:
        """The bytes from `start` on; told what ended them early."""
        with told(self.address):
            yield from self._sent(start, end)

    def _sent(self, start: int, end: int) -> Iterator[bytes]:
        self._hold.wait()
        target = self._target()
        headers = target.headers | {"range": f"bytes={start}-{end - 1}"}
        if self._etag and not self._etag.startswith("W/"):
            headers["if-range"] = self._etag
        with _answer("GET", target.url, headers) as answer:
            self._require_range(answer, target, start, end)
            left = end - start
            for data in answer.iter_raw():
                if self._hold.stopped.is_set():
                    raise Stopped
                yield data[:left]
                left -= len(data[:left])
        if left:
            raise TransientError(f"{self.address}: an answer ended {left} bytes early")

    def _require_range(self, answer: "httpx2.Response", target: _Target, start: int, end: int) -> None:
        """Check that an answer holds the range asked for, of the file that was listed."""
        if answer.status_code >= 400:
            self._refuse(answer, target)
        etag = answer.headers.get("etag", "")
        if self._etag and etag and etag != self._etag:
            # the Hub is asked once more what it lists: the same, by another host, or another file
            self._forget(target)
            raise TransientError(f"{self.address}: its ETag changed")
        found = _CONTENT_RANGE.fullmatch(answer.headers.get("content-range", ""))
        if answer.status_code == 200 and (start, end) == (0, self._size):
            length = answer.headers.get("content-length", "")
            size, position = int(length) if length.isdigit() else self._size, 0
        elif answer.status_code == 206 and found:
            size, position = self._size if found[3] == "*" else int(found[3]), int(found[1])
        else:
            raise SourceError(
                f"{self.address}: its host answers {answer.status_code} to a request for a range, expected "
                "206"
            )
        self._require_listed(size, "")
        if position != start:
            raise TransientError(f"{self.address}: byte {start} was asked for, {position} came")
        self._etag, self._refused = self._etag or etag, 0

    def _refuse(self, answer: "httpx2.Response", target: _Target) -> None:
        """Raise what an error status means."""
        answer.read()
        if answer.status_code in TRANSIENT_STATUS:
            self._hold.hold(_asked_wait(answer.headers))
        if answer.status_code in _EXPIRED and not _is_endpoint(target.url):
            with self._lock:
                newest = target is self._where
                again = not newest or self._refused == 0
                if newest and again:
                    self._where, self._refused = None, 1
            if again:
                raise TransientError(f"{self.address}: the signed address ran out ({answer.status_code})")
        hub_utils.hf_raise_for_status(answer)

    def _target(self) -> _Target:
        with self._lock:
            if self._where is None:
                self._where = self._resolve()
            return self._where

    def _forget(self, target: _Target) -> None:
        with self._lock:
            if target is self._where:
                self._where, self._etag = None, ""

    def _resolve(self) -> _Target:
        """Ask the Hub, and check that it lists what was listed."""
        if constants.is_offline_mode():
            raise SourceError(
                f"{self.address}: HF_HUB_OFFLINE is set, and these bytes were not fetched before; unset it, "
                "or give local files"
            )
        target = _Target(_url(self.address), hub_utils.build_hf_headers())
        for _ in range(_MOST_REDIRECTS):
            with _answer("HEAD", target.url, target.headers) as answer:
                facts = answer.headers
                if answer.status_code >= 400:
                    self._hold.hold(_asked_wait(facts))
                    hub_utils.hf_raise_for_status(answer)
            own = {} if answer.is_redirect else facts  # a redirect has an ETag and a length of its own
            etag = facts.get("x-linked-etag") or own.get("etag", "")
            length = facts.get("x-linked-size") or own.get("content-length", "")
            self._require_listed(int(length or self._size), etag)
            if not answer.is_redirect:
                return target
            url = urljoin(target.url, facts.get("location", ""))
            if not _is_endpoint(url):
                return _Target(url, {})
            target = _Target(url, target.headers)
        raise SourceError(f"{self.address}: the Hub redirects in circles")

    def _require_listed(self, size: int, etag: str) -> None:
        """Check size and digest; an ETag of another kind than the digest says nothing."""
        told_digest = etag.removeprefix("W/").strip('"')
        listed = self._digest.removeprefix("blob:")
        alike = len(told_digest) == len(listed) and (is_sha256(self._digest) or self._digest != listed)
        if size != self._size or (alike and told_digest != listed):
            found = f"{size} bytes" if size != self._size else told_digest
            expected = self._size if size != self._size else listed
            raise SourceError(
                f"{self.address} has changed since it was listed: found {found}, expected {expected}; "
                "run again to take its new contents"
            )


class _Hold:
    """What all ranges of a file wait for: the time its host named."""

    def __init__(self) -> None:
        self.stopped = threading.Event()
        self._until = 0.0

    def hold(self, seconds: float) -> None:
        self._until = max(self._until, time.monotonic() + seconds)

    def wait(self, least: float = 0.0) -> None:
        if self.stopped.wait(max(least, self._until - time.monotonic(), 0.0)):
            raise Stopped


class _Patience:
    """Tries of one thing."""

    def __init__(self, what: str, hold: _Hold | None = None, *, most: int = TRIES) -> None:
        self.tries, self._what, self._hold, self._most = 0, what, hold or _Hold(), most

    def wait(self, err: TransientError) -> None:
        """Let the time pass until the next try; out of tries, raise."""
        self.tries += 1
        if self.tries >= self._most:
            raise TransientError(f"{err} ({self._most} tries in a row)") from err
        wait = min(MOST_BACKOFF_S, BACKOFF_S * 2 ** (self.tries - 1)) * random.uniform(0.5, 1.5)
        logger.info("%s: %s; again in %.1f s", self._what, masked(str(err)), wait)
        self._hold.wait(wait)


def _asked_wait(headers: "httpx2.Headers") -> float:
    """Seconds that a host asks for; 0 where it does not."""
    value = headers.get("retry-after", "").strip()
    if value.isdigit():
        seconds = float(value)
    elif value and (date := email.utils.parsedate_tz(value)):
        seconds = email.utils.mktime_tz(date) - time.time()
    else:
        limit = hub_utils.parse_ratelimit_headers(headers)
        seconds = float(limit.reset_in_seconds) if limit and limit.remaining == 0 else 0.0
    return min(max(0.0, seconds), MOST_WAIT_S)


@contextlib.contextmanager
def _answer(method: str, url: str, headers: dict[str, str]) -> Iterator["httpx2.Response"]:
    headers = {"accept-encoding": "identity", **headers}
    with hub.get_session().stream(
        method, url, headers=headers, follow_redirects=False, timeout=STALL_S
    ) as answer:
        yield answer


def _url(address: str) -> str:
    found = _ADDRESS.fullmatch(address)
    if not found:
        raise SourceError(f"{address}: expected hf://datasets/owner/name@commit/path")
    return (
        f"{constants.ENDPOINT}/datasets/{found['repo']}/resolve/{quote(found['commit'], safe='')}/"
        f"{quote(found['path'])}"
    )


def _is_endpoint(url: str) -> bool:
    """Whether a URL is the endpoint's own: the only host that the token is for."""
    asked, own = urlsplit(url), urlsplit(constants.ENDPOINT)
    return (asked.scheme, asked.netloc) == (own.scheme, own.netloc)
