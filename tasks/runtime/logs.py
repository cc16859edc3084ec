"""A job's output on its way to logging: whole lines with their level, few of them, the file named for more.

A job writes its output to a file and may write a million lines; a server that shows a run's log wants the few
that matter. So the parent reads on in the file while the job runs and hands lines on under a logger of their
own, at most `MOST_LINES` in `WINDOW_S` seconds; what is left out is counted, in a line that names the file.
Of those, `MOST_QUIET` may be below a warning: the rest is kept free for warnings and errors, whenever in the
window they come. The level is read off the line: of our own format, of `logging`'s usual ones, of glog's
(torch's C++ side), of tracebacks and Python's warnings. A progress bar is taken for its last state and is
DEBUG, since progress has its own way to people; what carries no level is INFO.
"""

import logging
import re
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

OUTPUT = "tasks.runtime.output"
"""The logger of forwarded lines, for who shows logs and wants to leave them out."""
MOST_LINES = 20
MOST_QUIET = 12
WINDOW_S = 10.0
LONGEST = 1000
"""Characters of a line that are handed on."""

logger = logging.getLogger(OUTPUT)

_READ_BYTES = 1 << 20
"""At once: what a parent holds of a job's output."""
_HEAD = 60
"""Characters in which a line tells its level, if it does."""
_RANK = re.compile(r"^\[(?:rank|default)\d+\]: ?")
_COLOUR = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")
_BAR = re.compile(r"\d+%\|")
_NAMED = re.compile(r"(?:^|[\s\[|:(])(DEBUG|INFO|WARNING|WARN|ERROR|CRITICAL|FATAL)(?=[\s\]|:)]|$)")
_GLOG = re.compile(r"^\[?([IWEF])\d{4} \d\d:")
_ERROR = re.compile(r"^(error: |Traceback \(most recent call last\)|[\w.]*(Error|Exception|Interrupt)(:|$))")
_WARNING = re.compile(r"\b\w*Warning: ")
_LEVELS = {"WARN": logging.WARNING, "FATAL": logging.CRITICAL} | {
    name: logging.getLevelNamesMapping()[name] for name in ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")
}
_GLOG_LEVELS = {"I": logging.INFO, "W": logging.WARNING, "E": logging.ERROR, "F": logging.CRITICAL}


def log_to_output() -> None:
    """Have a job's process log to its output, with level, in the format that its parent reads."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    logging.getLogger("httpx").setLevel(logging.WARNING)  # tells every request


def level_of(line: str, before: int = logging.INFO) -> int:
    """The level that a line tells.

    Args:
        line: without its end.
        before: of the line before it: an indented line goes on with that.
    """
    text = _RANK.sub("", line)
    if text[:1].isspace():
        return before
    if _BAR.search(text):
        return logging.DEBUG
    if found := _GLOG.match(text):
        return _GLOG_LEVELS[found[1]]
    if found := _NAMED.search(text[:_HEAD]):
        return _LEVELS[found[1]]
    if _ERROR.match(text):
        return logging.ERROR
    return logging.WARNING if _WARNING.search(text) else logging.INFO


class Forwarder:
    """Hands on what is appended to one job's output from now on."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._at = file.stat().st_size if file.exists() else 0
        self._rest = b""
        self._level = logging.INFO
        self._window = float("-inf")
        self._sent = 0
        self._left_out: Counter[int] = Counter()

    def look(self) -> None:
        """Hand on what is new, at most a megabyte of it; to be called often."""
        if time.monotonic() - self._window > WINDOW_S:
            self._close_window()
        self._read()

    def finish(self) -> None:
        """Take all that is there, a last line without its end too, and say how much was left out."""
        while self._read():
            pass
        for line in _told(self._rest):
            self._take(line)
        self._close_window()

    def _read(self) -> int:
        if not self._file.exists() or self._file.stat().st_size <= self._at:
            return 0
        with self._file.open("rb") as data:
            data.seek(self._at)
            fresh = data.read(_READ_BYTES)
        self._at += len(fresh)
        whole, end, rest = (self._rest + fresh).rpartition(b"\n")
        for line in _told(whole + end):
            self._take(line)
        # a bar that is drawn over for hours is one line; its last state is enough
        self._rest = rest if len(rest) < _READ_BYTES else rest.rpartition(b"\r")[2][: 4 * LONGEST]
        return len(fresh)

    def _take(self, line: str) -> None:
        self._level = level = level_of(line, self._level)
        if self._sent == 0 and not self._left_out:
            self._window = time.monotonic()
        most = MOST_LINES if level >= logging.WARNING else MOST_QUIET
        if self._sent < most and logger.isEnabledFor(level):
            self._sent += 1
            logger.log(level, "%s", line)
        else:
            self._left_out[level] += 1

    def _close_window(self) -> None:
        """Say how many lines were left out, and begin again."""
        loud = sum(count for level, count in self._left_out.items() if level >= logging.WARNING)
        if count := self._left_out.total():
            logger.log(
                max(self._left_out),
                "%d more line%s%s in %s",
                count,
                "s" * (count > 1),
                f", {loud} of them warnings or errors," if loud else "",
                self._file,
            )
        self._sent = 0
        self._left_out.clear()


def _told(data: bytes) -> Iterator[str]:
    """The lines of some output that say something, as they stand on a screen in the end."""
    for line in data.decode(errors="replace").split("\n"):
        shown = [state for state in _COLOUR.sub("", line).split("\r") if state.strip()]
        if shown:
            yield shown[-1].rstrip()[:LONGEST]
