"""Documents of a packed row kept apart: places within each, and a check that a model goes by them.

transformers masks attention by places that begin anew (`masking_utils.find_packed_sequence_indices`, 5.23)
when it is given places and neither a mask nor a cache. With SDPA that is a boolean mask of
micro_batch x length x length, made once a forward pass and shared by all layers. Models that build their
masks in another way, or need none, take no notice: they are found out before anything is trained.

A document that runs on from the row before is read as if it began with the row.
"""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import PreTrainedModel

from tasks.store.errors import RecipeError

Given = dict[str, torch.Tensor]
"""What a model is given of a micro-batch, by argument."""
IGNORED = -100
"""The label of what is not predicted: torch's and transformers' own."""
_PROBE = 8
_APART = 1e-5
"""Relative to the largest entry: what another document may change through rounding alone."""


def document_places(starts: Sequence[NDArray[np.int32]], length: int) -> NDArray[np.int64]:
    """Each token's place in its document, or in what of it lies in the row.

    Args:
        starts: where documents start in each of n rows.
        length: of a row.

    Returns:
        (n, length)
    """
    begins = np.zeros((len(starts), length), np.int64)
    rows = np.repeat(np.arange(len(starts)), [len(one) for one in starts])
    at = np.concatenate(starts)
    begins[rows, at] = at
    return np.arange(length) - np.maximum.accumulate(begins, axis=1)


def given_of(ids: torch.Tensor, places: torch.Tensor | None) -> Given:
    """What a model is given of a micro-batch.

    Args:
        ids: (n, length) int64.
        places: alike; None: rows are not taken apart.
    """
    if places is None:
        return {"input_ids": ids, "labels": ids}
    return {"input_ids": ids, "labels": ids.masked_fill(places == 0, IGNORED), "position_ids": places}


@torch.no_grad()
def require_documents_apart(model: PreTrainedModel) -> None:
    """Check that a model's second document is not touched by what the first one says.

    Args:
        model: as it is trained: its cache is off.

    Raises:
        RecipeError: it is, or the model takes no places.
    """
    half = _PROBE // 2
    places = torch.arange(half).repeat(2)[None]
    ids = torch.arange(_PROBE)[None] % model.get_input_embeddings().weight.shape[0]
    other = torch.cat([ids[:, :half].flip(1), ids[:, half:]], dim=1)
    training = model.training
    model.eval()
    try:
        one, two = (
            model.base_model(input_ids=given, position_ids=places).last_hidden_state[:, half:]
            for given in (ids, other)
        )
    except TypeError:
        apart = False
    else:
        apart = bool((one - two).abs().max() <= _APART * one.abs().max())
    model.train(training)
    if not apart:
        raise RecipeError(
            f"training.document_mask=true, but a {model.config.model_type} model as transformers has it does "
            "not keep documents apart by their positions; leave document_mask out, or take another base"
        )


def share_targets(given: Sequence[Given]) -> None:
    """Have the losses of a step's micro-batches add up to the mean over all that the step asks for.

    Their labels hold different numbers of targets, so a mean of means would depend on how the step is
    divided. DeepSpeed averages over micro-batches and ranks: each is told its equal part of the targets.

    Args:
        given: a rank's micro-batches; `num_items_in_batch` is added to each.
    """
    targets = torch.stack([(one["labels"][:, 1:] != IGNORED).sum() for one in given]).sum()
    torch.distributed.all_reduce(targets)
    part = targets / (len(given) * torch.distributed.get_world_size())
    for one in given:
        one["num_items_in_batch"] = part
