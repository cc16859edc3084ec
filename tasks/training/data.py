"""The micro-batches of a rank: rows of the packed corpus as tensors on its device.

One thread reads the rows of the next step while this one is computed, and is the only one that touches the
corpus; which rows a step sees does not depend on it. Memory: two steps' rows of this rank, as int64 (16 bytes
a token in all, as much again for the document mask; pinned where there is a GPU), and what `PackedCorpus`
keeps at hand.

With the document mask, tokens are given their places in their own documents, by which attention is masked
(`document.py`). A document's first token is not asked for, as what would predict it is another document's
end; a row's first token never is.
"""

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType

import numpy as np
import torch
from numpy.typing import NDArray

from tasks.store.errors import SourceError
from tasks.store.packed import PackedCorpus
from tasks.training.document import Given, document_places, given_of
from tasks.training.order import SequenceOrder
from tasks.training.selective import REFERENCE

_IDS, _PLACES = "ids", "places"


class Batches:
    """What a rank computes in each step; a context, which waits for its thread.

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
        self._reader = ThreadPoolExecutor(1, "batches", initializer=self._begin)
        self._ahead: dict[int, Future[dict[str, torch.Tensor]]] = {}

    def __enter__(self) -> "Batches":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._reader.shutdown(cancel_futures=True)

    def of_step(self, step: int) -> Iterator[Given]:
        """What the model is given, a gradient accumulation step each.

        `input_ids` and `labels`, (micro_batch, sequence_length) int64. With the document mask `position_ids`
        too, alike, and labels that are not asked for are `IGNORED`. Where tokens are selected, `REFERENCE`.

        Raises:
            SourceError: an id has no row in the model's embedding.
        """
        found = self._ahead.pop(step, None) or self._reader.submit(self._read, step)
        rows = found.result()
        if step + 1 < self._order.num_steps:
            self._ahead = {step + 1: self._reader.submit(self._read, step + 1)}
        for start in range(0, self._share, self._micro_batch):
            part = {
                name: values[start : start + self._micro_batch].to(self._device, non_blocking=True)
                for name, values in rows.items()
            }
            given = given_of(part[_IDS], part.get(_PLACES))
            if REFERENCE in part:
                given[REFERENCE] = part[REFERENCE]
            yield given

    def _begin(self) -> None:
        if self._device.type == "cuda":
            torch.cuda.set_device(self._device)  # else pinning makes a context on the first GPU

    def _read(self, step: int) -> dict[str, torch.Tensor]:
        """The rank's rows of a step on the host, (share, sequence_length) each."""
        mine = self._order.batch_rows(step)[self._rank * self._share : (self._rank + 1) * self._share]
        rows = self._corpus.rows(mine)
        highest = int(rows.max())
        if highest >= self._vocab_size:
            raise SourceError(
                f"the corpus has token id {highest}, the model's embedding {self._vocab_size} rows; the "
                "tokenizer does not belong to this model"
            )
        found = {_IDS: self._hosted(rows.astype(np.int64))}
        if self._document_mask:
            found[_PLACES] = self._hosted(
                document_places(self._corpus.doc_starts(mine), self.sequence_length)
            )
        if self._references is not None:
            found[REFERENCE] = self._hosted(self._references.losses(mine))
        return found

    def _hosted(self, values: NDArray[np.int64 | np.float32]) -> torch.Tensor:
        tensor = torch.from_numpy(values)
        return tensor.pin_memory() if self._device.type == "cuda" else tensor
