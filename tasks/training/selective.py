"""Selective language modelling: of a step's tokens, those are learned that a reference finds easier.

A token's excess is its loss under the model as it is, less its loss under the reference, which was scored
once. Those of largest excess are kept, of the whole step at once: which they are is a function of the model
and the step, whatever the ranks and micro-batches (but for the last digit of a loss, where two tokens at the
border differ by no more). That takes a forward pass of all tokens before any gradient, a third more compute,
and the excesses of the step on each rank: 4 bytes a token. Choosing within each micro-batch, as one pass
could, would make the result depend on its size.

Rows that no reference was asked about (general text that is replayed: a reference of the domain would leave
it out) are learned whole; the share is of the others' tokens.

Source: Lin et al., Rho-1: Not All Tokens Are What You Need, 2024 (arXiv:2404.07965), section 2.2.
"""

from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from tasks.training.document import IGNORED, Given

REFERENCE = "reference_losses"
"""In what a micro-batch gives: (n, length) fp32."""


@torch.no_grad()
def token_losses(model: Any, given: Given, *, chunked: bool) -> Tensor:
    """The loss of each token.

    Args:
        model: or the engine that holds it.
        given: a micro-batch, (n, length).
        chunked: whether `chunk_loss` took it.

    Returns:
        (n, length) fp32; 0 where the labels ask for nothing.
    """
    if chunked:
        losses = model(**given, per_token=True).loss
    else:
        logits = model(**{name: value for name, value in given.items() if name != "labels"}).logits
        losses = torch.nn.functional.cross_entropy(
            logits[:, :-1].float().transpose(1, 2),
            given["labels"][:, 1:],
            ignore_index=IGNORED,
            reduction="none",
        )
    return torch.nn.functional.pad(losses, (1, 0))


def select_targets(engine: Any, given: Sequence[Given], fraction: float, *, chunked: bool) -> None:
    """Leave of a step's labels those that are learned.

    Args:
        engine: with the model; every rank takes part.
        given: this rank's micro-batches, whose `REFERENCE` goes.
        fraction: of the labels of all ranks with a reference, that is kept; rounded down to tokens.
        chunked: whether `chunk_loss` took the model.
    """
    engine.eval()  # no dropout: what is learned does not hang on chance
    parts = []
    for one in given:
        reference = one.pop(REFERENCE)
        excess = token_losses(engine, one, chunked=chunked) - reference
        excess[:, 0] = -torch.inf
        parts.append(excess.masked_fill(one["labels"] == IGNORED, -torch.inf))
    engine.train()
    mine = torch.cat(parts)
    ranks = [torch.empty_like(mine) for _ in range(dist.get_world_size())]
    dist.all_gather(ranks, mine)
    kept = largest(torch.cat(ranks), fraction)[dist.get_rank() * len(mine) :]
    start = 0
    for one in given:
        end = start + len(one["labels"])
        one["labels"] = one["labels"].masked_fill(~kept[start:end], IGNORED)
        start = end


def largest(excess: Tensor, fraction: float) -> Tensor:
    """Which entries are the largest; of equal ones the first are.

    Args:
        excess: -inf where there is nothing to choose, inf of what is kept in any case.
        fraction: of the others; with them one entry is kept at least.

    Returns:
        bool, of the same shape.
    """
    part, whole = Fraction(str(fraction)).as_integer_ratio()
    certain, either = int(excess.isposinf().sum()), int((~excess.isinf()).sum())
    count = max(1, certain + either * part // whole)
    order = torch.sort(excess.flatten(), descending=True, stable=True).indices[:count]
    kept = torch.zeros(excess.numel(), dtype=torch.bool, device=excess.device)
    kept[order] = True
    return kept.view_as(excess)
