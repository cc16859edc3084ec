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

from tasks.training.document import IGNORED
from tasks.training.memory import HEAD_CHUNK_BYTES, PLAIN_HEADS

_CPU_BYTES = 2 << 20
"""fp32 logits at once on a CPU: what its caches hold."""


class _LinearCrossEntropy(torch.autograd.Function):
    """Cross-entropy of `hidden @ weight.T` over a count; gradients are made in the forward pass."""

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, targets: Tensor, divisor: Tensor | None) -> Tensor:
        """The loss.

        Args:
            ctx: autograd's.
            hidden: (n, d).
            weight: (v, d).
            targets: (n,) int64.
            divisor: () fp32; None: n.

        Returns:
            () fp32.
        """
        count = len(targets) if divisor is None else divisor
        asked = (targets != IGNORED).float()[:, None]
        room = HEAD_CHUNK_BYTES if hidden.is_cuda else _CPU_BYTES
        # at least half as many rows as columns: each chunk adds a (v, d) gradient
        rows = max(1, room // (4 * len(weight)), hidden.shape[1] // 2)
        total = torch.zeros((), dtype=torch.float32, device=hidden.device)
        grad_hidden = torch.empty_like(hidden)
        grad_weight = torch.zeros_like(weight, dtype=torch.float32)
        for start in range(0, len(targets), rows):
            part = slice(start, start + rows)
            chunk, wanted, weighs = hidden[part], targets[part, None].clamp(min=0), asked[part]
            logits = (chunk @ weight.T).float()
            logits -= logits.amax(dim=-1, keepdim=True)
            right = logits.gather(1, wanted)
            exponentials = logits.exp_()  # in place, and once: the passes over these are what costs
            sums = exponentials.sum(dim=-1, keepdim=True)
            total += ((sums.log() - right) * weighs).sum()
            slope = exponentials.mul_(weighs / (sums * count))
            slope = slope.scatter_add_(1, wanted, -weighs / count).to(weight.dtype)
            grad_hidden[part] = slope @ weight
            grad_weight += (slope.T @ chunk).float()
        ctx.save_for_backward(grad_hidden, grad_weight.to(weight.dtype))
        return total / count

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, None, None]:
        """The gradients made before, times that of the loss."""
        grad_hidden, grad_weight = ctx.saved_tensors
        return grad_hidden * grads[0], grad_weight * grads[0], None, None


def linear_cross_entropy(
    hidden: Tensor, weight: Tensor, targets: Tensor, divisor: Tensor | None = None
) -> Tensor:
    """Cross-entropy of a linear head, a few rows at a time.

    Args:
        hidden: (n, d) floating point.
        weight: (v, d) of the same dtype.
        targets: (n,) int64, each below v, or `IGNORED`.
        divisor: () fp32, of the sum over the targets; None: n, where none is ignored.

    Returns:
        () fp32.
    """
    loss: Tensor = _LinearCrossEntropy.apply(hidden, weight, targets, divisor)  # type: ignore[no-untyped-call]
    return loss


def _forward(
    self: Any,
    input_ids: Tensor,
    labels: Tensor,
    position_ids: Tensor | None = None,
    num_items_in_batch: Tensor | None = None,
    *,
    per_token: bool = False,
) -> CausalLMOutput:
    told = {} if position_ids is None else {"position_ids": position_ids}
    hidden = self.base_model(input_ids=input_ids, **told).last_hidden_state[:, :-1]
    # read here, in the model's own forward pass: ZeRO-3 gathers a parameter when it is looked up in one
    weight = self.get_output_embeddings().weight
    flat = hidden.reshape(-1, hidden.shape[-1])
    targets = labels[:, 1:].reshape(-1)
    if per_token:
        return CausalLMOutput(loss=_each_loss(flat, weight, targets).view(len(labels), -1))
    return CausalLMOutput(loss=linear_cross_entropy(flat, weight, targets, num_items_in_batch))


def _each_loss(hidden: Tensor, weight: Tensor, targets: Tensor) -> Tensor:
    """The cross-entropy of each target, (n,) fp32, a few rows at a time; 0 where it is `IGNORED`."""
    rows = max(1, (HEAD_CHUNK_BYTES if hidden.is_cuda else _CPU_BYTES) // (4 * len(weight)))
    parts = (
        torch.nn.functional.cross_entropy(
            (chunk @ weight.T).float(), wanted, ignore_index=IGNORED, reduction="none"
        )
        for chunk, wanted in zip(torch.split(hidden, rows), torch.split(targets, rows), strict=True)
    )
    return torch.cat(list(parts))


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
