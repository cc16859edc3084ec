"""The micro-batches of a rank: rows of the packed corpus as tensors on its device.

Memory: one step's rows of this rank, and what `PackedCorpus` keeps at hand.
"""

from collections.abc import Iterator

import numpy as np
import torch

from tasks.store.errors import SourceError
from tasks.store.packed import PackedCorpus
from tasks.training.order import SequenceOrder


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

    def of_step(self, step: int) -> Iterator[torch.Tensor]:
        """Token ids, (micro_batch, sequence_length) int64, a gradient accumulation step each.

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
        for start in range(0, self._share, self._micro_batch):
            ids = torch.from_numpy(rows[start : start + self._micro_batch].astype(np.int64))
            if self._device.type == "cuda":
                ids = ids.pin_memory()
            yield ids.to(self._device, non_blocking=True)
