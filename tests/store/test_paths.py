"""The store's bytes: inside its root, whole or not at all, on a disk and elsewhere."""

import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

import fsspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.store.errors import DaptError, ResourceError
from tasks.store.paths import TEMPORARY, Store, temporary_name


@pytest.fixture(params=["local", "memory"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    if request.param == "local":
        yield Store(str(tmp_path / "store"))
        return
    yield Store(f"memory://{tmp_path.name}")
    fsspec.filesystem("memory").store.clear()


@pytest.mark.parametrize("path", ["../x", "a/../../x", "/etc/passwd", "a/..", ".."])
def test_a_path_out_of_the_store_is_refused(store: Store, path: str) -> None:
    for use in (store.inside, store.address, store.size, store.read, store.remove, store.names):
        with pytest.raises(DaptError, match="leads out of the store"):
            use(path)
    with pytest.raises(DaptError, match="leads out of the store"):
        store.write(path, b"x")


@given(st.text(st.sampled_from("ab./~"), max_size=8))
def test_no_path_reaches_beyond_the_root(path: str) -> None:
    try:
        inside = Store("/root-of-it").inside(path)
    except DaptError:
        return
    assert os.path.commonpath([os.path.normpath(inside), "/root-of-it"]) == "/root-of-it"


@given(st.text(st.sampled_from("ab./~"), max_size=8))
def test_a_path_is_inside_where_the_standard_library_puts_it(path: str) -> None:
    try:
        inside = Store("/root-of-it").inside(path)
    except DaptError:
        return
    assert inside == str(PurePosixPath("/root-of-it", path))


@pytest.mark.parametrize("size", [0, 1, 1 << 14, (1 << 14) + 1, 3 << 20])
def test_a_file_of_any_size_is_read_whole(store: Store, size: int) -> None:
    data = os.urandom(size)
    store.write("a/b", data)
    assert (store.read("a/b"), store.size("a/b")) == (data, size)


def test_what_is_written_is_read_again(store: Store) -> None:
    assert store.size("a/b") is None
    store.write("a/b", b"one")
    store.write("a/b", b"three")
    assert (store.read("a/b"), store.size("a/b"), store.names("a")) == (b"three", 5, ["b"])
    assert store.names("") == ["a"]
    with pytest.raises(FileNotFoundError):
        store.read("a/c")


def test_a_folder_is_no_file(store: Store) -> None:
    store.write("a/b", b"one")
    assert store.size("a") is None
    assert store.names("nothing") == []
    assert store.names("a/b/c") == []


def test_removing_takes_files_folders_and_nothing(store: Store) -> None:
    store.write("a/b", b"1")
    store.write("a/c/d", b"1")
    store.remove("a/b")
    assert store.names("a") == ["c"]
    store.remove("a")
    store.remove("a")
    assert store.names("a") == []


def test_taking_a_file_moves_it(store: Store, tmp_path: Path) -> None:
    (tmp_path / "made").write_bytes(b"made")
    store.take(tmp_path / "made", "x/y")
    assert store.read("x/y") == b"made"
    assert not (tmp_path / "made").exists()


def test_a_file_on_another_disk_is_taken_too(tmp_path: Path) -> None:
    elsewhere = Path("/dev/shm")
    if not elsewhere.is_dir() or elsewhere.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("there is no second file system here")
    file = elsewhere / temporary_name("daptflow-test")
    file.write_bytes(b"made")
    store = Store(str(tmp_path))
    store.take(file, "x/y")
    assert store.read("x/y") == b"made"
    assert not file.exists()
    assert store.names("x") == ["y"]


def test_a_failed_write_leaves_the_old_bytes_and_no_litter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(str(tmp_path))
    store.write("a/b", b"old")

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        store.write("a/b", b"new")
    assert store.read("a/b") == b"old"
    assert store.names("a") == ["b"]


def test_a_reader_never_sees_half_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store(str(tmp_path))
    seen: list[bytes] = []
    replace = Path.replace

    def look(self: Path, target: Path) -> Path:
        seen.append(store.read("a/b"))
        assert TEMPORARY in self.name
        assert self.parent == target.parent
        return replace(self, target)

    store.write("a/b", b"old")
    monkeypatch.setattr(Path, "replace", look)
    store.write("a/b", b"newer")
    assert (seen, store.read("a/b")) == ([b"old"], b"newer")


@pytest.mark.parametrize("below", ["", "deeper/store"])
def test_a_root_that_is_a_file_is_told_before_anything_starts(tmp_path: Path, below: str) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ResourceError, match=r"file is a file; set DAPT_STORE"):
        Store(str(tmp_path / "file" / below))


def test_an_unknown_protocol_is_told() -> None:
    with pytest.raises(ResourceError, match="'nosuch://x' cannot be opened"):
        Store("nosuch://x")


def test_a_relative_root_becomes_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    store = Store("store")
    assert store.address("a/b") == f"{tmp_path}/store/a/b"
    assert Store(f"file://{tmp_path}/store").root == store.root
    assert Store("memory://m/").address("a") == "memory://m/a"
