"""The chunked loss is the plain one: value and gradients, and over a whole model."""

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

from tasks.training import loss
from tasks.training.loss import chunk_loss, linear_cross_entropy

pytestmark = pytest.mark.train

ROUNDING = 2e-6
"""fp32, relative to the largest entry; sums are formed in another order."""


@pytest.mark.parametrize(("count", "width", "vocabulary"), [(1, 4, 7), (37, 16, 5000), (64, 24, 300)])
def test_linear_cross_entropy_equals_torch_in_value_and_gradients(
    count: int, width: int, vocabulary: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loss, "_CPU_BYTES", 4 * vocabulary * 5)  # chunks that do not divide the rows
    torch.manual_seed(0)
    hidden = torch.randn(count, width, requires_grad=True)
    weight = torch.randn(vocabulary, width, requires_grad=True)
    targets = torch.randint(0, vocabulary, (count,))
    found = []
    for compute in (linear_cross_entropy, lambda h, w, t: torch.nn.functional.cross_entropy(h @ w.T, t)):
        hidden.grad = weight.grad = None
        value = compute(hidden, weight, targets)
        (3 * value).backward()
        assert hidden.grad is not None
        assert weight.grad is not None
        found.append((value.detach(), hidden.grad.clone(), weight.grad.clone()))
    for ours, plain in zip(*found, strict=True):
        assert (ours - plain).abs().max() <= ROUNDING * plain.abs().max()


def test_extreme_logits_stay_finite() -> None:
    hidden = torch.tensor([[200.0], [-200.0]], requires_grad=True)
    weight = torch.tensor([[1.0], [-1.0]], requires_grad=True)
    value = linear_cross_entropy(hidden, weight, torch.tensor([0, 0]))
    value.backward()
    assert value.item() == pytest.approx(200.0)  # right by 400 nats, wrong by 400, halved
    assert hidden.grad is not None
    assert torch.isfinite(hidden.grad).all()


def test_a_llama_with_tied_embeddings_has_the_same_loss_and_gradients() -> None:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=300,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        tie_word_embeddings=True,
    )
    model = LlamaForCausalLM(config)
    ids = torch.randint(0, 300, (3, 20))
    plain = model(input_ids=ids, labels=ids).loss
    plain.backward()
    wanted = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    assert chunk_loss(model)
    ours = model(input_ids=ids, labels=ids).loss
    ours.backward()
    assert ours.item() == pytest.approx(plain.item(), rel=1e-6)
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None
        assert (parameter.grad - wanted[name]).abs().max() <= 1e-5 * wanted[name].abs().max(), name


def test_a_model_with_another_head_keeps_its_own_loss() -> None:
    model = GPT2LMHeadModel(GPT2Config(vocab_size=50, n_embd=16, n_layer=1, n_head=2, n_positions=32))
    assert not chunk_loss(model)
    ids = torch.randint(0, 50, (2, 8))
    assert torch.isfinite(model(input_ids=ids, labels=ids).loss)
