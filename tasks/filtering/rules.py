"""Metrics first, then the verdict: the first rule that a document fails is its reason.

Metrics are float32 (counts int32) and compared as such, so a verdict can be read off the stored columns.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from tasks.filtering.config import FilteringConfig
from tasks.filtering.length import measure_length
from tasks.filtering.quality import FINEWEB_METRICS, GOPHER_METRICS, measure_quality
from tasks.filtering.repetition import REPETITION_METRICS, measure_repetition
from tasks.text.columns import text_buffers

COUNTS = ("num_lines", "num_words", "num_stop_words")
"""Metrics that are whole numbers."""

Metrics = dict[str, NDArray[np.float32] | NDArray[np.int32]]


@dataclass(frozen=True, slots=True)
class Rule:
    """A document is dropped for `name` when its `metric` is below `least` or above `most`."""

    name: str
    metric: str
    least: float | None = None
    most: float | None = None


def rules_of(config: FilteringConfig) -> list[Rule]:
    """The rules that are on, in the order they are asked."""
    rules = [
        Rule("min_lines", "num_lines", least=config.min_lines),
        Rule("short_line_char_frac", "short_line_char_frac", most=config.short_line_char_frac),
        *(Rule(name, name, most=getattr(config, name)) for name in REPETITION_METRICS),
    ]
    if config.quality is not None:
        quality = config.quality
        rules += [
            Rule("quality.min_words", "num_words", least=quality.min_words),
            Rule("quality.max_words", "num_words", most=quality.max_words),
            Rule("quality.min_mean_word_length", "mean_word_length", least=quality.min_mean_word_length),
            Rule("quality.max_mean_word_length", "mean_word_length", most=quality.max_mean_word_length),
            Rule("quality.hashes_per_word", "hashes_per_word", most=quality.hashes_per_word),
            Rule("quality.ellipses_per_word", "ellipses_per_word", most=quality.ellipses_per_word),
            Rule("quality.bullet_line_frac", "bullet_line_frac", most=quality.bullet_line_frac),
            Rule("quality.ellipsis_line_frac", "ellipsis_line_frac", most=quality.ellipsis_line_frac),
            Rule("quality.letter_word_frac", "letter_word_frac", least=quality.letter_word_frac),
            Rule("quality.min_stop_words", "num_stop_words", least=quality.min_stop_words),
        ]
    if config.fineweb is not None:
        fineweb = config.fineweb
        rules += [
            Rule("fineweb.punctuated_line_frac", "punctuated_line_frac", least=fineweb.punctuated_line_frac),
            Rule("fineweb.short_line_frac", "short_line_frac", most=fineweb.short_line_frac),
            Rule("fineweb.dup_line_char_frac", "dup_line_char_frac", most=fineweb.dup_line_char_frac),
            Rule("fineweb.newlines_per_word", "newlines_per_word", most=fineweb.newlines_per_word),
        ]
    return rules


def metric_names(config: FilteringConfig) -> tuple[str, ...]:
    """The metrics that are measured, in the order of their columns."""
    return (
        "num_lines",
        "short_line_char_frac",
        *REPETITION_METRICS,
        *(GOPHER_METRICS if config.quality is not None else ()),
        *(FINEWEB_METRICS if config.fineweb is not None else ()),
    )


def verdict_schema(config: FilteringConfig) -> pa.Schema:
    """`id`, `kept`, `reason` (null when kept), then a column a metric."""
    metrics = [
        pa.field(name, pa.int32() if name in COUNTS else pa.float32()) for name in metric_names(config)
    ]
    return pa.schema(
        [pa.field("id", pa.string()), pa.field("kept", pa.bool_()), pa.field("reason", pa.string()), *metrics]
    )


def measure(text: pa.Array, config: FilteringConfig) -> Metrics:
    """The metrics of each document of a text column."""
    offsets, data = text_buffers(text)
    num_lines, short = measure_length(offsets, data, config.short_line_characters)
    found: dict[str, NDArray[np.float64] | NDArray[np.int32]] = {
        "num_lines": num_lines,
        "short_line_char_frac": short,
    }
    found |= zip(REPETITION_METRICS, measure_repetition(offsets, data).T, strict=True)
    if config.quality is not None or config.fineweb is not None:
        found |= zip(GOPHER_METRICS + FINEWEB_METRICS, measure_quality(offsets, data).T, strict=True)
    return {
        name: found[name].astype(np.int32) if name in COUNTS else found[name].astype(np.float32)
        for name in metric_names(config)
    }


def judge(
    metrics: Mapping[str, NDArray[np.float32] | NDArray[np.int32]], rules: list[Rule]
) -> NDArray[np.int64]:
    """The first rule that each document fails.

    Returns:
        (num_docs,) its position in `rules`, -1 for what is kept.
    """
    verdicts = np.full(len(next(iter(metrics.values()))), -1, np.int64)
    for position, rule in reversed(list(enumerate(rules))):
        values = metrics[rule.metric]
        if rule.least is not None:
            verdicts[values < np.float32(rule.least)] = position
        if rule.most is not None:
            verdicts[values > np.float32(rule.most)] = position
    return verdicts


def judge_batch(batch: pa.RecordBatch, config: FilteringConfig) -> pa.RecordBatch:
    """The rows of `verdict_schema` for a batch with columns `id` and `text`."""
    rules = rules_of(config)
    metrics = measure(batch.column("text"), config)
    verdicts = judge(metrics, rules)
    names = pa.array([rule.name for rule in rules], pa.string())
    reasons = names.take(pa.array(verdicts, mask=verdicts < 0))
    columns = [
        batch.column("id"),
        pa.array(verdicts < 0),
        reasons,
        *(pa.array(values) for values in metrics.values()),
    ]
    return pa.RecordBatch.from_arrays(columns, schema=verdict_schema(config))
