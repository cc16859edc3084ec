"""A job's output reaches logging with its level, few lines of it, and the rest is counted."""

import logging
import os
import re
import time
from pathlib import Path

import pytest

from tasks.runtime import logs
from tasks.runtime.launch import launch
from tasks.runtime.logs import LONGEST, MOST_LINES, MOST_QUIET, OUTPUT, Forwarder, level_of

ROOT = Path(__file__).parents[2]
MORE = re.compile(r"(\d+) more lines?(?:, (\d+) of them warnings or errors,)? in (.+)")
Told = list[tuple[int, str]]


def told(caplog: pytest.LogCaptureFixture) -> Told:
    """What was forwarded."""
    return [(r.levelno, r.getMessage()) for r in caplog.records if r.name == OUTPUT]


@pytest.fixture(autouse=True)
def _all_levels(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "tasks")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "log.txt"


@pytest.mark.parametrize(
    ("line", "level"),
    [
        ("2026-11-26 18:00:00,123 INFO tasks.training.loop checkpoint at step 5", logging.INFO),
        ("2026-11-26 18:00:00,123 WARNING transformers.x a thing", logging.WARNING),
        ("[2026-11-26 18:00:00,123] [WARNING] [real_accelerator.py:209:get] no accelerator", logging.WARNING),
        ("[rank1]: [2026-11-26 18:00:00,123] [INFO] [config.py:1] ok", logging.INFO),
        ("2026-11-26:18:00:00 ERROR    [lm_eval.evaluator:10] no such task", logging.ERROR),
        ("DEBUG:root:detail", logging.DEBUG),
        ("W1126 18:00:00.120000 4711 torch/distributed/run.py:852] Setting OMP_NUM_THREADS", logging.WARNING),
        ("[rank0]:[E1126 18:00:00.1 ProcessGroupGloo.cpp:1] gone", logging.ERROR),
        ("[rank0]: Traceback (most recent call last):", logging.ERROR),
        ("torch.OutOfMemoryError: CUDA out of memory.", logging.ERROR),
        ("KeyboardInterrupt", logging.ERROR),
        ("error: no shard at /data/x", logging.ERROR),
        ("/x/y.py:12: FutureWarning: `z` is deprecated", logging.WARNING),
        ("Map:  40%|####      | 4/10 [00:01<00:02]", logging.DEBUG),
        ("Errors are counted as INFORMATION here", logging.INFO),
        ("loaded the model", logging.INFO),
    ],
)
def test_the_level_is_read_off_a_line(line: str, level: int) -> None:
    assert level_of(line) == level


def test_an_indented_line_goes_on_with_the_level_before(file: Path, caplog: pytest.LogCaptureFixture) -> None:
    forwarder = Forwarder(file)
    file.write_text("fine\n[rank0]: Traceback (most recent call last):\n[rank0]:   File 'x'\nfine again\n")
    forwarder.finish()
    assert [level for level, _ in told(caplog)] == [20, 40, 40, 20]


def test_what_stood_in_the_file_before_is_not_told_again(
    file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file.write_text("of an earlier try\n")
    forwarder = Forwarder(file)
    with file.open("a") as output:
        output.write("of this try, 100 % new\nand an end without a")
    forwarder.finish()
    assert [line for _, line in told(caplog)] == ["of this try, 100 % new", "and an end without a"]


def test_a_line_is_told_when_it_is_whole(file: Path, caplog: pytest.LogCaptureFixture) -> None:
    forwarder = Forwarder(file)
    for part, so_far in (("half of", 0), (" a line\nand", 1), (" another\n", 2)):
        with file.open("a") as output:
            output.write(part)
        forwarder.look()
        assert len(told(caplog)) == so_far
    assert told(caplog)[0] == (logging.INFO, "half of a line")


def test_a_progress_bar_is_its_last_state_and_long_lines_are_cut(
    file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "tasks")
    bar = "\r".join(f"\x1b[32mload\x1b[0m: {n}%|###| {n}/100" for n in range(101))
    file.write_text("")
    forwarder = Forwarder(file)
    file.write_text(f"\r{bar}\r\n\n  \n{'x' * 5000}\n")
    forwarder.finish()
    assert told(caplog) == [
        (logging.DEBUG, "load: 100%|###| 100/100"),
        (logging.INFO, "x" * LONGEST),
    ]


def test_a_bar_without_end_is_not_held(file: Path, caplog: pytest.LogCaptureFixture) -> None:
    forwarder = Forwarder(file)
    with file.open("a") as output:
        for number in range(400_000):
            output.write(f"\r{number}%|##|")
    for _ in range(8):
        forwarder.look()
    assert len(forwarder._rest) < 1 << 20
    with file.open("a") as output:
        output.write("\rdone\n")
    forwarder.finish()
    assert told(caplog) == [(logging.INFO, "done")]


def test_warnings_find_room_after_a_flood(file: Path, caplog: pytest.LogCaptureFixture) -> None:
    forwarder = Forwarder(file)
    lines = [f"line {n}" for n in range(500)] + ["error: it broke"] + [f"line {n}" for n in range(500)]
    file.write_text("\n".join(lines) + "\n")
    forwarder.finish()
    found = told(caplog)
    assert found[:MOST_QUIET] == [(logging.INFO, f"line {n}") for n in range(MOST_QUIET)]
    assert found[MOST_QUIET] == (logging.ERROR, "error: it broke")
    assert found[MOST_QUIET + 1 :] == [(logging.INFO, f"{1000 - MOST_QUIET} more lines in {file}")]


def test_a_new_window_begins_with_the_count_of_the_last(
    file: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logs, "WINDOW_S", 0.2)
    forwarder = Forwarder(file)
    for _ in range(2):
        with file.open("a") as output:
            output.write("WARNING: again\n" * 30)
        forwarder.look()
        time.sleep(0.25)
        forwarder.look()
    window = [(logging.WARNING, "WARNING: again")] * MOST_LINES
    window += [(logging.WARNING, f"10 more lines, 10 of them warnings or errors, in {file}")]
    assert told(caplog) == 2 * window


JOB = """
import logging, sys
from tasks.runtime.job import Job
from tasks.runtime.logs import log_to_output

job = Job.from_argv()
log_to_output()
words = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}
logging.getLogger().setLevel(logging.DEBUG)
for number in range(2500):
    for word, level in words.items():
        logging.getLogger("noisy").log(level, "%s %d", word, number)
job.write_result({})
"""


@pytest.mark.slow
def test_ten_thousand_lines_of_a_real_job_become_few_and_the_count_adds_up(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "noisy_job.py").write_text(JOB)
    path = os.pathsep.join([str(tmp_path), str(ROOT)])
    began = time.monotonic()
    launch("noisy_job", {}, folder=tmp_path / "job", env={"PYTHONPATH": path})
    windows = 1 + (time.monotonic() - began) // logs.WINDOW_S
    log = tmp_path / "job" / "log.txt"
    assert len(log.read_text().splitlines()) == 10_000
    counts = [found for _, line in told(caplog) if (found := MORE.fullmatch(line))]
    lines = [(level, line) for level, line in told(caplog) if not MORE.fullmatch(line)]
    assert 0 < len(lines) <= MOST_LINES * windows
    assert 0 < len(counts) <= windows
    assert len(lines) + sum(int(found[1]) for found in counts) == 10_000
    loud = sum(level >= logging.WARNING for level, _ in lines)
    assert loud + sum(int(found[2]) for found in counts) == 5000
    assert {found[3] for found in counts} == {str(log)}
    for level, line in lines:
        assert f" {logging.getLevelName(level)} noisy {logging.getLevelName(level).lower()} " in line
