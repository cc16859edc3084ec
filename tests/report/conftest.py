"""Facts of an invented run, small but with something in every part."""

import copy
import math
from typing import Any

import pytest

from tasks.report.facts import ReportFacts
from tasks.report.files import make_report
from tasks.report.page import Report


def _curve(steps: int, tokens: int, *, start: float, end: float) -> list[list[float]]:
    return [
        [
            i + 1,
            (i + 1) * tokens // steps,
            end + (start - end) * math.exp(-4 * i / steps),
            1e-3 / (i + 1),
            1.0,
        ]
        for i in range(steps)
    ]


def _measured(tokens: int, start: int = 0) -> list[list[float | None]]:
    """Ten runs of steps on a GPU."""
    speeds = [7500 + 40 * (n % 3) for n in range(10)]
    ends = [start + (n + 1) * tokens // 10 for n in range(10)]
    memory = (18_200_000_000, 21_500_000_000, 2_100_000_000)
    return [[end, speed, speed / 18_000, *memory] for end, speed in zip(ends, speeds, strict=True)]


def _group(base: float, score: float, half: float) -> dict[str, Any]:
    change = {"base": base, "score": score, "difference": score - base, "p": 0.01, "p_holm": 0.02}
    change |= {"low": score - base - half, "high": score - base + half, "relative": score / base - 1}
    ends = {"relative_low": (score - base - half) / base, "relative_high": (score - base + half) / base}
    return {**change, **ends, "benchmarks": ["arc_easy", "mmlu"]}


def _sample(number: int) -> dict[str, Any]:
    written = {"base": " is a cell.\n\nThe cell is a cell.", "5M": " is alive.", "12M": " holds the nucleus."}
    prompt = f"Lesson {number}. The smallest unit of life"
    return {"id": f"0f-{number}", "prompt": prompt, "original": " is the cell.", "continuations": written}


def _stage(stage: str, corpus: str, came: int, dropped: dict[str, int], **more: Any) -> dict[str, Any]:
    kept = came - sum(dropped.values())
    counts = {
        "documents_in": came,
        "documents_out": kept,
        "dropped": dropped,
        "shards": 3,
    }
    return {"stage": stage, "corpus": corpus, "seconds": 12.5, "peak_rss_bytes": 312_000_000} | counts | more


def _slices(domain: float, general: float) -> dict[str, Any]:
    return {
        "domain": {"bits_per_byte": domain, "documents": 195, "bytes": 1_200_000},
        "general": {"bits_per_byte": general, "documents": 150, "bytes": 800_000},
    }


def _benchmark(score: float, chance: float) -> dict[str, Any]:
    return {"score": score, "stderr": 0.0102, "metric": "acc_norm", "items": 2376, "chance": chance}


def _delta(difference: float, low: float, high: float) -> dict[str, Any]:
    p = 0.001 if low > 0 or high < 0 else 0.5
    spread = {"stderr": (high - low) / 3.92, "p": p, "p_holm": 4 * p if p < 0.25 else 1.0, "pairs": 195}
    return {"difference": difference, "low": low, "high": high} | spread


_FACTS: dict[str, Any] = {
    "recipe": {
        "name": "edu-small",
        "seed": 17,
        "base_model": "org/base-135m",
        "dataset": "textbooks",
        "general": "docstrings",
    },
    "versions": {"torch": "2.11.0"},
    "machine": {"platform": "Linux", "cpu_count": 2, "memory_bytes": 16_000_000_000},
    "funnel": [
        _stage(
            "download", "domain", 48_210, {"empty": 2}, text_bytes_in=178_000_000, text_bytes_out=177_000_000
        ),
        _stage("filtering", "domain", 48_208, {"too_few_lines": 4100, "top_4_gram": 907}),
        _stage("packing", "domain", 43_201, {}, tokens=38_500_000),
        _stage("download", "general", 4210, {}),
    ],
    "base": {
        "scores": {"arc_easy": _benchmark(0.4146, 0.25), "coin": _benchmark(0.5012, 0.5)}
        | {"bits_per_byte": _slices(3.0231, 2.177)},
        "evaluation": {"seconds": 61.2, "core_seconds": 118.0},
    },
    "milestones": [
        {
            "budget": 5_000_000,
            "tokens": 5_001_216,
            "sequences": 4884,
            "shards": 1,
            "steps": 50,
            "tokens_trained": 4_980_736,
            "sequences_left_out": 20,
            "curve": _curve(50, 4_980_736, start=5.1, end=3.6),
            "tokens_per_s": 7758.2,
            "documents": 14_200,
            "data_seconds": 12.1,
            "measured": _measured(4_980_736),
            "training": {"seconds": 642.0, "gpu_seconds": 640.0, "gpu_joules": 180_000.0},
            "evaluation": {"seconds": 70.5, "gpu_seconds": 70.5},
            "groups": {"knowledge": _group(0.36, 0.378, 0.008), "general": _group(0.56, 0.548, 0.01)},
            "scores": {"arc_easy": _benchmark(0.4398, 0.25), "coin": _benchmark(0.4988, 0.5)}
            | {"bits_per_byte": _slices(2.323, 2.56)},
            "deltas": {
                "arc_easy": _delta(0.0252, 0.0096, 0.0408),
                "coin": _delta(-0.0024, -0.02, 0.0152),
                "bits_per_byte.domain": _delta(-0.7, -0.812, -0.588),
                "bits_per_byte.general": _delta(0.383, 0.36, 0.406),
            },
        },
        {
            "budget": 12_000_000,
            "tokens": 12_000_256,
            "sequences": 11_719,
            "shards": 3,
            "steps": 900,
            "tokens_trained": 11_993_088,
            "curve": _curve(900, 11_993_088, start=5.1, end=3.2),
            "documents": 43_201,
            "data_seconds": 36.4,
            "measured": _measured(11_993_088),
            "training": {"seconds": 1560.0, "gpu_seconds": 1555.0, "gpu_joules": 450_000.0},
            "groups": {"knowledge": _group(0.36, 0.381, 0.008), "general": _group(0.56, 0.541, 0.01)},
            "scores": {"arc_easy": _benchmark(0.4402, 0.25), "bits_per_byte": _slices(2.11, 2.459)},
            "deltas": {
                "arc_easy": _delta(0.0256, 0.01, 0.0412),
                "bits_per_byte.domain": _delta(-0.913, -1.031, -0.795),
                "bits_per_byte.general": _delta(0.282, 0.26, 0.304),
            },
        },
    ],
    "samples": [_sample(number) for number in range(1, 11)],
    "plan": [{"what": "tokens packed", "unit": "tokens", "predicted": 36_000_000, "happened": 38_500_000}],
    "sources": [{"name": "/data/*.parquet", "revision": "87f09149", "files": 3, "bytes": 60_000_000}],
    "lineage": {
        "generated_at": "2026-01-02T03:04:05+00:00",
        "fingerprints": {"corpus 5M": "ab" * 32},
        "config": {"training": {"learning_rate": 1e-4}},
        "code": {"training": ["0.1.0 " + "9c" * 20]},
        "drift": {"tasks.filtering": "ef" * 32},
        "environment": {"python": "3.11.2"},
    },
}


@pytest.fixture(scope="package")
def whole_report() -> Report:
    """The report of those facts, made once."""
    return make_report(ReportFacts.model_validate(_FACTS))


@pytest.fixture
def facts_json() -> dict[str, Any]:
    """`ReportFacts` as plain JSON, free to change."""
    return copy.deepcopy(_FACTS)
