"""One benchmark through lm-eval, with its official definition and version.

In: a benchmark's name, a model. Out: the scores as lm-eval tells them, and a row an item in `items.parquet`.
`lm_eval.evaluator.evaluate` is called as `simple_evaluate` calls it (same seeds, same few-shot rules; tests/
evaluation compares them), without its list of installed packages, which costs 3 s a unit.

- Answers of the model are kept as they come (`responses*.db`); a unit that was killed asks only for the rest.
  lm-eval's key holds the prompt and not the model, so the file's name holds the unit's fingerprint.
- Data sets come through `datasets`: from DAPT_BENCHMARKS, a folder laid out as on the Hub, else as its
  environment says: HF_ENDPOINT for a mirror, HF_HOME filled beforehand with HF_HUB_OFFLINE=1 where there is
  no network. Their revisions are told, of a folder the digest of its files.
- Prompts longer than the model's context lose their beginning, as always in lm-eval; here they are counted.
"""

import contextlib
import functools
import hashlib
import math
import random
import re
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import datasets
import lm_eval.utils
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from datasets.exceptions import DatasetNotFoundError
from huggingface_hub.errors import OfflineModeIsEnabled
from lm_eval.api.model import CachingLM
from lm_eval.defaults import DEFAULT_OTHER_SEED, DEFAULT_RANDOM_SEED
from lm_eval.evaluator import evaluate
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager

from tasks.evaluation.config import ALL_ITEMS, OWN_FEWSHOT, BenchmarkUnit
from tasks.evaluation.model import Loaded, load
from tasks.evaluation.names import FOLDERS, definitions
from tasks.evaluation.tables import BENCHMARK_ITEMS, ITEMS
from tasks.runtime.job import Job
from tasks.store.errors import RecipeError, SourceError, TransientError
from tasks.store.fingerprint import combined_digest
from tasks.store.json import JSON

_CPU_BATCH = 8
"""Prompts at once on a CPU, where lm-eval's search for the largest batch ends with the kernel killing it."""

_REVISION = re.compile(r"/([0-9a-f]{40})/")
"""`datasets` keeps what it made of a data set in a folder named by its commit."""


class ToldLM(HFLM):  # type: ignore[misc]
    """lm-eval's model, which tells how far it is and what does not fit the context."""

    def __init__(self, loaded: Loaded, benchmark: str, job: Job) -> None:
        # The tokenizer's own rule on BOS holds, as for everybody's lm-eval scores.
        super().__init__(
            pretrained=loaded.model,
            tokenizer=loaded.tokenizer,
            batch_size="auto" if loaded.device == "cuda" else _CPU_BATCH,
            max_length=loaded.context,
        )
        self.truncated = 0
        self._benchmark, self._job = benchmark, job
        self.asked = self._answered = 0
        self._told = time.monotonic()

    def _loglikelihood_tokens(self, requests: list[Any], **options: Any) -> list[Any]:
        longest = max((len(answer) for _, _, answer in requests), default=0)
        if longest > self.max_length:
            raise SourceError(
                f"an answer of {self._benchmark} has {longest} tokens, the model reads {self.max_length} at "
                "once (max_position_embeddings); leave it out, or take a base with a longer context"
            )
        self.truncated += sum(
            len(prompt) + len(answer) > self.max_length + 1 for _, prompt, answer in requests
        )
        self.asked += len(requests)
        answers: list[Any] = super()._loglikelihood_tokens(requests, **options)
        return answers

    def _model_call(self, inps: torch.Tensor, *args: Any, **options: Any) -> torch.Tensor:
        # Prompts that differ in one last token share a call, so the count is a lower bound.
        self._answered += len(inps)
        if time.monotonic() - self._told >= 1:
            self._told = time.monotonic()
            self._job.emit({"done": min(self._answered, self.asked), "total": self.asked, "unit": "answers"})
        logits: torch.Tensor = super()._model_call(inps, *args, **options)
        return logits


def run(job: Job) -> None:
    """Score what the job names; called by `tasks.evaluation.__main__`."""
    unit = BenchmarkUnit(**{name: job.spec[name] for name in BenchmarkUnit.model_fields})
    loaded = load(job.spec)
    compile_templates_once()
    chosen = load_benchmark(unit, job.spec["folder"])
    told = ToldLM(loaded, unit.benchmark, job)
    responses = job.folder / f"responses-{job.spec['fingerprint']}.db"
    _seed()
    results: JSON = evaluate(
        lm=CachingLM(told, str(responses)), task_dict=chosen, samples=_first_items(chosen, unit.limit)
    )
    rows = [row for name, task in chosen["tasks"].items() for row in _rows(task, results["samples"][name])]
    if not all(math.isfinite(value) for row in rows for value in row["log_likelihoods"]):
        raise SourceError(
            f"the model {job.spec['model']} gives no finite log-likelihood on {unit.benchmark}; "
            "its training has diverged"
        )
    pq.write_table(pa.Table.from_pylist(rows, BENCHMARK_ITEMS), job.folder / ITEMS)
    scores = _scores(unit.benchmark, results, rows) | {
        "truncated": told.truncated,
        "datasets": revisions(chosen["tasks"], job.spec["folder"]),
    }
    job.write_result({"scores": scores, **loaded.used(), "answers_computed": told.asked})


def compile_templates_once() -> None:
    """Keep what lm-eval compiles of its templates: it does so for every item, in 4 ms against .3 ms."""
    lm_eval.utils.env.from_string = functools.lru_cache(maxsize=None)(lm_eval.utils.env.from_string)


def load_benchmark(unit: BenchmarkUnit, folder: str | None) -> JSON:
    """lm-eval's tasks (and groups) of a benchmark: data sets loaded, few-shot set, ready for `evaluate`.

    Args:
        unit: the benchmark.
        folder: of data sets laid out as on the Hub, which go first; None: there is none.

    Raises:
        RecipeError: it has no answers to choose from.
        SourceError: its data set is not to be had.
        TransientError: the network failed.
    """
    name = unit.benchmark
    if name in FOLDERS:
        manager = TaskManager(include_defaults=False, include_path=[definitions() / FOLDERS[name]])
    else:
        manager = TaskManager()
    with _told_of_datasets(name, manager), _datasets_from(folder):
        chosen: JSON = manager.load([name])
    for task in chosen["tasks"].values():
        metrics = {metric["metric"] for metric in task.get_config("metric_list") or []}
        if task.OUTPUT_TYPE not in ("multiple_choice", "loglikelihood") or "acc" not in metrics:
            raise RecipeError(
                f"evaluation.benchmarks: {name} is scored by {', '.join(sorted(metrics)) or 'its own code'} "
                f"on {task.OUTPUT_TYPE}; expected a benchmark with answers to choose from (accuracy)"
            )
        own = task.get_config("num_fewshot")
        if unit.num_fewshot != OWN_FEWSHOT and own != 0:  # lm-eval leaves a definition's own 0 alone
            task.set_config(key="num_fewshot", value=unit.num_fewshot)
        elif own is None:
            task.set_config(key="num_fewshot", value=0)
        task.set_fewshot_seed(seed=DEFAULT_OTHER_SEED)
    return chosen


@contextlib.contextmanager
def _datasets_from(folder: str | None) -> Iterator[None]:
    """Read a data set that lies in a folder from there; definitions name it as ever."""
    load = datasets.load_dataset

    def load_local(path: str, *given: Any, **named: Any) -> Any:
        local = _local(folder, path)
        return load(str(local) if local else path, *given, **named)

    datasets.load_dataset = load_local
    try:
        yield
    finally:
        datasets.load_dataset = load


def _local(folder: str | None, name: str) -> Path | None:
    """The data set of a name in a folder of data sets."""
    if folder is None:
        return None
    found = Path(folder, name)
    return found if found.is_dir() else None


@contextlib.contextmanager
def _told_of_datasets(name: str, manager: Any) -> Iterator[None]:
    wanted = next(_dataset_names(manager.task_index, name), "its data set")
    remedy = (
        "let it reach the Hub once (the cache in HF_HOME is used from then on), set HF_ENDPOINT to a mirror "
        "or DAPT_BENCHMARKS to a folder that holds it as the Hub does, or leave the benchmark out of "
        "evaluation.benchmarks"
    )
    try:
        yield
    except (DatasetNotFoundError, OfflineModeIsEnabled, ConnectionError, OSError) as err:
        offline = bool(datasets.config.HF_HUB_OFFLINE)
        kind = TransientError if isinstance(err, ConnectionError) and not offline else SourceError
        where = "is not in the cache (HF_HUB_OFFLINE is set)" if offline else "cannot be had"
        first = (str(err).strip().splitlines() or [type(err).__name__])[0]
        raise kind(f"the benchmark {name} needs {wanted}, which {where}: {first}; {remedy}") from err


def _dataset_names(index: Mapping[str, Any], name: object) -> Iterator[str]:
    if isinstance(name, dict):
        name = name.get("task", name.get("group"))
    entry = index.get(name) if isinstance(name, str) else None
    if entry is None or entry.cfg is None:
        return
    if entry.cfg.get("dataset_path"):
        yield f"the data set {entry.cfg['dataset_path']}"
    members = entry.cfg.get("task")
    if isinstance(members, list):
        for member in members:
            yield from _dataset_names(index, member)


def _seed() -> None:
    random.seed(DEFAULT_RANDOM_SEED)
    np.random.seed(DEFAULT_OTHER_SEED)
    torch.manual_seed(DEFAULT_OTHER_SEED)


def _first_items(chosen: JSON, limit: int) -> dict[str, Any] | None:
    """The items to take of each task, at most `limit` in all; tasks that get none are taken out of `chosen`.

    lm-eval's own limit is one a task, which would make 57 of it for mmlu.
    """
    if limit == ALL_ITEMS:
        return None
    sizes = {name: len(task.eval_docs) for name, task in chosen["tasks"].items()}
    shares = spread(sizes, limit)
    for name in [name for name, share in shares.items() if share == 0]:
        del chosen["tasks"][name]
    return {name: range(share) for name, share in shares.items() if share}


def spread(sizes: Mapping[str, int], limit: int) -> dict[str, int]:
    """Share `limit` items among tasks by their size: whole parts first, then the largest remainders."""
    total = sum(sizes.values())
    if limit >= total:
        return dict(sizes)
    exact = {name: size * limit / total for name, size in sizes.items()}
    shares = {name: int(value) for name, value in exact.items()}
    by_remainder = sorted(sizes, key=lambda name: (shares[name] - exact[name], name))
    for name in by_remainder[: limit - sum(shares.values())]:
        shares[name] += 1
    return shares


def _rows(task: Any, samples: list[JSON]) -> Iterator[JSON]:
    for sample in samples:
        answers = [float(answer[0]) for answer in sample["filtered_resps"]]
        if "acc_mutual_info" in sample["metrics"]:  # the second half are the answers without the question
            answers = answers[: len(answers) // 2]
        several = len(answers) > 1
        norm = sample.get("acc_norm")
        yield {
            "benchmark": task.task_name,
            "doc_id": sample["doc_id"],
            "doc_hash": sample["doc_hash"],
            "correct": bool(sample["acc"]),
            "correct_norm": None if norm is None else bool(norm),
            "chosen": int(np.argmax(answers)) if several else None,
            "target": right_answer(task, sample["doc"]) if several else None,
            "log_likelihoods": answers,
        }


def right_answer(task: Any, item: JSON) -> int | None:
    """Which answer is right, counted from 0, as lm-eval reads it; None where several are, or none."""
    target = task.doc_to_text(item) if task.multiple_input else task.doc_to_target(item)
    choices = task.doc_to_choice(item)
    if isinstance(target, str):
        return choices.index(target) if target in choices else None
    return int(target) if isinstance(target, int) and 0 <= target < len(choices) else None


def _scores(benchmark: str, results: JSON, rows: list[JSON]) -> JSON:
    """What lm-eval says of the benchmark, under plain names."""
    if benchmark not in results["results"]:
        raise RecipeError(
            f"evaluation.benchmarks: lm-eval has no score for {benchmark} as a whole; "
            f"name its parts: {', '.join(sorted(results['results']))}"
        )
    own = _plain(results["results"][benchmark])
    metric = "acc_norm" if "acc_norm" in own else "acc"
    if metric not in own:
        raise RecipeError(
            f"evaluation.benchmarks: {benchmark} has no accuracy over its parts; "
            f"name them: {', '.join(sorted(results['samples']))}"
        )
    subjects = {name: _plain(results["results"][name]) for name in results["samples"] if name != benchmark}
    shots = {results["n-shot"][name] for name in results["samples"]}
    return own | {
        "metric": metric,
        "score": own[metric],
        "stderr": own.get(f"{metric}_stderr"),
        "items": len(rows),
        "chance": sum(1 / len(row["log_likelihoods"]) for row in rows if row["target"] is not None)
        / len(rows),
        "version": str(results["versions"].get(benchmark)),
        "num_fewshot": max(shots),
        "subjects": subjects,
    }


def _plain(metrics: Mapping[str, Any]) -> JSON:
    """`acc` and `acc_stderr` for lm-eval's `acc,none` and `acc_stderr,none`; numbers only."""
    return {
        key.partition(",")[0]: float(value)
        for key, value in metrics.items()
        if key.startswith("acc") and isinstance(value, int | float) and math.isfinite(value)
    }


def revisions(tasks: Mapping[str, Any], folder: str | None) -> dict[str, str]:
    """The commit each data set was loaded at, by its name; empty where `datasets` does not say.

    Args:
        tasks: of lm-eval.
        folder: see `load_benchmark`; what lies in it has no commit and is told by a digest of its files.
    """
    found: dict[str, str] = {}
    for task in tasks.values():
        name = str(task.get_config("dataset_path"))
        local = _local(folder, name)
        if local and name not in found:
            files = sorted(path for path in local.rglob("*") if path.is_file())
            contents = (hashlib.sha256(path.read_bytes()).hexdigest() for path in files)
            found[name] = f"sha256:{combined_digest(contents)}"
        for part in () if local else (task.dataset or {}).values():
            match = _REVISION.search(" ".join(file["filename"] for file in part.cache_files))
            found[name] = match[1] if match else ""
    return found
