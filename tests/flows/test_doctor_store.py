"""What `dapt doctor` says of the places that are written, each really tried and left as it was."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest

from flows.doctor_check import Check
from flows.doctor_store import caches, file_system, free_disk, refusal, store
from tasks.settings import Settings


def asked(place: object, **more: str) -> Check:
    found = list(store(Settings(store=str(place), **more)))
    return found[0]


def test_a_store_that_works_is_left_as_it_was(tmp_path: Path) -> None:
    place = tmp_path / "not" / "yet"
    found = asked(place)
    assert found.state in ("ok", "warning")  # a warning where the tests' own folder is in memory
    assert f"{place} (to be made)" in found.found
    assert list(tmp_path.iterdir()) == []


def test_a_place_that_cannot_be_written_fails() -> None:
    found = asked("/proc/store")
    assert found.state == "fails"
    assert found.found.startswith("/proc/store: ")
    assert "DAPT_STORE" in found.do


@pytest.mark.parametrize("below", ["", "/deeper"])
def test_a_file_in_the_place_of_the_store_fails(tmp_path: Path, below: str) -> None:
    (tmp_path / "store").write_text("")
    found = asked(f"{tmp_path}/store{below}")
    assert found.state == "fails"
    assert "is a file" in found.found


def test_an_unknown_kind_of_store_fails() -> None:
    assert asked("nothing://bucket").state == "fails"


@pytest.fixture
def in_memory() -> Iterator[Path]:
    place = Path("/dev/shm/dapt-doctor-test")
    if file_system(Path("/dev/shm")) != "tmpfs":
        pytest.skip("/dev/shm is no tmpfs here")
    place.mkdir()
    yield place
    shutil.rmtree(place)


def test_a_store_in_memory_is_a_warning(in_memory: Path) -> None:
    found = asked(in_memory)
    assert found.state == "warning"
    assert "gone with the machine" in found.found
    assert refusal(in_memory) is None


def test_an_object_store_is_written_read_and_cleaned() -> None:
    assert asked("memory://doctor/store").state == "ok"
    assert fsspec.filesystem("memory").find("/doctor") == []


@pytest.mark.parametrize("place", ["/proc/scratch", "/proc/1/scratch"])
def test_a_scratch_folder_that_cannot_be_written_fails(place: str) -> None:
    _, scratch = store(Settings(store="memory://doctor/store", scratch=place))
    assert (scratch.check, scratch.state) == ("scratch", "fails")


def test_the_hub_s_cache_that_cannot_be_written_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HOME", "/proc/hub")
    assert [check.state for check in caches()] == ["fails"]


def test_a_disk_too_small_for_the_plan_fails_with_both_numbers(tmp_path: Path) -> None:
    settings = Settings(store=str(tmp_path / "store"))
    (small,) = free_disk(settings, {"totals": {"disk_bytes": 10**18}})
    assert small.state == "fails"
    assert "about 1,000,000,000.0 GB, by the plan" in small.expected
    (large,) = free_disk(settings, {"totals": {"disk_bytes": 1}})
    assert large.state == "ok"
