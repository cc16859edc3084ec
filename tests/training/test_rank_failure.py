"""One rank of two fails in a real training: it is told with that rank's own words, and nothing lives on."""

import os
import shutil
import signal
from pathlib import Path

import pytest

from tasks.runtime.launch import launch
from tasks.runtime.progress import Progress, listening
from tasks.store.errors import JobError
from tasks.training.config import how_of
from tasks.training.nodes import job_for
from tasks.training.run import work_folder
from tasks.training.zero import environment
from tests.training.trial import Trial

pytestmark = pytest.mark.train


def ranks_of(folder: Path) -> dict[str, int]:
    """The live processes of a job, by rank; torchrun itself has none."""
    found = {}
    for process in Path("/proc").glob("[0-9]*"):
        try:
            words = (process / "cmdline").read_bytes()
            given = dict(
                entry.split("=", 1) for entry in (process / "environ").read_text().split("\0") if "=" in entry
            )
        except (OSError, UnicodeDecodeError):
            continue
        if str(folder).encode() in words:
            found[given.get("RANK", "torchrun")] = int(process.name)
    return found


def test_a_rank_that_is_killed_ends_the_training_and_is_named(plain: Trial, tmp_path: Path) -> None:
    trial = plain.elsewhere(str(tmp_path / "store"))
    made, _ = trial.node()
    work = work_folder(trial.store, made.fingerprint)
    seen: list[dict[str, int]] = []

    def kill(progress: Progress) -> None:
        if progress.stage == "training" and not seen:
            seen.append(ranks_of(work))
            os.kill(seen[0]["1"], signal.SIGKILL)

    with listening(kill), pytest.raises(JobError) as told:
        trial.train(2)
    assert seen[0].keys() == {"0", "1", "torchrun"}
    assert "Signal 9 (SIGKILL) received" in str(told.value)
    assert ranks_of(work) == {}


def test_what_a_rank_did_not_foresee_is_told_with_the_end_of_its_traceback(
    plain: Trial, tmp_path: Path
) -> None:
    made, config = plain.node()
    job = job_for(plain.store, made, how_of(config, 2), tmp_path, None, leads=True)
    base = shutil.copytree(job.base, tmp_path / "broken")
    (base / "model.safetensors").write_bytes(b"no tensors")
    spec = job.model_dump(mode="json") | {"base": str(base)}
    with pytest.raises(JobError) as told:
        launch("tasks.training", spec, folder=tmp_path / "job", processes=2, env=environment(2, cores=2))
    assert "SafetensorError" in str(told.value)
    assert ranks_of(tmp_path / "job") == {}
