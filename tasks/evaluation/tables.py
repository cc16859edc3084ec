"""What the evaluation's tables look like, and the names of the files a job hands over."""

import pyarrow as pa

DOCUMENTS = "documents.parquet"
"""In a job's folder: the texts of a slice."""
ITEMS = "items.parquet"
"""In a job's folder: what the job measured; becomes the node's table."""

SLICE_DOCUMENTS = pa.schema([pa.field("id", pa.string(), False), pa.field("text", pa.string(), False)])

HELD_OUT_ITEMS = pa.schema(
    [
        pa.field("id", pa.string(), False),
        pa.field("bytes", pa.int64(), False),
        pa.field("nats", pa.float64(), False),
        pa.field("tokens", pa.int64(), False),
    ]
)
"""A row a held-out document: its UTF-8 bytes, its negative log-likelihood in nats, its tokens."""

SAMPLE_ITEMS = pa.schema(
    [
        pa.field("id", pa.string(), False),
        pa.field("prompt", pa.string(), False),
        pa.field("continuation", pa.string(), False),
        pa.field("original", pa.string(), False),
    ]
)
"""A row a held-out document: its beginning, what the model wrote after it, how the document goes on (as many
tokens as the model was asked for)."""

BENCHMARK_ITEMS = pa.schema(
    [
        pa.field("benchmark", pa.string(), False),
        pa.field("doc_id", pa.int64(), False),
        pa.field("doc_hash", pa.string(), False),
        pa.field("correct", pa.bool_(), False),
        pa.field("correct_norm", pa.bool_()),
        pa.field("chosen", pa.int32()),
        pa.field("target", pa.int32()),
        pa.field("log_likelihoods", pa.list_(pa.float64()), False),
    ]
)
"""A row an item. `benchmark` is the subject within a group; it and `doc_id` pair two models' items. `correct`
is by the likeliest answer (acc), `correct_norm` by the likeliest per character (acc_norm; null where the
benchmark has none). `chosen` (by acc) and `target` count the answers from 0 (null: not of that kind)."""

BENCHMARK_TEXTS = pa.schema(
    [
        pa.field("benchmark", pa.string(), False),
        pa.field("task", pa.string(), False),
        pa.field("doc_id", pa.int64(), False),
        pa.field("text", pa.string(), False),
    ]
)
"""A row an item of a benchmark, evaluated or not; `task` and `doc_id` are the `benchmark` and `doc_id` of
`BENCHMARK_ITEMS`."""
