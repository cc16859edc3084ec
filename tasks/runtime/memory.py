"""Memory: what this process holds, sampled while something runs, and what the machine has left."""

import os
import threading
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


def resident_bytes() -> int:
    """Resident set size of this process, in bytes (Linux)."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * _PAGE_BYTES


def available_memory() -> int:
    """Bytes that may be taken without swapping, by the kernel and by the control group's limit."""
    lines = Path("/proc/meminfo").read_text().splitlines()
    told = {name: int(rest.split()[0]) * 1024 for name, rest in (line.split(":", 1) for line in lines)}
    return min([told["MemAvailable"], *_group_rest()])


def _group_rest() -> Iterator[int]:
    """What is left of a container's limit (cgroup v2), where there is one."""
    limit, used = Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory.current")
    if limit.exists() and used.exists() and (most := limit.read_text().strip()).isdigit():
        yield max(0, int(most) - int(used.read_text()))


class PeakMemory:
    """The highest resident set size of this process between enter and exit, sampled every 50 ms.

    Threads share a process: what runs beside it is in the figure too.
    """

    def __enter__(self) -> "PeakMemory":
        self.peak_bytes = resident_bytes()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)
        self._thread.start()
        return self

    def _sample(self) -> None:
        while not self._ended.wait(0.05):
            self.peak_bytes = max(self.peak_bytes, resident_bytes())

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        self._thread.join()
        self.peak_bytes = max(self.peak_bytes, resident_bytes())
