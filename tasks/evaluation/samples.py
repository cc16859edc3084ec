"""What a model writes after the beginnings of held-out documents, for people to read beside the base's.

In: `documents.parquet` (id, text) of the job's folder. Out: a row a document in `items.parquet`: its first
tokens, what the model wrote after them by its likeliest token each time, and how the document goes on.

Documents no longer than a prompt are passed over, so that all prompts have one length and share each step. An
end-of-sequence token stands before a document's first, as in the packed rows; one that the model writes ends
what it writes. The same model and documents give the same text. Memory: keys and values of one batch.
"""

import time
from collections.abc import Sequence

import pyarrow as pa
import pyarrow.parquet as pq
import torch

from tasks.evaluation.model import Loaded, load
from tasks.evaluation.tables import DOCUMENTS, ITEMS, SAMPLE_ITEMS
from tasks.runtime.job import Job
from tasks.store.errors import SourceError

_CUT = "\N{REPLACEMENT CHARACTER}"
"""What a token that ends within a character is decoded to."""


def run(job: Job) -> None:
    """Write what the job asks for; called by `tasks.evaluation.__main__`."""
    loaded, spec = load(job.spec), job.spec
    documents = pq.read_table(job.folder / DOCUMENTS)
    loaded.tokenizer.backend_tokenizer.encode_special_tokens = True  # as packed: text is text
    tokens = loaded.tokenizer(documents["text"].to_pylist(), add_special_tokens=False)["input_ids"]
    length = min(int(spec["prompt_tokens"]), loaded.context // 2)
    asked = min(int(spec["new_tokens"]), loaded.context - length)
    chosen = [number for number, one in enumerate(tokens) if len(one) > length][: int(spec["documents"])]
    written = continued(loaded, [tokens[number][:length] for number in chosen], asked, job=job)
    rows = []
    for number, made in zip(chosen, written, strict=True):
        prompt, rest = tokens[number][:length], tokens[number][length : length + asked]
        texts = {"continuation": after(loaded, prompt, made), "original": after(loaded, prompt, rest)}
        rows.append({"id": documents["id"][number].as_py(), "prompt": _text(loaded, prompt), **texts})
    pq.write_table(pa.Table.from_pylist(rows, SAMPLE_ITEMS), job.folder / ITEMS)
    job.write_result(
        {**loaded.used(), "tokens": sum(map(len, written)), "prompt_tokens": length},
    )


@torch.inference_mode()
def continued(
    loaded: Loaded, prompts: Sequence[list[int]], most: int, *, job: Job | None = None
) -> list[list[int]]:
    """What the model writes after each prompt, its likeliest token each time.

    Args:
        loaded: the model.
        prompts: tokens of each, all of one length, which with `most` fits the context.
        most: tokens a prompt; fewer where the model ends before.
        job: who is told how far it is.

    Raises:
        SourceError: the model gives no finite logits.
    """
    if not prompts:
        return []
    given = torch.tensor([[loaded.eos, *prompt] for prompt in prompts])
    cache, columns, told = None, [], time.monotonic()
    for done in range(most):
        out = loaded.model(input_ids=given.to(loaded.device), past_key_values=cache, use_cache=True)
        if not torch.isfinite(last := out.logits[:, -1]).all():
            raise SourceError("the model gives no finite logits; its training has diverged")
        cache, given = out.past_key_values, last.argmax(-1, keepdim=True)
        columns.append(given.cpu())
        if job is not None and time.monotonic() - told >= 1:
            told = time.monotonic()
            job.emit({"done": done + 1, "total": most, "unit": "tokens"})
    rows: list[list[int]] = torch.cat(columns, 1).tolist()
    return [row[: row.index(loaded.eos)] if loaded.eos in row else row for row in rows]


def after(loaded: Loaded, prompt: list[int], more: list[int]) -> str:
    """The text of tokens that follow others: some tokenizers begin a text without its first space."""
    before, whole = _text(loaded, prompt), _text(loaded, prompt + more)
    return whole.removeprefix(before) if whole.startswith(before) else _text(loaded, more)


def _text(loaded: Loaded, tokens: list[int]) -> str:
    text: str = loaded.tokenizer.decode(tokens, clean_up_tokenization_spaces=False)
    return text.rstrip(_CUT)
