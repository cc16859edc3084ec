"""A larger milestone that extends a smaller one: real trainings over gloo."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from tasks.store.errors import StoreDamaged
from tasks.store.manifest import Manifest
from tasks.store.node import Node
from tasks.store.shard import build_node
from tasks.training.config import Files, how_of, node
from tasks.training.run import build_training
from tests.training.trial import SEED, Trial, killed_after

pytestmark = pytest.mark.train

EXTEND = {"schedule": "wsd", "continuation": "extend", "anneal_fraction": 0.25, "zero_stage": 1}


def train(
    trial: Trial, corpora: int, previous: Node | None, ranks: int = 1, **fields: Any
) -> tuple[Node, Manifest]:
    """A milestone over the first corpora."""
    _, config = trial.node(**{**EXTEND, **fields})
    made = node(
        config,
        seed=SEED,
        base=Files.of_node(trial.base),
        tokenizer=trial.tokenizer,
        corpora=trial.corpora[:corpora],
        previous=previous,
    )
    told = how_of(config, ranks)
    manifest, _ = build_node(trial.store, made, build_training, room="tasks.training", shard="x", how=told)
    return made, manifest


def test_it_ends_as_if_the_smaller_one_had_never_been_annealed(plain: Trial, tmp_path: Path) -> None:
    trial = plain.elsewhere(str(tmp_path / "store"))
    small, first = train(trial, 1, None)
    before = {
        path: path.read_bytes() for path in trial.store.local_path(small.path).rglob("*") if path.is_file()
    }
    with killed_after(14):
        train(trial, 2, small, checkpoint_every=3)
    large, second = train(trial, 2, small, checkpoint_every=3)
    assert second.how["resumed_from_step"] >= 12
    twin, whole = train(trial, 2, None)  # the same schedule and sequences, all trained at once

    assert (first.details["steps"], second.details["steps"]) == (8, 20)
    assert second.details["extends_from_step"] == 6
    assert second.tokens == (20 - 6) * 12 * 32
    assert whole.details["final_loss"] == second.details["final_loss"]
    found, expected = trial.weights(large), trial.weights(twin)
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    assert trial.losses(large)[:6] == trial.losses(small)[:6]
    assert {path: path.read_bytes() for path in before} == before


def test_an_extended_cosine_goes_on_from_the_end_and_says_what_is_damaged(
    plain: Trial, tmp_path: Path
) -> None:
    trial = plain.elsewhere(str(tmp_path / "store"))
    small, _ = train(trial, 1, None, schedule="cosine")
    state = trial.store.local_path(f"{small.path}/state/step-8")
    whole = (state / "exp_avg.safetensors").read_bytes()
    (state / "exp_avg.safetensors").write_bytes(whole[:-1] + b"x")
    with pytest.raises(StoreDamaged, match=r"exp_avg\.safetensors"):
        train(trial, 2, small, schedule="cosine")
    shutil.rmtree(trial.store.local_path(small.path))
    small, _ = train(trial, 1, None, schedule="cosine")
    large, manifest = train(trial, 2, small, schedule="cosine", ranks=2)
    assert manifest.how["resumed_from_step"] == 8
    rates = [row[3] for row in trial.losses(large)]
    assert rates[8] == rates[0]  # warmed up again
    assert trial.losses(large)[:8] == trial.losses(small)
