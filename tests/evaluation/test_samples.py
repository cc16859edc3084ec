"""Continuations of held-out documents: what transformers' own greedy generation writes, of the right ones."""

import dataclasses
from pathlib import Path

import pytest
import torch

from tasks.evaluation.config import EvaluatedModel, held_out_node, samples_node
from tasks.evaluation.model import Loaded, load
from tasks.evaluation.samples import after, continued
from tasks.evaluation.unit import build_samples
from tasks.store.errors import SourceError
from tasks.store.node import Node
from tasks.store.paths import Store
from tasks.store.shard import build_node, read_table
from tests.evaluation.slices import make_shard
from tests.evaluation.tiny import TEXTS, evaluated_model, tiny_model

pytestmark = pytest.mark.train

LONG = [" ".join(TEXTS[:2]) * 2, " ".join(reversed(TEXTS)) * 2, TEXTS[1] * 3]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model(tmp_path_factory.mktemp("model"), scale=8)


@pytest.fixture(scope="module")
def loaded(model: Path) -> Loaded:
    return load({"model": str(model), "tokenizer": str(model), "eos_id": 0})


def node_of(model: EvaluatedModel, shards: list[tuple[Node, Node]]) -> Node:
    return samples_node(held_out_node(model, shards, max_documents=3, context=64))


def tokens_of(loaded: Loaded, text: str) -> list[int]:
    found: list[int] = loaded.tokenizer(text, add_special_tokens=False)["input_ids"]
    return found


def theirs(loaded: Loaded, prompts: list[list[int]], most: int) -> list[list[int]]:
    """By transformers' own loop."""
    given = torch.tensor([[loaded.eos, *prompt] for prompt in prompts])
    options = {"max_new_tokens": most, "do_sample": False, "pad_token_id": 0, "eos_token_id": loaded.eos}
    rows = loaded.model.generate(given, attention_mask=torch.ones_like(given), **options)
    written = rows[:, given.shape[1] :].tolist()
    return [row[: row.index(loaded.eos)] if loaded.eos in row else row for row in written]


def test_it_writes_what_transformers_own_greedy_generation_writes(loaded: Loaded) -> None:
    prompts = [tokens_of(loaded, text)[:9] for text in LONG]
    ours = continued(loaded, prompts, 20)
    assert ours == theirs(loaded, prompts, 20)
    assert len({tuple(row) for row in ours}) > 1, "the prompts matter"
    assert continued(loaded, [], 20) == []


def test_an_end_of_sequence_ends_what_is_written_after_one_prompt_alone(loaded: Loaded) -> None:
    prompts = [tokens_of(loaded, text)[:9] for text in LONG]
    ending = (dataclasses.replace(loaded, eos=token) for token in range(1, 384))
    other = next(one for one in ending if min(map(len, continued(one, prompts, 3))) < 3)
    ours = continued(other, prompts, 6)
    assert ours == theirs(other, prompts, 6)
    assert all(other.eos not in row for row in ours)


def test_text_is_whole_wherever_it_is_cut_even_within_a_character(loaded: Loaded) -> None:
    text = "日本語, 한국어 and more"
    tokens = tokens_of(loaded, text)
    assert len(tokens) > len(text), "some characters are several tokens"
    for at in range(len(tokens) + 1):
        assert after(loaded, [], tokens[:at]) + after(loaded, tokens[:at], tokens[at:]) == text


def test_a_unit_continues_the_first_documents_longer_than_a_prompt_as_far_as_the_context_goes(
    tmp_path: Path,
) -> None:
    store = Store(str(tmp_path / "store"))
    folder = tiny_model(tmp_path / "model", context=40, scale=8)
    texts = {"a-0": LONG[0], "a-1": "short", "a-2": LONG[1], "a-3": LONG[2]}
    documents = {key: (text, None if key == "a-3" else "held_out") for key, text in texts.items()}
    node = node_of(evaluated_model(folder), [make_shard(store, "one", documents)])
    assert (node.config["prompt_tokens"], node.config["new_tokens"], node.config["documents"]) == (32, 48, 10)
    manifest, made = build_node(store, node, build_samples, room="tasks.evaluation", shard="base samples")
    rows = read_table(store, node.path).to_pylist()
    assert made
    assert [row["id"] for row in rows] == ["a-0", "a-2"]
    for row in rows:
        assert row["prompt"]
        assert row["original"]
        assert texts[row["id"]].startswith(row["prompt"] + row["original"])
        assert row["continuation"]
    assert manifest.details["prompt_tokens"] == 20, "half of the context"
    assert 0 < manifest.details["tokens"] == manifest.tokens <= 2 * 20
    assert store.names(f"work/evaluation/{node.fingerprint}") == []


def test_without_held_out_documents_no_process_starts(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    nowhere = {"folder": "/no/model", "reference": "/no/model", "revision": ""}
    shard = make_shard(store, "one", {"a-0": (LONG[0], None)})
    node = node_of(EvaluatedModel("m", nowhere, "t", nowhere, eos_id=0), [shard])
    manifest, _ = build_node(store, node, build_samples, room="tasks.evaluation", shard="base samples")
    assert manifest.details == {"tokens": 0, "prompt_tokens": 0}
    assert len(read_table(store, node.path)) == 0


def test_a_model_that_diverged_is_said_to_be_so(model: Path) -> None:
    diverged = load({"model": str(model), "tokenizer": str(model), "eos_id": 0})
    with torch.no_grad():
        diverged.model.get_input_embeddings().weight.fill_(float("nan"))
    with pytest.raises(SourceError, match="diverged"):
        continued(diverged, [[1, 2, 3]], 5)
