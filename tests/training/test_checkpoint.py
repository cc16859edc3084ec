from pathlib import Path

import pytest

from tasks.training.checkpoint import (
    Checkpoint,
    begin,
    commit,
    keep_weights,
    newest,
    weights_kept,
    write_curve,
)


def make(work: Path, step: int, *, keep: int = 0) -> Checkpoint:
    writing = begin(work, step)
    (writing / "weights.safetensors").write_bytes(b"weights" * step)
    write_curve(writing, [[float(step), 1.0, 2.0, 3.0, None]])
    return commit(writing, step, {"ranks": 2}, keep=keep)


def test_the_newest_is_found_and_two_are_kept(tmp_path: Path) -> None:
    assert newest(tmp_path) is None
    for step in (8, 9, 10):
        make(tmp_path, step)
    found = newest(tmp_path)
    assert found is not None
    assert (found.step, found.curve()) == (10, [[10.0, 1.0, 2.0, 3.0, None]])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-10", "step-9"]
    assert Checkpoint.at(found.folder) == found


def test_the_one_that_is_gone_on_from_stays(tmp_path: Path) -> None:
    for step in (7, 8, 9, 10):
        make(tmp_path, step, keep=7)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-10", "step-7", "step-9"]


@pytest.mark.parametrize("harm", ["cut short", "half a file", "other bytes", "no file", "half a manifest"])
def test_what_is_not_whole_is_removed_and_the_one_before_is_taken(tmp_path: Path, harm: str) -> None:
    make(tmp_path, 8)
    folder = make(tmp_path, 9).folder
    weights, manifest = folder / "weights.safetensors", folder / "manifest.json"
    if harm == "cut short":
        manifest.unlink()
    elif harm == "half a file":
        weights.write_bytes(weights.read_bytes()[:5])
    elif harm == "other bytes":
        weights.write_bytes(b"W" * weights.stat().st_size)
    elif harm == "no file":
        weights.unlink()
    else:
        manifest.write_text(manifest.read_text()[:20])
    found = newest(tmp_path)
    assert found is not None
    assert found.step == 8
    assert not folder.exists()


def test_a_folder_still_being_written_is_no_checkpoint(tmp_path: Path) -> None:
    begin(tmp_path, 4)
    assert newest(tmp_path) is None
    assert list(tmp_path.iterdir()) == []


def test_weights_that_are_kept_outlast_the_checkpoints(tmp_path: Path) -> None:
    writing = begin(tmp_path, 3)
    (writing / "weights.safetensors").write_bytes(b"three")
    keep_weights(writing, 3)
    for step in (3, 4, 5, 6):
        make(tmp_path, step)
    assert weights_kept(tmp_path, 3).read_bytes() == b"three"
    found = newest(tmp_path, [3])
    assert found is not None
    assert found.step == 6
    assert sorted(path.name for path in tmp_path.iterdir()) == ["kept", "step-5", "step-6"]


def test_a_checkpoint_that_lacks_the_weights_before_it_is_not_gone_on_from(tmp_path: Path) -> None:
    """Kept too late they would be those of another step, or of none."""
    make(tmp_path, 4)
    make(tmp_path, 8)
    found = newest(tmp_path, [6, 9])
    assert found is not None
    assert found.step == 4
    assert not (tmp_path / "step-8").exists()
