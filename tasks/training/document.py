"""Documents of a packed row kept apart: places within each, one mask for all layers, and a check of both.

A model is given places that begin anew with each document. Where it attends to all that came before, the mask
is made of them here, additive and in the model's dtype, once a forward pass: layers share it. transformers
would make a boolean one of the same places (`masking_utils.find_packed_sequence_indices`, 5.23), and SDPA
turns that into an additive one in every layer, each kept for the backward pass: at 2,000 tokens and 30 layers
in bf16 240 MB a sequence instead of 8. It is left to transformers where layers attend within windows. Models
that build their masks in another way, or need none, are found out before anything is trained.

A document that runs on from the row before is read as if it began with the row.
"""

from collections.abc import Sequence
from typing import Any

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


def keep_documents_apart(model: PreTrainedModel) -> None:
    """Have a model mask attention by the places that it is given.

    Args:
        model: as it is trained: its cache is off.

    Raises:
        RecipeError: it attends across documents all the same, or takes no places.
    """
    if not _attends_within_windows(model):
        model.base_model.register_forward_pre_hook(_add_mask, with_kwargs=True)
    _require_documents_apart(model)


def _attends_within_windows(model: PreTrainedModel) -> bool:
    kinds = set(getattr(model.config, "layer_types", None) or ())
    if kinds:
        return kinds != {"full_attention"}
    return getattr(model.config, "sliding_window", None) is not None


def _add_mask(
    model: PreTrainedModel, words: tuple[object, ...], named: dict[str, Any]
) -> tuple[tuple[object, ...], dict[str, Any]]:
    if named.get("attention_mask") is None:
        named["attention_mask"] = documents_mask(named["position_ids"], model.dtype)
    return words, named


def documents_mask(places: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """What to add to attention scores: 0 within a document up to its own place, else -inf.

    Args:
        places: (n, length) of tokens in their documents.
        dtype: of the model's hidden states.

    Returns:
        (n, 1, length, length)
    """
    documents = (places == 0).cumsum(1)
    seen = (documents[:, :, None] == documents[:, None, :]).tril_()
    mask = torch.zeros(seen.shape, dtype=dtype, device=seen.device)
    return mask.masked_fill_(seen.logical_not_(), float("-inf"))[:, None]


@torch.no_grad()
def _require_documents_apart(model: PreTrainedModel) -> None:
    """Check that a model's second document is not touched by what the first one says."""
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
