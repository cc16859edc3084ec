"""Real trainings that replay a second corpus, over gloo: the rows of each step, on any ranks and extended."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from transformers import AutoModelForCausalLM

from tasks.store.manifest import Manifest
from tasks.store.node import Node
from tasks.store.packed import PackedCorpus
from tasks.store.paths import Store
from tasks.store.shard import NodeWriter, build_node
from tasks.training.config import Files, how_of, node
from tasks.training.order import SequenceOrder
from tasks.training.replay import Replay
from tasks.training.run import build_training
from tests.training.trial import BATCH, MILESTONES, SEED, Trial

pytestmark = pytest.mark.train

SHARE, HELD, LENGTH = 0.2, 40, 32
"""Of 100 and 250 sequences of the domain: 25 and 62 general ones, of 40 different ones."""
FIELDS = {"schedule": "wsd", "continuation": "extend", "anneal_fraction": 0.25, "zero_stage": 1}


def make_general(store: Store, count: int) -> Node:
    """The general corpus, of rows that a model of the domain knows nothing about."""
    packed = Node(stage="packing", version=1, config={"general": HELD}, inputs={})
    ids = np.random.default_rng(9).integers(64, size=HELD * LENGTH).astype(np.uint16)

    def build_packed(writer: NodeWriter) -> None:
        table = pa.table({"input_ids": pa.FixedSizeListArray.from_arrays(pa.array(ids), LENGTH)})
        with writer.parquet(table.schema) as out:
            out.write_table(table)

    def build_corpus(writer: NodeWriter) -> None:
        shards = [{"path": packed.path, "rows": count}]
        writer.corpus = {"sequence_length": LENGTH, "sequences": count, "shards": shards}

    corpus = Node(
        stage="corpus", version=1, config={"sequences": count}, inputs={"packing": packed.fingerprint}
    )
    build_node(store, packed, build_packed, room="tasks.packing", shard="00000")
    build_node(store, corpus, build_corpus, room="tasks.packing", shard=str(count))
    return corpus


def train(trial: Trial, previous: Node | None, ranks: int) -> tuple[Node, Manifest]:
    """A milestone that moves the model by nothing, so that a step's loss tells its rows."""
    milestones = 1 if previous is None else 2
    _, config = trial.node(**FIELDS, learning_rate=1e-12, checkpoint_every=3)
    made = node(
        config,
        seed=SEED,
        base=Files.of_node(trial.base),
        tokenizer=trial.tokenizer,
        corpora=trial.corpora[:milestones],
        previous=previous,
        replay_fraction=SHARE,
        replayed=[make_general(trial.store, count) for count in (25, HELD)][:milestones],
    )
    manifest, _ = build_node(
        trial.store, made, build_training, room="tasks.training", shard="x", how=how_of(config, ranks)
    )
    return made, manifest


def losses_of_steps(trial: Trial, made: Node) -> list[float]:
    """The base's loss on the rows that the order names, each read from its own corpus."""
    replay = Replay(SHARE, HELD)
    order = SequenceOrder(seed=SEED, borders=MILESTONES, global_batch=BATCH, window=100_000, replay=replay)
    model = AutoModelForCausalLM.from_pretrained(trial.store.address(trial.base.path))
    paths = (made.reads["corpora"][-1], made.reads["replayed"][-1])
    losses = []
    with PackedCorpus(trial.store, paths[0]) as domain, PackedCorpus(trial.store, paths[1]) as general:
        assert (len(domain), len(general)) == (MILESTONES[-1], HELD)
        for step in range(order.num_steps):
            rows = order.batch_rows(step)
            parts = [
                domain.rows(rows[rows < len(domain)]),
                general.rows(rows[rows >= len(domain)] - len(domain)),
            ]
            assert len(parts[1]) in (2, 3)
            ids = torch.from_numpy(np.concatenate(parts).astype(np.int64))
            with torch.no_grad():
                losses.append(model(input_ids=ids, labels=ids).loss.item())
    return losses


def test_one_rank_then_two_that_extend_it_see_the_rows_that_the_order_says(
    plain: Trial, tmp_path: Path
) -> None:
    trial = plain.elsewhere(str(tmp_path / "store"))
    small, first = train(trial, None, 1)
    large, second = train(trial, small, 2)
    found = [row[2] for row in trial.losses(large)]
    assert found == pytest.approx(losses_of_steps(trial, large), abs=1e-5)
    assert len(set(np.round(found, 4))) > 20, "a step's loss tells its rows"

    assert (first.details["steps"], second.details["steps"]) == (10, 26)
    begin = second.details["extends_from_step"]
    assert trial.losses(small)[:begin] == trial.losses(large)[:begin]
    seen = Replay(SHARE, HELD).before
    assert second.tokens == (26 - begin) * BATCH * LENGTH
    assert first.details["replay_sequences"] == 24
    assert second.details["replay_sequences"] == seen(26 * BATCH) - seen(begin * BATCH)
    assert second.details["replay_tokens"] == second.details["replay_sequences"] * LENGTH
    assert (first.details["replay_repeats"], second.details["replay_repeats"]) == (1, 2)
