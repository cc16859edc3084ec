"""What is measured of a step, against numbers worked out by hand."""

import json
import time
from pathlib import Path

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from tasks.runtime.job import Job
from tasks.store.errors import JobError
from tasks.training.checkpoint import newest
from tasks.training.measure import Meter, Teller, flops_per_token, peak_flops
from tasks.training.run import work_folder
from tests.training.trial import Trial

pytestmark = pytest.mark.train

LENGTH = 32


def mobile_llm() -> LlamaForCausalLM:
    config = LlamaConfig(
        vocab_size=32000,
        hidden_size=576,
        intermediate_size=1536,
        num_hidden_layers=30,
        num_attention_heads=9,
        num_key_value_heads=3,
        tie_word_embeddings=True,
    )
    with torch.device("meta"):
        return LlamaForCausalLM(config)


def tiny(*, tied: bool) -> LlamaForCausalLM:
    config = LlamaConfig(
        vocab_size=50,
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=2,
        num_attention_heads=2,
        head_dim=4,
        tie_word_embeddings=tied,
    )
    return LlamaForCausalLM(config)


def test_a_token_of_the_125m_model_costs_what_the_convention_says() -> None:
    matmul_parameters = 32000 * 576 + 30 * (2 * 576 * 576 + 2 * 576 * 192 + 3 * 576 * 1536)
    assert matmul_parameters == 124_600_320
    found = flops_per_token(mobile_llm(), 2000)
    assert found == 6 * matmul_parameters + 12 * 30 * 576 * 2000
    assert found == pytest.approx(1.1623e9, rel=1e-4)


@pytest.mark.parametrize("tied", [True, False])
def test_an_embedding_is_looked_up_and_a_head_is_multiplied(tied: bool) -> None:
    layer = 4 * 16 * 8 + 3 * 16 * 24
    assert flops_per_token(tiny(tied=tied), 10) == 6 * (50 * 16 + 2 * layer) + 12 * 2 * 8 * 10


@pytest.mark.parametrize(
    ("name", "teraflops"),
    [
        ("NVIDIA A100-SXM4-80GB", 312),
        ("NVIDIA A100 80GB PCIe", 312),
        ("NVIDIA A10", 125),
        ("NVIDIA H100 80GB HBM3", 989),
        ("NVIDIA H100 PCIe", 756),
        ("NVIDIA H200", 989),
        ("NVIDIA GH200 480GB", 989),
        ("NVIDIA L4", 121),
        ("NVIDIA L40S", 362),
        ("Tesla V100-SXM2-16GB", None),
    ],
)
def test_a_device_s_peak_is_known_by_its_name(name: str, teraflops: float | None) -> None:
    assert peak_flops(name) == (None if teraflops is None else teraflops * 1e12)


def meter() -> Meter:
    return Meter(tiny(tied=True), sequence_length=LENGTH, tokens=640, device=torch.device("cpu"), ranks=2)


def test_a_row_is_read_after_its_step_and_keeps_the_step_s_own_numbers() -> None:
    measured = meter()
    total = torch.tensor(7.0)
    began = measured.mark()
    first = measured.queued(3, 1e-4, loss=total / 2, norm=torch.tensor(0.25), began=began)
    second = measured.queued(4, 1e-5, loss=total / 4, norm=None, began=measured.mark())
    total += 1
    row = measured.row(first)
    assert row[:5] == [3, 3 * 640, 3.5, 1e-4, 0.25]
    assert measured.row(second)[:5] == [4, 4 * 640, 1.75, 1e-5, None]
    tokens_per_s, mfu, allocated, reserved, rss, at, gpus, _ = row[5:]
    assert tokens_per_s == pytest.approx(640 / first.ended.seconds_since(began))
    assert (mfu, allocated, reserved, gpus) == (None, None, None, None)
    assert rss is not None
    assert rss > 50 << 20
    assert at == first.at


def test_the_last_step_is_always_told_others_seldom_and_a_slow_first_one_says_nothing_of_what_is_left(
    tmp_path: Path,
) -> None:
    (tmp_path / "job.json").write_text("{}")
    measured = meter()
    teller = Teller(Job(tmp_path / "job.json"), measured, start=5, steps=300)
    time.sleep(0.6)
    for step in range(6, 301):
        teller.tell(
            measured.row(
                measured.queued(step, 1e-4, loss=torch.tensor(1.0), norm=None, began=measured.mark())
            )
        )
    words = [json.loads(line) for line in (tmp_path / "events.jsonl").read_text().splitlines()]
    assert len(words) < 10
    assert words[0]["step"] == 6
    assert "eta_s" not in words[0]
    assert words[-1] | {"tokens_per_s": 0} == {
        "step": 300,
        "steps": 300,
        "loss": 1.0,
        "learning_rate": 1e-4,
        "tokens_per_s": 0,
        "eta_s": 0,
    }


def test_steps_that_are_read_at_once_are_told_by_when_they_ended(tmp_path: Path) -> None:
    (tmp_path / "job.json").write_text("{}")
    measured = meter()
    teller = Teller(Job(tmp_path / "job.json"), measured, start=0, steps=2)
    steps = []
    for step in (1, 2):
        began = measured.mark()
        time.sleep(0.6)
        steps.append(measured.queued(step, 1e-4, loss=torch.tensor(1.0), norm=None, began=began))
    for queued in steps:
        teller.tell(measured.row(queued))
    words = [json.loads(line) for line in (tmp_path / "events.jsonl").read_text().splitlines()]
    assert [word["step"] for word in words] == [1, 2]
    assert all(word["tokens_per_s"] <= measured.tokens / 0.59 for word in words)


def test_a_loss_that_is_not_finite_ends_the_training_and_names_its_step(plain: Trial, tmp_path: Path) -> None:
    trial = plain.elsewhere(str(tmp_path / "store"))
    fields = {"learning_rate": 1e30, "warmup_fraction": 0.0, "zero_stage": 0}
    with pytest.raises(JobError, match=r"^the loss is nan at step 3 of 20; lower training\.learning_rate"):
        trial.train(1, **fields)
    made, _ = trial.node(**fields)
    assert newest(work_folder(trial.store, made.fingerprint)) is None
