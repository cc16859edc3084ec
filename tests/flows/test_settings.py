"""Settings come from DAPT_*, say where and how, and are checked when they are read."""

import pytest
from pydantic import ValidationError

from tasks.settings import Settings


@pytest.fixture(autouse=True)
def _nothing_set(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("STORE", "WORKERS", "RANKS", "SCRATCH", "NODES", "RENDEZVOUS", "TASK_RUNNER"):
        monkeypatch.delenv(f"DAPT_{name}", raising=False)


def test_each_has_a_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    found = Settings()
    assert (found.store, found.ranks, found.scratch, found.has_gpu) == ("./store", 1, None, False)
    assert found.workers >= 1


def test_they_are_read_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"STORE": "s3://b/p", "WORKERS": "3", "RANKS": "2", "SCRATCH": "/fast"}.items():
        monkeypatch.setenv(f"DAPT_{name}", value)
    found = Settings()
    assert (found.store, found.workers, found.ranks, found.scratch) == ("s3://b/p", 3, 2, "/fast")


def test_the_ranks_are_the_devices_that_may_be_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,3")
    assert (Settings().ranks, Settings().has_gpu) == (2, True)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "-1")
    assert (Settings().ranks, Settings().has_gpu) == (1, False)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("WORKERS", "0"),
        ("WORKERS", "many"),
        ("WORKERS", "257"),
        ("RANKS", "0"),
        ("NODES", "0"),
        ("RENDEZVOUS", "lead"),
        ("TASK_RUNNER", "dask"),
        ("TASK_RUNNER", "spark:host"),
    ],
)
def test_what_cannot_be_is_refused(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv(f"DAPT_{name}", value)
    with pytest.raises(ValidationError, match=name.lower()):
        Settings()


def test_more_than_one_node_needs_a_place_to_meet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DAPT_NODES", "2")
    monkeypatch.setenv("DAPT_RANKS", "4")
    with pytest.raises(ValidationError, match="2 nodes"):
        Settings()
    monkeypatch.setenv("DAPT_RENDEZVOUS", "lead.example:29500")
    assert Settings().all_ranks == 8
