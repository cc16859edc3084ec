"""The subprocess' side of a job: one folder, whole lines, a result that is whole or not there."""

import json
import sys
from pathlib import Path

import pytest

from tasks.runtime import job as job_module
from tasks.runtime.job import Job


@pytest.fixture
def job(tmp_path: Path) -> Job:
    (tmp_path / "job.json").write_text('{"steps": 3}')
    return Job(tmp_path / "job.json")


def test_a_job_finds_what_it_is_to_do(job: Job, tmp_path: Path) -> None:
    assert (job.spec, job.folder) == ({"steps": 3}, tmp_path)


def test_events_are_lines_in_order(job: Job, tmp_path: Path) -> None:
    for step in range(3):
        job.emit({"step": step, "text": "one\ntwo"})
    told = [json.loads(line) for line in (tmp_path / "events.jsonl").read_text().splitlines()]
    assert told == [{"step": step, "text": "one\ntwo"} for step in range(3)]


def test_a_result_replaces_the_one_before_and_leaves_no_litter(job: Job, tmp_path: Path) -> None:
    job.write_result({"loss": 2})
    job.write_result({"loss": 1})
    assert json.loads((tmp_path / "result.json").read_text()) == {"loss": 1}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["job.json", "result.json"]


@pytest.mark.parametrize("words", [[], ["--job"], ["job.json"], ["--job", "a", "b"]])
def test_other_arguments_are_refused(words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(job_module, "die_with_parent", lambda: None)  # it would outlive this test
    monkeypatch.setattr(sys, "argv", ["room", *words])
    with pytest.raises(SystemExit, match="expected --job FILE"):
        Job.from_argv()
