"""With the document mask a packed row is its documents, one by one."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist
from hypothesis import given
from hypothesis import strategies as st
from transformers import (
    AutoModelForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    MambaConfig,
    MambaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    PreTrainedModel,
)

from tasks.store.errors import RecipeError
from tasks.store.packed import PackedCorpus
from tasks.training.data import Batches
from tasks.training.document import IGNORED, document_places, keep_documents_apart, share_targets
from tasks.training.loss import chunk_loss, linear_cross_entropy
from tasks.training.order import SequenceOrder
from tests.training.trial import BATCH, MILESTONES, SEED, Trial

pytestmark = pytest.mark.train

VOCAB, LENGTH, LONG = 64, 32, 256


def llama(num_hidden_layers: int = 2) -> LlamaForCausalLM:
    config = LlamaConfig(
        vocab_size=VOCAB,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=num_hidden_layers,
        num_attention_heads=4,
        num_key_value_heads=2,
        use_cache=False,
    )
    return LlamaForCausalLM(config)


def gpt2() -> GPT2LMHeadModel:
    config = GPT2Config(vocab_size=VOCAB, n_embd=32, n_layer=2, n_head=4, n_positions=LENGTH, use_cache=False)
    return GPT2LMHeadModel(config)


def windowed() -> MistralForCausalLM:
    config = MistralConfig(
        vocab_size=VOCAB,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        sliding_window=5,
        use_cache=False,
    )
    return MistralForCausalLM(config)


@given(rows=st.lists(st.sets(st.integers(0, 11)), min_size=1, max_size=5))
def test_places_count_from_the_begin_of_each_document(rows: list[set[int]]) -> None:
    found = document_places([np.array(sorted(row), np.int32) for row in rows], 12)
    for row, places in zip(rows, found.tolist(), strict=True):
        assert places == [at - max((start for start in row if start <= at), default=0) for at in range(12)]


@pytest.fixture
def alone() -> Iterator[None]:
    """A process group of this process."""
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield
    dist.destroy_process_group()


def one_by_one(model: PreTrainedModel, ids: np.ndarray, starts: list[np.ndarray]) -> torch.Tensor:
    """The mean loss over the documents of rows, each given to the model alone."""
    total, targets = torch.zeros(()), 0
    for row, begins in zip(ids.astype(np.int64), starts, strict=True):
        for part in np.split(row, begins[begins > 0]):
            document = torch.from_numpy(part)
            logits = model(input_ids=document[None]).logits[0, :-1]
            total = total + torch.nn.functional.cross_entropy(logits, document[1:], reduction="sum")
            targets += len(document) - 1
    return total / targets


@pytest.mark.parametrize("make", [llama, gpt2, windowed])
@pytest.mark.parametrize("micro_batch", [12, 1])
@pytest.mark.usefixtures("alone")
def test_loss_and_gradients_of_packed_rows_are_those_of_their_documents(
    plain: Trial, make: type[PreTrainedModel], micro_batch: int
) -> None:
    torch.manual_seed(1)
    model = make().eval()
    order = SequenceOrder(seed=SEED, borders=(BATCH,), global_batch=BATCH, window=BATCH)
    assert {0, 1, 2, 3} <= set(order.batch_rows(0).tolist())  # the rows with each kind of document
    with PackedCorpus(plain.store, plain.corpora[-1].path) as corpus:
        rows = order.batch_rows(0)
        wanted = one_by_one(model, corpus.rows(rows), corpus.doc_starts(rows))
        wanted.backward()
        gradients = [p.grad.clone() for p in model.parameters() if p.grad is not None]
        model.zero_grad()
        batches = Batches(
            corpus,
            order,
            rank=0,
            ranks=1,
            micro_batch=micro_batch,
            vocab_size=VOCAB,
            device=torch.device("cpu"),
            document_mask=True,
        )
        step = list(batches.of_step(0))
    share_targets(step)
    keep_documents_apart(model)
    chunk_loss(model)
    found = torch.zeros(())
    for one in step:
        loss = model(**one).loss / len(step)
        loss.backward()
        found += loss.detach()
    assert found.item() == pytest.approx(wanted.item(), abs=1e-5)
    for parameter, gradient in zip(model.parameters(), gradients, strict=True):
        assert parameter.grad is not None
        assert (parameter.grad - gradient).abs().max() <= 1e-5 * max(1.0, gradient.abs().max().item())


def saved_bytes(layers: int, places: torch.Tensor | None) -> int:
    """Of what one forward pass keeps for the backward pass."""
    model = llama(num_hidden_layers=layers).train()
    found: dict[int, int] = {}

    def note(kept: torch.Tensor) -> torch.Tensor:
        found[kept.untyped_storage().data_ptr()] = kept.untyped_storage().nbytes()
        return kept

    if places is not None:
        keep_documents_apart(model)
    ids = torch.zeros((1, LONG), dtype=torch.long)
    with torch.autograd.graph.saved_tensors_hooks(note, lambda kept: kept):
        model(input_ids=ids, position_ids=places)
    return sum(found.values())


def test_layers_share_one_mask() -> None:
    places = torch.arange(LONG // 2).repeat(2)[None]
    more = [saved_bytes(layers, places) - saved_bytes(layers, None) for layers in (1, 5)]
    assert min(more) >= 4 * LONG**2, "fp32"
    assert max(more) < 2 * 4 * LONG**2


def test_what_is_ignored_adds_no_loss_and_no_gradient() -> None:
    torch.manual_seed(0)
    hidden = torch.randn(9, 4, requires_grad=True)
    weight = torch.randn(7, 4, requires_grad=True)
    targets = torch.randint(0, 7, (9,))
    targets[[0, 4]] = IGNORED
    found = []
    for loss in (
        linear_cross_entropy(hidden, weight, targets, torch.tensor(7.0)),
        torch.nn.functional.cross_entropy(hidden @ weight.T, targets),
    ):
        hidden.grad = weight.grad = None
        loss.backward()
        assert hidden.grad is not None
        assert weight.grad is not None
        found.append((loss.detach(), hidden.grad.clone(), weight.grad.clone()))
    for ours, torchs in zip(*found, strict=True):
        assert torch.allclose(ours, torchs, atol=1e-6)


@pytest.mark.parametrize("make", [llama, gpt2])
def test_a_model_that_goes_by_places_is_taken(make: type[PreTrainedModel]) -> None:
    torch.manual_seed(0)
    model = make().train()
    keep_documents_apart(model)
    assert model.training


def test_a_model_that_takes_no_notice_of_places_is_refused() -> None:
    torch.manual_seed(0)
    mamba = MambaForCausalLM(MambaConfig(vocab_size=VOCAB, hidden_size=16, num_hidden_layers=1, state_size=4))
    with pytest.raises(RecipeError, match=r"document_mask=true.*mamba"):
        keep_documents_apart(mamba)
    cached = windowed()
    cached.config.use_cache = True  # transformers takes a cache for a conversation that goes on
    with pytest.raises(RecipeError, match="mistral"):
        keep_documents_apart(cached)


def test_ranks_and_micro_batches_do_not_change_a_training_with_the_mask(plain: Trial, tmp_path: Path) -> None:
    made, _ = plain.train(1, document_mask=True)
    losses, weights = [row[2] for row in plain.losses(made)], plain.weights(made)
    plain.resume_from(made, None)
    again, manifest = plain.train(2, document_mask=True, micro_batch=3, zero_stage=2)
    assert again == made
    assert manifest.how["ranks"] == 2
    assert [row[2] for row in plain.losses(made)] == pytest.approx(losses, abs=1e-5)
    for name, value in plain.weights(made).items():
        assert torch.allclose(value, weights[name], atol=1e-4), name

    rows = SequenceOrder(seed=SEED, borders=MILESTONES, global_batch=BATCH, window=100_000).batch_rows(0)
    model = AutoModelForCausalLM.from_pretrained(plain.store.address(plain.base.path))
    with torch.no_grad(), PackedCorpus(plain.store, plain.corpora[-1].path) as corpus:
        first = one_by_one(model, corpus.rows(rows), corpus.doc_starts(rows))
    assert losses[0] == pytest.approx(first.item(), abs=1e-5)
