"""The chunked loss against torch's own, forward and backward, on one core.

Run it with `python -m tests.bench.bench_loss`.
"""

import time
from collections.abc import Callable

import torch
from torch import Tensor

from tasks.training.loss import linear_cross_entropy

SHAPES = ((2000, 16, 32000), (2048, 128, 2048), (1024, 576, 32000))
REPEATS = 3

Loss = Callable[[Tensor, Tensor, Tensor], Tensor]


def plain(hidden: Tensor, weight: Tensor, targets: Tensor) -> Tensor:
    """All logits at once."""
    return torch.nn.functional.cross_entropy((hidden @ weight.T).float(), targets)


def cpu_seconds(loss: Loss, count: int, width: int, vocabulary: int) -> float:
    """The best of some forward and backward passes, after one to warm up."""
    torch.manual_seed(0)
    hidden = torch.randn(count, width, requires_grad=True)
    weight = torch.randn(vocabulary, width, requires_grad=True)
    targets = torch.randint(0, vocabulary, (count,))
    taken = []
    for _ in range(1 + REPEATS):
        hidden.grad = weight.grad = None
        began = time.process_time()
        loss(hidden, weight, targets).backward()
        taken.append(time.process_time() - began)
    return min(taken[1:])


if __name__ == "__main__":
    torch.set_num_threads(1)
    for shape in SHAPES:
        ours, theirs = cpu_seconds(linear_cross_entropy, *shape), cpu_seconds(plain, *shape)
        print(
            f"(tokens, width, vocabulary) {shape}: {ours:.3f} s, torch {theirs:.3f} s, {theirs / ours:.2f}x"
        )
