"""Each GPU has one holder; who needs all is not kept out by those who need one."""

import threading
from collections.abc import Callable, Iterator

import pytest

from tasks.runtime.gpus import held_gpus


@pytest.fixture(autouse=True)
def _two_gpus(monkeypatch: pytest.MonkeyPatch, tmp_path: object) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,7")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))


pytestmark = pytest.mark.slow


class Holder:
    """Somebody who holds GPUs in a thread of its own, until it is told to end."""

    def __init__(self, count: int) -> None:
        self.has, self._end, self.env = threading.Event(), threading.Event(), ""
        self._thread = threading.Thread(target=self._hold, args=[count])
        self._thread.start()

    def _hold(self, count: int) -> None:
        with held_gpus(count) as env:
            self.env = env["CUDA_VISIBLE_DEVICES"]
            self.has.set()
            self._end.wait(20)

    def end(self) -> None:
        self._end.set()
        self._thread.join()


@pytest.fixture
def hold() -> Iterator[Callable[[int], Holder]]:
    holders: list[Holder] = []

    def start(count: int) -> Holder:
        holders.append(Holder(count))
        return holders[-1]

    yield start
    for holder in holders:
        holder.end()


def test_a_machine_without_gpus_has_nothing_to_wait_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    with held_gpus(1) as env:
        assert env == {}


def test_two_who_need_one_get_one_each(hold: Callable[[int], Holder]) -> None:
    found = [hold(1), hold(1)]
    assert all(holder.has.wait(10) for holder in found)
    assert {holder.env for holder in found} == {"4", "7"}


def test_who_needs_all_goes_before_one_who_came_later(
    hold: Callable[[int], Holder],
) -> None:
    first = hold(1)
    assert first.has.wait(10)
    all_of_them = hold(2)
    assert not all_of_them.has.wait(0.5)
    later = hold(1)
    assert not later.has.wait(0.5)
    first.end()
    assert all_of_them.has.wait(10)
    assert all_of_them.env == "4,7"
    assert not later.has.is_set()
    all_of_them.end()
    assert later.has.wait(10)


def test_more_than_there_are_is_all_there_are(hold: Callable[[int], Holder]) -> None:
    holder = hold(8)
    assert holder.has.wait(10)
    assert holder.env == "4,7"
