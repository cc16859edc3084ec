"""Real trainings of a tiny Llama in real processes over gloo."""

import math
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from tasks.store.manifest import stands
from tasks.store.node import Node
from tasks.store.packed import PackedCorpus
from tasks.store.paths import Store
from tasks.training.config import Files
from tasks.training.events import begin_events
from tasks.training.order import SequenceOrder
from tasks.training.run import clear_finished_work, work_folder
from tasks.training.schedule import Schedule
from tasks.training.steps import LEARNED
from tests.training.trial import BATCH, MILESTONES, SEED, Calm, Trial, killed_after, undisturbed

pytestmark = pytest.mark.train


@pytest.fixture(scope="module")
def reference(plain: Trial) -> tuple[list[float], dict[str, torch.Tensor]]:
    """The same training as a plain PyTorch loop: losses, and weights at the end."""
    _, config = plain.node()
    schedule = Schedule.of(config, MILESTONES)
    model = AutoModelForCausalLM.from_pretrained(plain.store.address(plain.base.path))
    order = SequenceOrder(seed=SEED, borders=MILESTONES, global_batch=BATCH, window=100_000)
    optimizer = torch.optim.AdamW(
        [
            {"params": [p for p in model.parameters() if p.ndim > 1], "weight_decay": config.weight_decay},
            {"params": [p for p in model.parameters() if p.ndim <= 1], "weight_decay": 0.0},
        ],
        betas=config.betas,
    )
    losses = []
    with PackedCorpus(plain.store, plain.corpora[-1].path) as corpus:
        for step in range(order.num_steps):
            for group in optimizer.param_groups:
                group["lr"] = config.learning_rate * schedule.fraction(step)
            ids = torch.from_numpy(corpus.rows(order.batch_rows(step)).astype(np.int64))
            loss = model(input_ids=ids, labels=ids).loss
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), config.max_grad_norm)
            optimizer.step()
            optimizer.zero_grad()
            losses.append(loss.item())
    return losses, {name: value.detach() for name, value in model.state_dict().items()}


Reference = tuple[list[float], dict[str, torch.Tensor]]


def assert_close(trial: Trial, made: Node, reference: Reference) -> None:
    """Rounding of sums in another order: 1e-5 in losses, 1e-3 of the way that the weights went."""
    losses, weights = reference
    assert [row[2] for row in trial.losses(made)] == pytest.approx(losses, abs=1e-5)
    found, base = trial.weights(made), trial.weights(trial.base)
    moved = distance(base, weights)
    assert moved > 0.1
    assert distance(found, weights) < 1e-3 * moved


def distance(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> float:
    return math.sqrt(sum(float((one[name] - other[name]).norm()) ** 2 for name in one))


def assert_same(trial: Trial, made: Node, calm: Calm) -> None:
    assert trial.losses(made) == calm.losses
    found = trial.weights(made)
    assert found.keys() == calm.weights.keys()
    assert all(torch.equal(found[name], calm.weights[name]) for name in found)


def test_two_ranks_of_zero_3_train_as_plain_adamw_and_the_model_loads(
    plain: Trial, calm: Calm, reference: Reference
) -> None:
    assert_close(plain, calm.made, reference)
    manifest = calm.manifest
    assert manifest.tokens == 20 * BATCH * 32
    assert manifest.details["steps"] == 20
    assert manifest.details["sequences_left_out"] == 10
    assert manifest.details["final_loss"] < manifest.details["first_loss"] - 0.5
    assert manifest.how["ranks"] == 2

    folder = plain.store.address(calm.made.path)
    model = AutoModelForCausalLM.from_pretrained(folder)
    assert model.dtype == torch.float32
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert model.config.eos_token_id == tokenizer.eos_token_id == 63  # the config said 41 before it had one
    assert model.generate(torch.tensor([[3, 18]]), max_new_tokens=3, do_sample=False).shape == (1, 5)


def test_moved_from_two_ranks_to_one_to_three_to_two_it_sees_the_same(
    plain: Trial, calm: Calm, reference: Reference, tmp_path: Path
) -> None:
    """Each leg goes on from a checkpoint of the one before, with other ranks and another strategy."""
    checkpoint = calm.halfway
    for ranks, every, step, fields in (
        (1, 5, 15, {"zero_stage": 0}),
        (3, 6, 18, {"zero_stage": 2, "offload": "optimizer", "micro_batch": 2}),
    ):
        work = plain.resume_from(calm.made, checkpoint)
        made, manifest = plain.train(ranks, checkpoint_every=every, **fields)
        assert manifest.how["resumed_from_step"] == int(checkpoint.name.removeprefix("step-"))
        assert_close(plain, made, reference)
        checkpoint = Path(shutil.copytree(work / f"step-{step}", tmp_path / f"step-{step}"))
    plain.resume_from(calm.made, checkpoint)
    made, manifest = plain.train(2, zero_stage="auto")
    assert made == calm.made
    assert (manifest.how["resumed_from_step"], manifest.how["zero_stage"]) == (18, 1)
    assert_close(plain, made, reference)


def assert_each_step_was_measured_once(trial: Trial, made: Node, tmp_path: Path) -> None:
    table = pq.read_table(trial.store.address(f"{made.path}/steps.parquet"))
    assert [list(row.values())[: len(LEARNED)] for row in table.to_pylist()] == trial.losses(made)
    assert table["step"].to_pylist() == list(range(1, 21))
    assert table["tokens"].to_pylist()[-1] == 20 * BATCH * 32
    assert table["at"].to_pylist() == sorted(table["at"].to_pylist())
    assert min(table["tokens_per_s"].to_pylist()) > 0
    assert min(table["rss_bytes"].to_pylist()) > 50 << 20
    assert table["mfu"].null_count == table["allocated_bytes"].null_count == 20, "there is no GPU"
    rows = [list(row.values()) for row in table.to_pylist()]
    whole = begin_events(tmp_path, rows, "dapt").read_bytes()
    assert trial.store.read(f"{made.path}/tensorboard/events.out.tfevents.dapt") == whole
    (live,) = (work_folder(trial.store, made.fingerprint) / "tensorboard").iterdir()
    assert live.read_bytes() == whole, "what was shown while it trained"


@pytest.mark.skipif(not shutil.which("g++"), reason="needs a C++ compiler")
def test_compiled_layers_train_the_same(plain: Trial, calm: Calm, reference: Reference) -> None:
    plain.resume_from(calm.made, calm.halfway)
    made, _ = plain.train(2, zero_stage=3, compile=True, gradient_checkpointing=True)
    assert_close(plain, made, reference)


def test_killed_twice_it_ends_bit_for_bit_as_if_never(plain: Trial, calm: Calm, tmp_path: Path) -> None:
    work = plain.resume_from(calm.made, None)
    with killed_after(5):
        plain.train(2, checkpoint_every=4)
    half = work / "step-19"  # a checkpoint whose making was cut short
    half.mkdir()
    (half / "weights.safetensors").write_bytes(b"half")
    with killed_after(9):
        plain.train(2, checkpoint_every=4)
    assert not half.exists()
    again, manifest = plain.train(2, checkpoint_every=4)
    assert manifest.how["resumed_from_step"] >= 8
    assert_same(plain, again, calm)
    assert_each_step_was_measured_once(plain, again, tmp_path)

    assert stands(plain.store, again.path)
    clear_finished_work(plain.store)
    assert not work.exists()


def test_bf16_with_dropout_resumes_bit_for_bit_and_saves_bf16(
    tmp_path: Path,
    dropout_folder: Path,
    make_corpus: Callable[[Store, int], Node],
    tokenizer_files: Files,
) -> None:
    trial = Trial(tmp_path / "store", dropout_folder, make_corpus, tokenizer_files)
    fields = {"precision": "bf16", "zero_stage": 1}
    calm = undisturbed(trial, 1, tmp_path, **fields)
    assert {value.dtype for value in calm.weights.values()} == {torch.bfloat16}
    trial.resume_from(calm.made, calm.halfway)
    again, manifest = trial.train(1, **fields)
    assert manifest.how["resumed_from_step"] == 10
    assert_same(trial, again, calm)
