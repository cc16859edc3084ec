"""Next-token cross-entropy without the logits ever standing whole.

A micro-batch of n tokens and a vocabulary of v has n * v logits, and transformers keeps several copies of
them in fp32: 80 sequences of 2,000 tokens at 32,000 entries take 40 GB and more, and on a CPU most of the
time of a small model goes into walking through them. Here the head is applied to a few rows at a time, and
their gradients are formed on the spot. The result is that of `cross_entropy(hidden @ weight.T, targets)` up
to rounding. What it saves is memory, and time only where a narrow model meets a large vocabulary: on one CPU
core 2.6 times torch's speed for width 16 and 32,000 entries, .9 for 128 and 2,048, .7 for 576 and 32,000
(`tests/bench/bench_loss.py`, 2026-11-21); on a GPU it was not measured.
"""

from types import MethodType
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel
from transformers.modeling_outputs import CausalLMOutput

from tasks.training.memory import HEAD_CHUNK_BYTES, PLAIN_HEADS

_CPU_BYTES = 2 << 20
"""fp32 logits at once on a CPU: what its caches hold."""


class _LinearCrossEntropy(torch.autograd.Function):
    """Mean cross-entropy of `hidden @ weight.T`; gradients are made in the forward pass."""

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, targets: Tensor) -> Tensor:
        """The loss.

        Args:
            ctx: autograd's.
            hidden: (n, d).
            weight: (v, d).
            targets: (n,) int64.

        Returns:
            () fp32.
        """
        count, room = len(targets), HEAD_CHUNK_BYTES if hidden.is_cuda else _CPU_BYTES
        # at least half as many rows as columns: each chunk adds a (v, d) gradient
        rows = max(1, room // (4 * len(weight)), hidden.shape[1] // 2)
        total = torch.zeros((), dtype=torch.float32, device=hidden.device)
        grad_hidden = torch.empty_like(hidden)
        grad_weight = torch.zeros_like(weight, dtype=torch.float32)
        for start in range(0, count, rows):
            chunk, wanted = hidden[start : start + rows], targets[start : start + rows, None]
            logits = (chunk @ weight.T).float()
            logits -= logits.amax(dim=-1, keepdim=True)
            right = logits.gather(1, wanted)
            exponentials = logits.exp_()  # in place, and once: the passes over these are what costs
            sums = exponentials.sum(dim=-1, keepdim=True)
            total += (sums.log() - right).sum()
            slope = exponentials.mul_(1 / (sums * count))
            slope = slope.scatter_add_(1, wanted, torch.full_like(sums, -1 / count)).to(weight.dtype)
            grad_hidden[start : start + rows] = slope @ weight
            grad_weight += (slope.T @ chunk).float()
        ctx.save_for_backward(grad_hidden, grad_weight.to(weight.dtype))
        return total / count

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, None]:
        """The gradients made before, times that of the loss."""
        grad_hidden, grad_weight = ctx.saved_tensors
        return grad_hidden * grads[0], grad_weight * grads[0], None


def linear_cross_entropy(hidden: Tensor, weight: Tensor, targets: Tensor) -> Tensor:
    """Mean cross-entropy of a linear head, a few rows at a time.

    Args:
        hidden: (n, d) floating point.
        weight: (v, d) of the same dtype.
        targets: (n,) int64, each below v.

    Returns:
        () fp32.
    """
    loss: Tensor = _LinearCrossEntropy.apply(hidden, weight, targets)  # type: ignore[no-untyped-call]
    return loss


def _forward(self: Any, input_ids: Tensor, labels: Tensor) -> CausalLMOutput:
    hidden = self.base_model(input_ids=input_ids).last_hidden_state[:, :-1]
    # read here, in the model's own forward pass: ZeRO-3 gathers a parameter when it is looked up in one
    weight = self.get_output_embeddings().weight
    flat = hidden.reshape(-1, hidden.shape[-1])
    return CausalLMOutput(loss=linear_cross_entropy(flat, weight, labels[:, 1:].reshape(-1)))


def chunk_loss(model: PreTrainedModel) -> bool:
    """Have a model's training pass use `linear_cross_entropy`, where its head is a plain one.

    Returns:
        Whether it does; else the model's own loss stays.
    """
    head = model.get_output_embeddings()
    plain = model.config.model_type in PLAIN_HEADS and getattr(head, "bias", None) is None
    if plain:
        model.forward = MethodType(_forward, model)
    return plain
