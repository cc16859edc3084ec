"""`dapt init`: a recipe that fits a model and data, checked, with what was found as comments."""

import glob
import json
import re
from pathlib import Path

from flows.recipe import load_recipe
from flows.resolve import Resolved, resolve
from tasks.settings import Settings
from tasks.store.errors import RecipeError
from tasks.store.tokens import format_tokens
from tasks.training.memory import parameter_count

_HUB_ID = re.compile(r"\w[\w.-]*(/[\w.-]+)?")
_TOKENS_PER_BYTE = 0.25
_LONGEST = 2000
_STEPS = 100

_TEMPLATE = """\
# Written by `dapt init`; every line that is not here has a default.
name = "{name}"
seed = 17

[budget]
milestones = [{milestones}]  # tokens after packing, growing; {text_mb:,.0f} MB of text make about {available}

[download]  # {num_files} files, {num_shards} source shards
{source}

[packing]
sequence_length = {length}  # the model's context is {context}

[held_out]
fraction = {fraction}  # of documents; never packed, bits per byte are measured on them

[training]
base_model = {model}  # {parameters:,} parameters, vocabulary {vocab}{weights}
learning_rate = {learning_rate}
global_batch_sequences = {batch}
precision = "{precision}"

[evaluation]
benchmarks = []  # lm-eval names, such as "arc_easy", "hellaswag", "piqa"
"""


def propose_recipe(model: str, data: str, output: Path, settings: Settings, *, force: bool) -> None:
    """Write a recipe for a model and data.

    Args:
        model: a Hub id or a folder.
        data: a Hub data set, or a file, folder or glob.
        output: where it is written.
        settings: whose store remembers the files' digests.
        force: replace an existing file.

    Raises:
        RecipeError: the file exists.
        DaptError: model or data cannot be found, or do not fit each other.
    """
    if output.exists() and not force:
        raise RecipeError(f"{output} exists; name another file with --output, or replace it with --force")
    if not output.absolute().parent.is_dir():
        raise RecipeError(
            f"{output}: there is no folder {output.absolute().parent}; make it, or name another"
        )
    source = _source(data)
    draft = output.with_name(f".{output.name}.draft")
    model = str(Path(model).expanduser().absolute()) if Path(model).expanduser().is_dir() else model
    first = {"model": _toml(model), "source": source, "name": _name(data)}
    draft.write_text(_MINIMAL.format(**first))
    try:
        found = resolve(load_recipe(draft), settings)
        draft.write_text(_TEMPLATE.format(**first, **_fitting(found)))
        load_recipe(draft)
        draft.replace(output)
    finally:
        draft.unlink(missing_ok=True)


_MINIMAL = """\
name = "{name}"
[budget]
milestones = [1000000000]
[download]
{source}
[training]
base_model = {model}
global_batch_sequences = 1
"""


def _source(data: str) -> str:
    """The source's line: files where there are some, else a Hub data set."""
    place = Path(data).expanduser()
    if place.is_dir():
        suffixes = ("parquet", "jsonl", "jsonl.gz", "jsonl.zst", "txt")
        kinds = [suffix for suffix in suffixes if next(place.glob(f"*.{suffix}"), None)]
        if not kinds:
            raise RecipeError(f"{data} holds no file that can be read; expected one of {', '.join(suffixes)}")
        globs = ", ".join(_toml(f"{place.absolute()}/*.{kind}") for kind in kinds)
        return f"files = [{globs}]"
    if "://" in data:
        return f"files = [{_toml(data)}]"
    if place.exists() or glob.glob(str(place)):  # noqa: PTH207 - the user's own glob, absolute or not
        return f"files = [{_toml(str(place.absolute()))}]"
    if not _HUB_ID.fullmatch(data):
        raise RecipeError(
            f"{data!r}: there is no such file or folder, and nothing matches it; expected a folder of text, "
            "a glob, a URL or a data set of the Hub (owner/name)"
        )
    return f"dataset = {_toml(data)}"


def _toml(text: str) -> str:
    """A string as TOML writes it, whatever stands in it."""
    return json.dumps(text, ensure_ascii=False)


def _name(data: str) -> str:
    words = "".join(c if c.isalnum() and c.isascii() else "-" for c in Path(data.rstrip("/*.")).stem.lower())
    return f"{words.strip('-') or 'domain'}-adapt"


def _fitting(found: Resolved) -> dict[str, object]:
    """What fits: a context the model has, milestones the text can fill, a batch that gives enough steps."""
    config = found.base.config
    context = int(config.get("max_position_embeddings") or _LONGEST)
    length = min(_LONGEST, context)
    text_bytes = sum(shard.text_bytes for shard in found.chains["domain"].shards)
    available = int(text_bytes * _TOKENS_PER_BYTE)
    if available < 2 * length:
        raise RecipeError(
            f"{text_bytes:,} bytes of text make about {available:,} tokens, less than two sequences of "
            f"{length}; add files"
        )
    larger = _rounded(max(2 * length, int(available * 0.8)))
    smaller = _rounded(max(length, int(larger * 0.4)))
    sequences = max(1, min(960, smaller // length // _STEPS))
    batch = 1 << sequences.bit_length() - 1  # a power of two: most numbers of GPUs divide it
    budgets = [smaller, larger] if larger - smaller >= batch * length else [larger]
    return {
        "milestones": ", ".join(f'"{format_tokens(budget)}"' for budget in budgets),
        "text_mb": text_bytes / 1e6,
        "available": f"{available:,} tokens",
        "num_files": found.sources["domain"].num_files,
        "num_shards": len(found.chains["domain"].shards),
        "length": length,
        "context": context,
        "fraction": 0.005 if available > 100_000_000 else 0.02,
        "parameters": parameter_count(config),
        "vocab": found.base.vocab_size,
        "weights": "" if found.base.has_weights else "; no weights: initialised from the seed",
        "learning_rate": "1e-4" if found.base.has_weights else "1e-3",
        "batch": batch,
        "precision": "bf16" if found.settings.has_gpu else "fp32",
    }


def _rounded(tokens: int) -> int:
    """Two leading digits: a number people can read."""
    scale = 10 ** max(0, len(str(tokens)) - 2)
    return int(tokens // scale * scale)
