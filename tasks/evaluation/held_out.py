"""Bits per byte of held-out documents: how well a model predicts text it has not seen.

In: `documents.parquet` (id, text) of the job's folder. Out: a row a document in `items.parquet` (id, bytes,
nats, tokens), in order. Bits per byte is sum(nats) / ln 2 / sum(bytes): it compares models whatever their
tokenizers, and weighs a document by its length.

Every token is scored exactly once, the first of a document after an end-of-sequence token, as in the packed
rows. A document longer than the context is read in windows that do not overlap in what they score; the last
is filled up with tokens already scored. These are lm-eval's rolling windows: the numbers agree with its
`loglikelihood_rolling` to 1e-6 a document (tests/evaluation) at 1.6 times less cost, because windows of like
length share a batch and lm-eval is not imported. Disjoint windows would differ by up to 1e-3 a document.

Memory: the texts and their tokens, and the logits of a batch (twice `_LOGITS_BYTES`, or one window's).
"""

import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from numpy.typing import NDArray

from tasks.evaluation.model import Loaded, load
from tasks.evaluation.tables import DOCUMENTS, HELD_OUT_ITEMS, ITEMS
from tasks.runtime.job import Job
from tasks.store.errors import SourceError

_LOGITS_BYTES = {"cpu": 2**27, "cuda": 2**31}


@dataclass(frozen=True, slots=True)
class Window:
    """What the model reads at once of one document: `[eos] + tokens`, from `start` to before `end`.

    The last `scored` positions predict tokens that no other window does.
    """

    document: int
    start: int
    end: int
    scored: int


def windows(document: int, num_tokens: int, context: int) -> list[Window]:
    """The windows of a document of `num_tokens` tokens (its EOS prefix not counted)."""
    made, done = [], 0
    while done < num_tokens:
        end = min(done + context, num_tokens)
        made.append(Window(document, max(0, end - context), end, end - done))
        done = end
    return made


def run(job: Job) -> None:
    """Measure what the job names; called by `tasks.evaluation.__main__`."""
    loaded = load(job.spec)
    documents = pq.read_table(job.folder / DOCUMENTS)
    ids, texts = documents["id"].to_pylist(), documents["text"].to_pylist()
    loaded.tokenizer.backend_tokenizer.encode_special_tokens = True  # as packed: text is text
    tokens = loaded.tokenizer(texts, add_special_tokens=False)["input_ids"]
    context = min(int(job.spec["context"]), loaded.context)
    nats = score(loaded, tokens, context=context, job=job)
    for name, value in zip(ids, nats, strict=True):
        if not math.isfinite(value):
            raise SourceError(
                f"the model {job.spec['model']} gives document {name} no finite log-likelihood ({value}); "
                "its training has diverged"
            )
    table = pa.table(
        {
            "id": ids,
            "bytes": [len(text.encode()) for text in texts],
            "nats": nats,
            "tokens": [len(one) for one in tokens],
        },
        schema=HELD_OUT_ITEMS,
    )
    pq.write_table(table, job.folder / ITEMS)
    job.write_result({**loaded.used(), "context": context})


def score(
    loaded: Loaded, tokens: Sequence[list[int]], *, context: int, job: Job | None = None
) -> list[float]:
    """Negative log-likelihood of each document.

    Args:
        loaded: the model.
        tokens: of each document, without special tokens.
        context: the most tokens the model is shown at once.
        job: who is told how far it is.

    Returns:
        nats, one a document; 0 for an empty one.
    """
    everything = [w for number, one in enumerate(tokens) for w in windows(number, len(one), context)]
    everything.sort(key=lambda w: (w.start - w.end, w.document, w.start))
    nats = np.zeros(len(tokens), np.float64)
    total, done, told = sum(w.scored for w in everything), 0, time.monotonic()
    for batch in _batches(everything, loaded):
        for window, value in zip(batch, _batch_nats(loaded, tokens, batch), strict=True):
            nats[window.document] += value
            done += window.scored
        if job is not None and time.monotonic() - told >= 1:
            told = time.monotonic()
            job.emit({"done": done, "total": total, "unit": "tokens"})
    return [float(value) for value in nats]


def _batches(everything: Sequence[Window], loaded: Loaded) -> Iterator[Sequence[Window]]:
    """Runs of windows, longest first, whose padded logits fit `_LOGITS_BYTES`."""
    vocabulary = loaded.model.get_input_embeddings().num_embeddings
    room = _LOGITS_BYTES[loaded.device] // (4 * vocabulary)
    at = 0
    while at < len(everything):
        rows = max(1, room // (everything[at].end - everything[at].start))
        yield everything[at : at + rows]
        at += rows


@torch.inference_mode()
def _batch_nats(loaded: Loaded, tokens: Sequence[list[int]], batch: Sequence[Window]) -> NDArray[np.float64]:
    """(len(batch),) nats of what each window scores. Padded on the right: a causal model does not see it."""
    longest = max(w.end - w.start for w in batch)
    inputs = torch.full((len(batch), longest), loaded.eos)
    targets = torch.full((len(batch), longest), -100)
    for row, window in enumerate(batch):
        one, length = tokens[window.document], window.end - window.start
        shown = (
            one[window.start - 1 : window.end - 1] if window.start else [loaded.eos, *one[: window.end - 1]]
        )
        inputs[row, :length] = torch.tensor(shown)
        targets[row, length - window.scored : length] = torch.tensor(
            one[window.end - window.scored : window.end]
        )
    logits: Any = loaded.model(input_ids=inputs.to(loaded.device), use_cache=False).logits
    losses = torch.nn.functional.cross_entropy(
        logits.float().flatten(0, 1), targets.to(loaded.device).flatten(), ignore_index=-100, reduction="none"
    )
    summed: NDArray[np.float64] = losses.view(len(batch), longest).double().sum(1).cpu().numpy()
    return summed
