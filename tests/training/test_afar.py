"""What another machine goes on from: checkpoints and kept weights, sent to a store that is not this disk."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest

from tasks.store.paths import Store
from tasks.training.afar import Sending, fetch_newest
from tasks.training.checkpoint import begin, commit, keep_weights, weights_kept, write_curve

PLACE = "work/training/ab12"


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    yield Store(f"memory://{tmp_path.name}")
    fsspec.filesystem("memory").store.clear()


def keep(work: Path, step: int) -> None:
    writing = begin(work, step)
    (writing / "weights.safetensors").write_bytes(b"kept" * step)
    keep_weights(writing, step)


def checkpoint(work: Path, step: int) -> None:
    writing = begin(work, step)
    (writing / "weights.safetensors").write_bytes(b"weights" * step)
    write_curve(writing, [])
    commit(writing, step, {}, keep=0)


def broken_off(store: Store, work: Path) -> None:
    """A training that kept the weights of step 2, made a checkpoint at 4, kept those of 5, and failed."""
    with contextlib.suppress(OSError), Sending(store, PLACE, work):
        keep(work, 2)
        checkpoint(work, 4)
        keep(work, 5)
        raise OSError


def test_another_machine_goes_on_with_the_weights_that_were_kept(store: Store, tmp_path: Path) -> None:
    broken_off(store, tmp_path / "one")
    found = fetch_newest(store, PLACE, tmp_path / "two", kept=[2, 5, 8])
    assert found is not None
    assert found.step == 4
    assert weights_kept(tmp_path / "two", 2).read_bytes() == b"kept" * 2


def test_what_was_sent_without_the_weights_before_it_is_not_gone_on_from(
    store: Store, tmp_path: Path
) -> None:
    broken_off(store, tmp_path / "one")
    store.remove(f"{PLACE}/kept/step-000002.safetensors")
    assert fetch_newest(store, PLACE, tmp_path / "two", kept=[2]) is None
    with_none = fetch_newest(store, PLACE, tmp_path / "two")
    assert with_none is not None, "a training that keeps none"
