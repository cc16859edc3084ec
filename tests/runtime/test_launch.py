"""A job runs in processes of its own, tells how it goes, and never outlives who started it."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tasks.runtime.launch import launch
from tasks.store.errors import JobError
from tasks.store.json import JSON

ROOT = Path(__file__).parents[2]
MODULE = """
import os, subprocess, sys, time
from tasks.runtime.job import Job

job = Job.from_argv()
match job.spec["do"]:
    case "work":
        for step in range(3):
            job.emit({"step": step})
        print("some output")
        job.write_result({"ranks": os.environ.get("WORLD_SIZE", "1"), "colour": os.environ.get("COLOUR")})
    case "fail":
        print(*range(100), sep="\\n")
        sys.exit(7)
    case "fail with an error line":
        print("error: no shard at /data/x\\nsome trace")
        sys.exit(1)
    case "say nothing":
        pass
    case "be killed":
        os.kill(os.getpid(), 9)
    case "wait":
        child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(15)"])
        job.emit({"pids": [os.getpid(), child.pid]})
        time.sleep(60)
"""


@pytest.fixture
def env(tmp_path: Path) -> dict[str, str]:
    (tmp_path / "example_job.py").write_text(MODULE)
    return {"PYTHONPATH": os.pathsep.join([str(tmp_path), str(ROOT)])}


def run(tmp_path: Path, env: dict[str, str], what: str, **options: object) -> JSON:
    return launch("example_job", {"do": what}, folder=tmp_path / "job", env=env, **options)  # type: ignore[arg-type]


def is_alive(pid: int) -> bool:
    """Whether a process runs; a zombie does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def await_death(pids: list[int]) -> list[int]:
    """Those that still live after ten seconds."""
    for _ in range(200):
        if not any(map(is_alive, pids)):
            return []
        time.sleep(0.05)
    return [pid for pid in pids if is_alive(pid)]


@pytest.mark.slow
def test_a_job_gives_its_result_and_its_events_in_order(tmp_path: Path, env: dict[str, str]) -> None:
    events: list[JSON] = []
    result = run(tmp_path, env | {"COLOUR": "blue"}, "work", on_event=events.append)
    assert result == {"ranks": "1", "colour": "blue"}
    assert events == [{"step": 0}, {"step": 1}, {"step": 2}]
    assert (tmp_path / "job" / "log.txt").read_text() == "some output\n"
    assert json.loads((tmp_path / "job" / "job.json").read_text()) == {"do": "work"}


@pytest.mark.slow
def test_a_failed_job_is_told_with_its_last_lines(tmp_path: Path, env: dict[str, str]) -> None:
    with pytest.raises(JobError) as told:
        run(tmp_path, env, "fail")
    assert "example_job ended with 7" in str(told.value)
    assert str(tmp_path / "job" / "log.txt") in str(told.value)
    assert str(told.value).splitlines()[-15:] == [str(n) for n in range(85, 100)]


@pytest.mark.slow
def test_an_error_line_of_a_job_is_all_that_is_told(tmp_path: Path, env: dict[str, str]) -> None:
    with pytest.raises(JobError, match=r"^no shard at /data/x \(log: .*log.txt\)$"):
        run(tmp_path, env, "fail with an error line")


@pytest.mark.slow
def test_a_job_killed_from_outside_is_told_by_its_signal(tmp_path: Path, env: dict[str, str]) -> None:
    with pytest.raises(JobError, match="was killed by signal 9"):
        run(tmp_path, env, "be killed")


@pytest.mark.slow
def test_the_result_of_an_earlier_run_is_not_taken(tmp_path: Path, env: dict[str, str]) -> None:
    run(tmp_path, env, "work")
    events: list[JSON] = []
    with pytest.raises(JobError, match="ended with 0"):
        run(tmp_path, env, "say nothing", on_event=events.append)
    assert events == []


def test_a_module_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(JobError, match="No module named no_such_job"):
        launch("no_such_job", {}, folder=tmp_path)


@pytest.mark.slow
def test_an_interrupted_parent_takes_the_whole_group_with_it(tmp_path: Path, env: dict[str, str]) -> None:
    pids: list[int] = []

    def interrupt(event: JSON) -> None:
        pids.extend(event["pids"])
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, env, "wait", on_event=interrupt)
    assert len(pids) == 2
    assert await_death(pids) == []


PARENT = """
import sys
from pathlib import Path
from tasks.runtime.launch import launch
launch("example_job", {"do": "wait"}, folder=Path(sys.argv[1]),
       processes=int(sys.argv[2]), on_event=lambda event: print(*event["pids"], flush=True))
"""


def killed_parent(folder: Path, env: dict[str, str], processes: int) -> list[int]:
    """Pids of the job's own processes, told before its parent got SIGKILL."""
    words = [sys.executable, "-c", PARENT, str(folder), str(processes)]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True, env={**os.environ, **env}) as parent:
        assert parent.stdout is not None
        pids = [int(parent.stdout.readline().split()[0]) for _ in range(processes)]
        parent.send_signal(signal.SIGKILL)
    return pids


@pytest.mark.slow
def test_a_job_dies_with_its_killed_parent(tmp_path: Path, env: dict[str, str]) -> None:
    assert await_death(killed_parent(tmp_path / "job", env, 1)) == []


@pytest.mark.train
def test_ranks_die_with_the_killed_parent_of_their_launcher(tmp_path: Path, env: dict[str, str]) -> None:
    assert await_death(killed_parent(tmp_path / "job", env, 2)) == []


@pytest.mark.train
def test_ranks_run_under_torchrun(tmp_path: Path, env: dict[str, str]) -> None:
    assert run(tmp_path, env, "work", processes=2)["ranks"] == "2"
    assert run(tmp_path, env, "work", distributed=True)["ranks"] == "1"


@pytest.mark.train
def test_a_failed_rank_is_told_by_its_own_error_line(tmp_path: Path, env: dict[str, str]) -> None:
    with pytest.raises(JobError, match=r"^no shard at /data/x"):
        run(tmp_path, env, "fail with an error line", processes=2)
