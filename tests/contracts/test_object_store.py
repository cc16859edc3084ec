"""Promise: on an object store the corpus leg runs, verifies, repairs and grows as on a disk."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from tasks.store.packed import PackedCorpus
from tasks.store.paths import Store
from tasks.store.shard import DATA
from tests.contracts.conftest import Grown
from tests.contracts.world import LENGTH, SMALL, World, corpus_rows
from tests.services import object_store

pytestmark = pytest.mark.flow

TOLD = ("download", "filtering", "dedup", "tokenization", "packing")
FIRST = 6000
"""Tokens: of one shard of three. Each request to the server takes 10 ms."""


@pytest.fixture
def bucket() -> Iterator[str]:
    """A bucket on an S3-compatible server on loopback."""
    with object_store("corpora") as started:
        yield f"{started}/small"


def test_the_corpus_leg_on_an_object_store_verifies_repairs_and_grows(
    world: World, grown: Grown, bucket: str, tmp_path: Path
) -> None:
    scratch = str(tmp_path)
    first = world.run(bucket, world.recipe("objects", budgets=[FIRST]), DAPT_SCRATCH=scratch)
    milestone = first.body["milestones"][0]
    assert milestone["corpus"].startswith(f"{bucket}/corpus/")
    recipe = world.recipe("objects", budgets=[FIRST, SMALL])
    assert world.call(bucket, "verify", recipe).body["damaged"] == []

    store = Store(bucket)
    [group] = store.names("packing")[:1]
    victim = f"packing/{group}/{store.names(f'packing/{group}')[0]}"
    content = store.read(f"{victim}/{DATA}")
    store.write(f"{victim}/{DATA}", content[:-1] + bytes([content[-1] ^ 1]))
    verified = world.call(bucket, "verify", recipe)
    assert (verified.code, [d["path"] for d in verified.body["damaged"]]) == (3, [f"{bucket}/{victim}"])

    second = world.run(bucket, recipe, DAPT_SCRATCH=scratch)
    for stage in TOLD:
        stood = first.body["stages"][stage]["computed"] - (stage == "packing")
        assert second.body["stages"][stage]["hit"] >= stood
        assert second.body["stages"][stage]["computed"] > 0
    assert store.read(f"{victim}/{DATA}") == content
    assert world.call(bucket, "verify", recipe).body["damaged"] == []
    assert world.run(bucket, recipe, DAPT_SCRATCH=scratch).computed == {}

    corpus = second.body["milestones"][1]["corpus"].removeprefix(f"{bucket}/")
    with PackedCorpus(store, corpus) as rows:
        found = rows.rows(np.arange(len(rows)))
    expected = corpus_rows(grown.store, grown.small.body["milestones"][0])["input_ids"].combine_chunks()
    assert len(found) == SMALL // LENGTH
    assert np.array_equal(found, expected.flatten().to_numpy().reshape(-1, LENGTH))
    assert not list(tmp_path.iterdir()), "nothing is left in the scratch folder"
