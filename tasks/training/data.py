"""The micro-batches of a rank: rows of the packed corpus as tensors on its device.

With the document mask, tokens are given their places in their own documents. That is all a model needs:
transformers takes a place that does not follow the one before for the begin of another sequence, and masks
attention by it (`document.py` checks that a model does). A document's first token is not asked for, as what
would predict it is another document's end; a row's first token never is.

Memory: one step's rows of this rank, and what `PackedCorpus` keeps at hand.
"""

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray

from tasks.store.errors import SourceError
from tasks.store.packed import PackedCorpus
from tasks.training.document import Given, document_places, given_of
from tasks.training.order import SequenceOrder
from tasks.training.selective import REFERENCE


class Batches:
    """What a rank computes in each step.

    Args:
        corpus: the rows.
        order: which of them a step sees.
        rank: of this process.
        ranks: processes; together they see the step's rows, whatever their number.
        micro_batch: sequences at once.
        vocab_size: rows of the model's embedding.
        device: where tensors go.
        document_mask: whether each document of a row is on its own.
        references: the reference's losses of the rows, where tokens are selected.
    """

    def __init__(
        self,
        corpus: PackedCorpus,
        order: SequenceOrder,
        *,
        rank: int,
        ranks: int,
        micro_batch: int,
        vocab_size: int,
        device: torch.device,
        document_mask: bool = False,
        references: PackedCorpus | None = None,
    ) -> None:
        self._corpus, self._order, self._device = corpus, order, device
        self.sequence_length = corpus.sequence_length
        self._share = order.global_batch // ranks
        self._rank, self._micro_batch, self._vocab_size = rank, micro_batch, vocab_size
        self._document_mask, self._references = document_mask, references

    def of_step(self, step: int) -> Iterator[Given]:
        """What the model is given, a gradient accumulation step each.

        `input_ids` and `labels`, (micro_batch, sequence_length) int64. With the document mask `position_ids`
        too, alike, and labels that are not asked for are `IGNORED`. Where tokens are selected, `REFERENCE`.

        Raises:
            SourceError: an id has no row in the model's embedding.
        """
        mine = self._order.batch_rows(step)[self._rank * self._share : (self._rank + 1) * self._share]
        rows = self._corpus.rows(mine)
        highest = int(rows.max())
        if highest >= self._vocab_size:
            raise SourceError(
                f"the corpus has token id {highest}, the model's embedding {self._vocab_size} rows; the "
                "tokenizer does not belong to this model"
            )
        places = self._places(mine) if self._document_mask else None
        losses = self._references.losses(mine) if self._references is not None else None
        for start in range(0, self._share, self._micro_batch):
            part = slice(start, start + self._micro_batch)
            ids = self._sent(rows[part].astype(np.int64))
            given = given_of(ids, self._sent(places[part]) if places is not None else None)
            if losses is not None:
                given[REFERENCE] = self._sent(losses[part])
            yield given

    def _places(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        return document_places(self._corpus.doc_starts(rows), self.sequence_length)

    def _sent(self, values: NDArray[np.int64 | np.float32]) -> torch.Tensor:
        tensor = torch.from_numpy(values)
        if self._device.type == "cuda":
            tensor = tensor.pin_memory()
        return tensor.to(self._device, non_blocking=True)
