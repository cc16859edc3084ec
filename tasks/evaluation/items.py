"""The text of every item that benchmarks ask: what no training document should hold.

In: benchmark names. Out: a row an item in `items.parquet`. The items come through lm-eval's own definitions,
from the split that the evaluation scores, all of them whatever `evaluation.limit` says.

An item's text is what the model is shown (passage, question, for some the answers to choose from), then the
right answer; wrong answers that the prompt does not show are left out. Prompts of one task share a frame
("Question: ... Answer:") that no web page has around the question: what all of them begin or end with is cut.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from tasks.evaluation.config import BenchmarkUnit
from tasks.evaluation.harness import compile_templates_once, load_benchmark, revisions, right_answer
from tasks.evaluation.tables import BENCHMARK_TEXTS, ITEMS
from tasks.runtime.job import Job
from tasks.store.json import JSON


def run(job: Job) -> None:
    """Write the items of the benchmarks that the job names; called by `tasks.evaluation.__main__`."""
    compile_templates_once()
    datasets: dict[str, str] = {}
    names: list[str] = job.spec["benchmarks"]
    with pq.ParquetWriter(job.folder / ITEMS, BENCHMARK_TEXTS) as out:
        for done, name in enumerate(names, 1):
            unit = BenchmarkUnit(kind="benchmark", benchmark=name, lm_eval=job.spec["lm_eval"])
            tasks = load_benchmark(unit, job.spec["folder"])["tasks"]
            datasets |= revisions(tasks, job.spec["folder"])
            rows = [row for task in tasks.values() for row in _rows(name, task)]
            out.write_table(pa.Table.from_pylist(rows, BENCHMARK_TEXTS))
            job.emit({"done": done, "total": len(names), "unit": "benchmarks"})
    job.write_result({"datasets": datasets})


def _rows(benchmark: str, task: Any) -> Iterator[JSON]:
    shown = [_shown(task, item) for item in task.eval_docs]
    prompts = unframed([prompt for prompt, _ in shown])
    for number, (prompt, (_, answer)) in enumerate(zip(prompts, shown, strict=True)):
        yield {
            "benchmark": benchmark,
            "task": task.task_name,
            "doc_id": number,
            "text": f"{prompt}\n{answer}",
        }


def _shown(task: Any, item: JSON) -> tuple[str, str]:
    """The prompt of an item and its right answer."""
    if task.OUTPUT_TYPE == "loglikelihood":
        return task.doc_to_text(item), task.doc_to_target(item)
    choices: list[str] = task.doc_to_choice(item)
    right = right_answer(task, item)
    answer = "\n".join(choices) if right is None else choices[right]
    if task.multiple_input:  # the choices are beginnings, one sentence goes on from each
        return answer, task.doc_to_target(item)
    return task.doc_to_text(item), answer


def unframed(prompts: Sequence[str]) -> list[str]:
    """Prompts without the whole words that all of them begin with and all of them end with."""
    if len(prompts) < 2:
        return list(prompts)
    head, tail = _beginning(prompts), _beginning([prompt[::-1] for prompt in prompts])
    start = 1 + max((at for at, char in enumerate(head) if char.isspace()), default=-1)
    stop = 1 + max((at for at, char in enumerate(tail) if char.isspace()), default=-1)
    return [prompt[start : max(start, len(prompt) - stop)] for prompt in prompts]


def _beginning(texts: Sequence[str]) -> str:
    """What all of them begin with: what the first and the last in order do."""
    low, high = min(texts), max(texts)
    differs = (at for at, (a, b) in enumerate(zip(low, high, strict=False)) if a != b)
    return low[: next(differs, len(low))]
