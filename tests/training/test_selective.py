"""Selective language modelling: which tokens are learned, and that only the step decides it."""

from collections.abc import Iterator

import numpy as np
import pytest
import torch
import torch.distributed as dist
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM, GPT2Config, GPT2LMHeadModel, PreTrainedModel

from tasks.store.packed import PackedCorpus
from tasks.store.shard import read_table
from tasks.training.config import Selective, TrainingConfig
from tasks.training.data import Batches
from tasks.training.document import IGNORED, document_places
from tasks.training.loss import chunk_loss
from tasks.training.order import SequenceOrder
from tasks.training.selective import REFERENCE, largest, select_targets, token_losses
from tests.training.trial import BATCH, SEED, Trial

pytestmark = pytest.mark.train

HALF = Selective(reference="the base", fraction=0.5)
NOTHING = float("-inf")


@settings(max_examples=50, deadline=None)
@given(
    values=st.lists(st.one_of(st.just(NOTHING), st.integers(-3, 3).map(float)), min_size=1, max_size=30),
    fraction=st.sampled_from([0.1, 0.29, 0.6, 0.9]),
)
def test_the_largest_are_kept_and_of_equal_ones_the_first(values: list[float], fraction: float) -> None:
    kept = largest(torch.tensor(values), fraction).tolist()
    choice = [at for at, value in enumerate(values) if value > NOTHING]
    count = max(1, round(fraction * 100) * len(choice) // 100)
    best = sorted(choice, key=lambda at: (-values[at], at))[:count]
    assert [at for at, keep in enumerate(kept) if keep and values[at] > NOTHING] == sorted(best)


def test_what_has_no_reference_is_kept_whole_and_the_share_is_of_the_rest() -> None:
    excess = torch.tensor([[0.5, torch.inf, torch.inf], [NOTHING, 3.0, 1.0], [2.0, NOTHING, torch.inf]])
    kept = [[False, True, True], [False, True, False], [True, False, True]]
    assert largest(excess, 0.5).tolist() == kept


def plain_losses(model: PreTrainedModel, ids: np.ndarray, starts: list[np.ndarray] | None) -> torch.Tensor:
    """The loss of each token, (n, length), document by document where their starts are given."""
    rows = torch.from_numpy(ids.astype(np.int64))
    found = torch.zeros(rows.shape)
    for number, row in enumerate(rows):
        begins = [] if starts is None else [at for at in starts[number].tolist() if at]
        for low, high in zip([0, *begins], [*begins, len(row)], strict=True):
            with torch.no_grad():
                logits = model(input_ids=row[None, low:high]).logits[0, :-1]
            found[number, low + 1 : high] = torch.nn.functional.cross_entropy(
                logits, row[low + 1 : high], reduction="none"
            )
    return found


@pytest.mark.parametrize("document_mask", [False, True])
def test_a_references_losses_are_those_of_each_token(plain: Trial, document_mask: bool) -> None:
    config = TrainingConfig(base_model="tiny", precision="fp32", document_mask=document_mask, selective=HALF)
    (made,) = plain.references(config)
    losses = np.array(read_table(plain.store, made.path)["losses"].to_pylist(), np.float32)
    assert losses.shape == (600, 32)
    model = AutoModelForCausalLM.from_pretrained(plain.store.address(plain.base.path))
    with PackedCorpus(plain.store, plain.corpora[-1].path) as corpus:
        rows = np.arange(8)
        starts = corpus.doc_starts(rows) if document_mask else None
        wanted = plain_losses(model, corpus.rows(rows), starts)
    assert np.abs(losses[:8] - wanted.numpy()).max() < 1e-5
    if starts is not None:
        assert (losses[:8][document_places(starts, 32) == 0] == 0).all()


@pytest.fixture
def alone() -> Iterator[None]:
    """A process group of this process."""
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield
    dist.destroy_process_group()


def kept_of(plain: Trial, model: PreTrainedModel, micro_batch: int, *, chunked: bool) -> torch.Tensor:
    """Which tokens of the first step are learned where the base is the reference."""
    config = TrainingConfig(base_model="tiny", precision="fp32", selective=HALF)
    (made,) = plain.references(config)
    path = plain.corpora[-1].path
    order = SequenceOrder(seed=SEED, borders=(BATCH,), global_batch=BATCH, window=BATCH)
    with (
        PackedCorpus(plain.store, path) as corpus,
        PackedCorpus(plain.store, path, beside=[made.path]) as references,
    ):
        batches = Batches(
            corpus,
            order,
            rank=0,
            ranks=1,
            micro_batch=micro_batch,
            vocab_size=64,
            device=torch.device("cpu"),
            references=references,
        )
        step = list(batches.of_step(0))
        beyond = references.losses(np.array([0, len(references)]))
    assert np.isfinite(beyond[0]).all()
    assert (beyond[1] == NOTHING).all()
    select_targets(model, step, HALF.fraction, chunked=chunked)
    assert model.training
    return torch.cat([one["labels"] for one in step]) != IGNORED


@pytest.mark.usefixtures("alone")
def test_what_is_learned_does_not_hang_on_micro_batches_or_on_how_a_loss_is_formed(plain: Trial) -> None:
    torch.manual_seed(3)
    config = AutoModelForCausalLM.from_pretrained(plain.store.address(plain.base.path)).config
    model = AutoModelForCausalLM.from_config(config).train()
    whole = kept_of(plain, model, BATCH, chunked=False)
    assert chunk_loss(model)
    assert torch.equal(kept_of(plain, model, BATCH, chunked=True), whole)
    assert torch.equal(kept_of(plain, model, 1, chunked=True), whole)
    assert whole.sum() == BATCH * 31 // 2
    assert not whole[:, 0].any()


@pytest.mark.usefixtures("alone")
def test_tokens_that_the_reference_finds_easiest_are_learned() -> None:
    torch.manual_seed(0)
    model = GPT2LMHeadModel(GPT2Config(vocab_size=50, n_embd=16, n_layer=1, n_head=2, n_positions=8)).train()
    ids = torch.randint(0, 50, (2, 8))
    asked = ids.clone()
    asked[1, 5] = IGNORED
    reference = torch.full((2, 8), 50.0)
    reference[0, 0] = reference[1, 5] = -50.0  # easiest of all, but nobody asks for them
    reference[0, 3] = reference[0, 7] = reference[1, 2] = 0.0
    step = [
        {"input_ids": ids[at : at + 1], "labels": asked[at : at + 1], REFERENCE: reference[at : at + 1]}
        for at in (0, 1)
    ]
    select_targets(model, step, 0.25, chunked=False)  # 3 of 13
    kept = torch.cat([one["labels"] for one in step]) != IGNORED
    assert kept.nonzero().tolist() == [[0, 3], [0, 7], [1, 2]]
    assert torch.equal(step[0]["labels"][0, [3, 7]], ids[0, [3, 7]])
    assert all(REFERENCE not in one for one in step)
    assert token_losses(model, step[0], chunked=False)[0, 4] == 0


def test_ranks_and_micro_batches_do_not_change_what_is_learned(plain: Trial) -> None:
    fields = {"selective": HALF, "document_mask": True, "learning_rate": 3e-3}
    made, _ = plain.train(1, zero_stage=1, **fields)
    losses, weights = [row[2] for row in plain.losses(made)], plain.weights(made)
    plain.resume_from(made, None)
    again, _ = plain.train(2, zero_stage=3, micro_batch=2, **fields)
    assert again == made
    assert [row[2] for row in plain.losses(made)] == pytest.approx(losses, abs=1e-5)
    for name, value in plain.weights(made).items():
        assert torch.allclose(value, weights[name], atol=1e-5), name
