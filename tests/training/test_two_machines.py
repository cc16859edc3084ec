"""Two machines train one model: processes with addresses of their own that share an object store alone."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from tasks.runtime.progress import Progress, listening
from tasks.store.errors import JobError
from tasks.training.run import clear_finished_work
from tests.services import Machine, free_port, kill_group, object_store
from tests.training.trial import Calm, Trial

pytestmark = pytest.mark.train


@pytest.fixture
def objects() -> Iterator[str]:
    with object_store("machines") as bucket:
        yield bucket


@contextmanager
def leading(address: str, scratch: Path, meet: str) -> Iterator[None]:
    """This process as the leading machine, with one core of its own."""
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(cores)})  # what is summed in two threads rounds otherwise
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PET_LOCAL_ADDR", address)
        patch.setenv("DAPT_SCRATCH", str(scratch))
        patch.setenv("DAPT_RENDEZVOUS", meet)
        yield
    os.sched_setaffinity(0, cores)


def test_a_machine_dies_others_go_on_from_what_was_sent_and_end_bit_for_bit_as_one(
    plain: Trial, calm: Calm, objects: str, tmp_path: Path
) -> None:
    trial, port = plain.elsewhere(f"{objects}/store"), free_port()
    core = str(max(os.sched_getaffinity(0)))
    join = ["taskset", "-c", core, sys.executable, "-m", "tasks.training.join"]
    lead, meet = "127.0.0.3", f"127.0.0.3:{port}"
    settings = {"DAPT_STORE": trial.store.root, "DAPT_RENDEZVOUS": meet}
    first = Machine("127.0.0.2", tmp_path / "first", {**settings, "PET_LOCAL_ADDR": "127.0.0.2"})
    with first.running(*join) as dying, leading(lead, tmp_path / "lead-1", meet):

        def kill(progress: Progress) -> None:
            if progress.stage == "training" and progress.done >= 5:  # a checkpoint was made at 4
                kill_group(dying)

        with listening(kill), pytest.raises(JobError) as failure:
            trial.train(1, machines=2, checkpoint_every=4)
    assert "the training on 2 machines broke off" in str(failure.value)

    second = Machine("127.0.0.4", tmp_path / "second", {**settings, "PET_LOCAL_ADDR": "127.0.0.4"})
    with second.running(*join, "--once") as helping, leading(lead, tmp_path / "lead-2", meet):
        made, manifest = trial.train(1, machines=2, checkpoint_every=4)
        assert helping.wait(60) == 0, second.log.read_text()
    assert manifest.how["ranks"] == 2
    assert manifest.how["nodes"] == 2
    assert manifest.how["resumed_from_step"] >= 4
    weights = trial.weights(made)
    assert weights.keys() == calm.weights.keys()
    assert all(torch.equal(weights[name], calm.weights[name]) for name in weights)
    assert trial.losses(made) == calm.losses
    assert trial.store.names("work/meetings") == []
    assert trial.store.names(f"work/training/{made.fingerprint}")
    clear_finished_work(trial.store)
    assert trial.store.names("work/training") == []
