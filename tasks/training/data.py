"""The micro-batches of a rank: rows of the packed corpus as tensors on its device.

One thread reads the rows of the next step while this one is computed, and is the only one that touches the
corpus; which rows a step sees does not depend on it. Memory: two steps' rows of this rank, as int64 (16 bytes
a token in all; pinned where there is a GPU), and what `PackedCorpus` keeps at hand.
"""

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType

import numpy as np
import torch

from tasks.store.errors import SourceError
from tasks.store.packed import PackedCorpus
from tasks.training.order import SequenceOrder


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
    ) -> None:
        self._corpus, self._order, self._device = corpus, order, device
        self.sequence_length = corpus.sequence_length
        self._share = order.global_batch // ranks
        self._rank, self._micro_batch, self._vocab_size = rank, micro_batch, vocab_size
        self._reader = ThreadPoolExecutor(1, "batches", initializer=self._begin)
        self._ahead: dict[int, Future[torch.Tensor]] = {}

    def __enter__(self) -> "Batches":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._reader.shutdown(cancel_futures=True)

    def of_step(self, step: int) -> Iterator[torch.Tensor]:
        """Token ids, (micro_batch, sequence_length) int64, a gradient accumulation step each.

        Raises:
            SourceError: an id has no row in the model's embedding.
        """
        found = self._ahead.pop(step, None) or self._reader.submit(self._read, step)
        rows = found.result()
        if step + 1 < self._order.num_steps:
            self._ahead = {step + 1: self._reader.submit(self._read, step + 1)}
        for ids in torch.split(rows, self._micro_batch):
            yield ids.to(self._device, non_blocking=True)

    def _begin(self) -> None:
        if self._device.type == "cuda":
            torch.cuda.set_device(self._device)  # else pinning makes a context on the first GPU

    def _read(self, step: int) -> torch.Tensor:
        """The rank's rows of a step, (share, sequence_length) int64 on the host."""
        mine = self._order.batch_rows(step)[self._rank * self._share : (self._rank + 1) * self._share]
        rows = self._corpus.rows(mine)
        highest = int(rows.max())
        if highest >= self._vocab_size:
            raise SourceError(
                f"the corpus has token id {highest}, the model's embedding {self._vocab_size} rows; the "
                "tokenizer does not belong to this model"
            )
        ids = torch.from_numpy(rows.astype(np.int64))
        return ids.pin_memory() if self._device.type == "cuda" else ids
