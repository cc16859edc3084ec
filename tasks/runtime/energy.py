"""The energy that a machine uses, by its own counters: NVML's of GPUs, RAPL's of processors and memory.

They count whatever runs there. Most systems let root alone read RAPL's (CVE-2020-8694); NVML's need the
package nvidia-ml-py, the extra `gpu`.

Source: NVIDIA, NVML API, nvmlDeviceGetTotalEnergyConsumption; Linux, Documentation/power/powercap.
"""

import importlib
import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

_POWERCAP = Path("/sys/class/powercap")
_MOST_W = 1000
"""More than one of RAPL's counters ever sees: tells how soon it may have come round."""


class Energy:
    """Counts from the moment it is made.

    Args:
        gpus: UUIDs as NVML writes them, "GPU-..."; a MIG slice has no counter.
        powercap: where the kernel shows RAPL's counters.
    """

    def __init__(self, gpus: Sequence[str], powercap: Path = _POWERCAP) -> None:
        self._gpus, self._host = _of_gpus(gpus), _of_host(powercap)

    def joules(self) -> tuple[float | None, float | None]:
        """Used since it was last asked: by all GPUs, by processors and memory; None: nothing tells."""
        return _total(self._gpus), _total(self._host)


class _Counter:
    """One that is looked at now and then.

    Args:
        read: joules since some moment; raises OSError where it tells nothing.
        span: joules after which it begins anew.
    """

    def __init__(self, read: Callable[[], float], span: float = math.inf) -> None:
        self._read, self._span = read, span
        self._value, self._at = read(), time.monotonic()

    def joules(self) -> float | None:
        """Since the last look; None: it cannot be read, was reset, or may have come round twice."""
        try:
            value, at = self._read(), time.monotonic()
        except OSError:
            return None
        used, joules_at_most = value - self._value, (at - self._at) * _MOST_W
        self._value, self._at = value, at
        if joules_at_most >= self._span or (used < 0 and self._span == math.inf):
            return None
        return used if used >= 0 else used + self._span


def _total(counters: Sequence[_Counter]) -> float | None:
    values = [counter.joules() for counter in counters]
    known = [value for value in values if value is not None]
    return sum(known) if known and len(known) == len(values) else None


def _of_gpus(uuids: Sequence[str]) -> list[_Counter]:
    """One a GPU; none where one of them has none."""
    try:
        pynvml: Any = importlib.import_module("pynvml")
    except ImportError:
        return []

    def reader(uuid: str) -> Callable[[], float]:
        handle = pynvml.nvmlDeviceGetHandleByUUID(uuid)

        def read() -> float:
            try:
                return float(pynvml.nvmlDeviceGetTotalEnergyConsumption(handle)) / 1e3
            except pynvml.NVMLError as err:
                raise OSError(str(err)) from err

        return read

    try:
        pynvml.nvmlInit()
        return [_Counter(reader(uuid)) for uuid in uuids]
    except (pynvml.NVMLError, OSError):
        return []


def _of_host(powercap: Path) -> list[_Counter]:
    """One a processor, and its memory where that is counted apart; none where one of them is not shown."""
    try:
        return [
            _Counter(_microjoules(zone / "energy_uj"), _microjoules(zone / "max_energy_range_uj")())
            for zone in sorted(powercap.glob("intel-rapl:*"))  # AMD's have that name too
            if (zone / "name").read_text().startswith(("package", "dram"))
        ]
    except OSError:
        return []


def _microjoules(file: Path) -> Callable[[], float]:
    return lambda: int(file.read_text()) / 1e6
