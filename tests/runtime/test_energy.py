"""Energy is what the counters grew by; what cannot be read for sure is not told."""

import importlib.util
from pathlib import Path

import pytest

from tasks.runtime import energy
from tasks.runtime.energy import Energy

SPAN = 262_144


def zone(folder: Path, number: str, name: str, joules: float) -> Path:
    """A counter as the kernel shows it."""
    made = folder / f"intel-rapl:{number}"
    made.mkdir(exist_ok=True)
    (made / "name").write_text(f"{name}\n")
    (made / "max_energy_range_uj").write_text(f"{SPAN * 1_000_000}\n")
    (made / "energy_uj").write_text(f"{round(joules * 1e6)}\n")
    return made


def test_processors_and_memory_add_up_and_their_parts_are_not_counted_twice(tmp_path: Path) -> None:
    zone(tmp_path, "0", "package-0", 10)
    zone(tmp_path, "0:0", "core", 5)
    zone(tmp_path, "0:1", "dram", 1)
    zone(tmp_path, "1", "package-1", 20)
    zone(tmp_path, "2", "psys", 50)
    counted = Energy((), tmp_path)
    assert counted.joules() == (None, 0)
    zone(tmp_path, "0", "package-0", 13)
    zone(tmp_path, "0:0", "core", 7)
    zone(tmp_path, "0:1", "dram", 1.5)
    zone(tmp_path, "1", "package-1", 24)
    zone(tmp_path, "2", "psys", 90)
    assert counted.joules() == (None, pytest.approx(7.5))
    assert counted.joules() == (None, 0)


def test_a_counter_that_came_round_goes_on(tmp_path: Path) -> None:
    zone(tmp_path, "0", "package-0", SPAN - 2)
    counted = Energy((), tmp_path)
    zone(tmp_path, "0", "package-0", 3)
    assert counted.joules() == (None, pytest.approx(5))


def test_one_that_may_have_come_round_twice_tells_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [0.0]
    monkeypatch.setattr(energy.time, "monotonic", lambda: now[0])
    zone(tmp_path, "0", "package-0", 0)
    counted = Energy((), tmp_path)
    now[0] = SPAN / 1000
    assert counted.joules() == (None, None)
    zone(tmp_path, "0", "package-0", 4)
    now[0] += 1
    assert counted.joules() == (None, 4)


def test_a_counter_without_an_end_that_fell_was_reset() -> None:
    values = iter([5.0, 7.5, 1.0, 2.0])
    counter = energy._Counter(lambda: next(values))
    assert [counter.joules() for _ in range(3)] == [2.5, None, 1.0]


def test_a_counter_that_goes_away_ends_nothing(tmp_path: Path) -> None:
    made = zone(tmp_path, "0", "package-0", 1)
    counted = Energy((), tmp_path)
    (made / "energy_uj").unlink()
    assert counted.joules() == (None, None)
    assert Energy((), tmp_path).joules() == (None, None)


def test_a_machine_without_counters_tells_nothing(tmp_path: Path) -> None:
    assert Energy((), tmp_path).joules() == (None, None)
    assert Energy(("GPU-00000000-0000-0000-0000-000000000000",), tmp_path).joules() == (None, None)


@pytest.mark.gpu
@pytest.mark.skipif(importlib.util.find_spec("pynvml") is None, reason="nvidia-ml-py is not installed")
def test_a_gpu_counts() -> None:
    import torch

    uuid = f"GPU-{torch.cuda.get_device_properties(0).uuid}"
    counted = Energy((uuid,))
    work = torch.randn(8192, 8192, device="cuda")
    for _ in range(100):
        work = torch.tanh(work @ work)
    torch.cuda.synchronize()
    joules, _ = counted.joules()
    assert joules is not None
    assert joules > 1
