"""`dapt compare`: two models on the same items and documents, with the statistics of a report.

A run is a recipe's file, and behind an `@` a milestone or `base`; without one its largest milestone that was
measured. So two milestones, two recipes or two bases are compared. Nothing is computed: what one side was not
measured on is named with the command that measures it, what was measured on something else with its reason.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from flows.chain import DOMAIN, GENERAL
from flows.differences import answer_shares, compare_groups, compare_units
from flows.milestones import (
    BITS,
    Model,
    base_model,
    corpus_nodes,
    evaluation_nodes,
    milestone_models,
)
from flows.outcome import walks_of
from flows.reasons import differing, value_told
from flows.recipe import Recipe
from flows.resolve import Resolved
from flows.terminal import resolve_file
from tasks.report.flags import flags_of
from tasks.report.numbers import decimal_text
from tasks.report.scored import BenchmarkScore, Delta, GroupChange
from tasks.report.verdict import kind_of
from tasks.store.errors import DaptError, RecipeError
from tasks.store.failure import read_failure
from tasks.store.json import JSON
from tasks.store.manifest import Manifest, stands
from tasks.store.node import Node
from tasks.store.paths import Store
from tasks.store.tokens import format_tokens, parse_tokens

BASE = "base"
NOTHING_COMPARED: JSON = {
    "a": None,
    "b": None,
    "summary": [],
    "metrics": {},
    "groups": {},
    "differs": [],
    "missing": [],
}
"""The `compare --json` object of a comparison that failed before it began."""
_WORDS = {"gain": ("B higher", "B lower (better)"), "loss": ("B lower", "B higher (worse)")}
"""What a difference is called, of a benchmark and of bits per byte."""
_FEWEST_PAIRS = 2


@dataclass(frozen=True, slots=True)
class Side:
    """One of the two models, and what was measured on it."""

    file: str
    recipe: Recipe
    store: Store
    model: Model
    units: dict[str, Node]
    """All that its recipe asks for."""
    measured: dict[str, Manifest]
    """What of it stands."""

    @property
    def name(self) -> str:
        """How people call it."""
        return f"{self.recipe.name}@{self.model.label}"

    def to_json(self) -> JSON:
        """The recipe, the milestone, and where the model is."""
        reads = self.model.files.reads
        where = self.store.address(reads["node"]) if "node" in reads else reads["reference"]
        return {"recipe": self.recipe.name, "milestone": self.model.label, "model": where}


def compare(first: str, second: str) -> JSON:
    """Compare what stands of two models.

    Args:
        first: a run, called A: `recipe.toml`, `recipe.toml@400M` or `recipe.toml@base`.
        second: another, called B.

    Returns:
        The `compare --json` object:
        `a`, `b`: recipe, milestone, model (its folder, or the base's Hub id).
        `summary`: two sentences.
        `metrics`: by name the scores `a` and `b`, difference (B minus A), low, high, stderr, p, p_holm (over
        all metrics here), pairs, smallest (the smallest true difference found in 80 % of runs; null for bits
        per byte), kind (gain, loss or inseparable, of B, as in a report) and flags (by side, what to know of
        a score: "below chance").
        `groups`: likewise of the means of A's `evaluation.groups`, with relative, relative_low, relative_high
        and benchmarks.
        `differs`: field, a, b of each field that the recipes do not share.
        `missing`: metric, side (a, b; null where both were measured, but not alike), why, and run, the
        command that measures it (null where none would).

    Raises:
        RecipeError: a recipe is wrong, or has no such milestone.
        DaptError: nothing was measured on one of them.
        StoreDamaged: what was measured is not what its manifest says.
    """
    a, b = _side(first), _side(second)
    missing = [*_unmeasured(a, b), *_measured_otherwise(a, b)]
    named = {entry["metric"] for entry in missing}
    of_a, of_b = ({name: unit for name, unit in side.units.items() if name not in named} for side in (a, b))
    metrics = compare_units(a.store, of_a, of_b)
    missing += [_unpaired(a, b, name) for name in of_a if name not in metrics]
    for name, delta in metrics.items():
        kind = kind_of(delta=Delta(**delta), has_both=True, lower_is_better=_is_slice(name))
        flags = {letter: _flags(side, name) for letter, side in (("a", a), ("b", b))}
        metrics[name] = {"a": _score(a, name), "b": _score(b, name), **delta, "kind": kind, "flags": flags}
    groups = compare_groups(a.store, of_a, of_b, a.recipe.evaluation.groups)
    for name, change in groups.items():
        kind = kind_of(delta=GroupChange(**change), has_both=True, lower_is_better=False)
        groups[name] = {"a": change.pop("base"), "b": change.pop("score"), **change, "kind": kind}
    return {
        "a": a.to_json(),
        "b": b.to_json(),
        "summary": _summary(a, b, metrics),
        "metrics": metrics,
        "groups": groups,
        "differs": list(_differs(a.recipe, b.recipe)),
        "missing": missing,
    }


def _side(given: str) -> Side:
    """The model that a run names, with what was measured on it."""
    file, label = _parsed(given)
    resolved = resolve_file(Path(file), [])
    labels = [BASE, *map(format_tokens, resolved.recipe.budget.milestones)]
    if label and label not in labels:
        raise RecipeError(f"{file} has no milestone {label}; there are {', '.join(labels)}")
    measured = [side for side in _sides(file, resolved) if side.measured]
    wanted = {label} if label else set(labels) - {BASE}
    chosen = [side for side in measured if side.model.label in wanted]
    if not chosen:
        others = ", ".join(f"{file}@{side.model.label}" for side in measured)
        raise DaptError(
            f"nothing was measured on {label or 'a milestone'} of {file}; run `dapt run {file}`"
            + (f", or compare what was: {others}" if others else "")
        )
    return chosen[-1]


def _parsed(given: str) -> tuple[str, str]:
    """The file of a run, and its milestone as recipes are told; empty where none is named."""
    file, _, label = given.rpartition("@")
    if not file or Path(given).is_file():
        return given, ""
    if label == BASE:
        return file, label
    try:
        return file, format_tokens(parse_tokens(label))
    except ValueError as err:
        raise RecipeError(f"{given}: {err}, or base") from err


def _sides(file: str, resolved: Resolved) -> Iterator[Side]:
    """The base and each milestone whose corpus is known, smallest first."""
    walks = walks_of(resolved)
    corpora = corpus_nodes(resolved, walks[DOMAIN])
    if not corpora:
        return
    for model in [base_model(resolved), *milestone_models(resolved, walks, corpora)]:
        units = evaluation_nodes(resolved, model, walks, corpora[0])
        found = {name: stands(resolved.store, unit.path) for name, unit in units.items()}
        measured = {name: manifest for name, manifest in found.items() if manifest is not None}
        yield Side(file, resolved.recipe, resolved.store, model, units, measured)


def _unmeasured(a: Side, b: Side) -> Iterator[JSON]:
    """What is known of one side alone, or was asked for and stands on neither."""
    for metric in dict.fromkeys([*a.units, *b.units]):
        for letter, side in (("a", a), ("b", b)):
            if metric in side.measured:
                continue
            told = {"metric": metric, "side": letter}
            if metric not in side.units:
                yield told | {"why": _not_asked_for(side, metric), "run": None}
                continue
            failure = read_failure(side.store, side.units[metric])
            why = f"failed: {failure['error'].splitlines()[0]}" if failure else "not measured yet"
            yield told | {"why": why, "run": f"dapt run {side.file}"}


def _not_asked_for(side: Side, metric: str) -> str:
    if not _is_slice(metric):
        return f"{side.file} does not name it in evaluation.benchmarks"
    if not side.recipe.held_out.fraction:
        return f"held_out.fraction of {side.file} is 0"
    if metric == f"{BITS}.{GENERAL}":
        return f"{side.file} has no [general] section"
    return f"{side.file} trains on adopted tokens, which have no text"


def _measured_otherwise(a: Side, b: Side) -> Iterator[JSON]:
    """What both were measured on in another way: a score of the way too, not of the model alone."""
    for metric in [name for name in a.measured if name in b.measured]:
        first, second = (side.units[metric].config for side in (a, b))
        for field in ("context", "num_fewshot"):
            if first.get(field) != second.get(field):
                told = [config.get(field, "the benchmark's own") for config in (first, second)]
                why = f"{field} was {told[0]} for A and {told[1]} for B"
                yield {"metric": metric, "side": None, "why": why, "run": None}


def _unpaired(a: Side, b: Side, metric: str) -> JSON:
    """Why a metric that both were measured on has no pairs."""
    what = "documents" if _is_slice(metric) else "items"
    counts = [side.measured[metric].documents_out for side in (a, b)]
    why = f"too few {what}" if min(counts) < _FEWEST_PAIRS else f"not the same {what}"
    why += f": {counts[0]:,} for A, {counts[1]:,} for B"
    return {"metric": metric, "side": None, "why": why, "run": None}


def _is_slice(metric: str) -> bool:
    return metric.startswith(f"{BITS}.")


def _score(side: Side, metric: str) -> float:
    score: float = side.measured[metric].details[BITS if _is_slice(metric) else "score"]
    return score


def _flags(side: Side, metric: str) -> list[str]:
    """What to know of a score, as a report tells it."""
    if _is_slice(metric):
        return []
    shares = answer_shares(side.store, side.units[metric])
    return flags_of(BenchmarkScore(**side.measured[metric].details | shares))


def _differs(a: Recipe, b: Recipe) -> Iterator[JSON]:
    """Each field that the recipes do not share; their names stand beside."""
    first, second = (recipe.model_dump(mode="json") for recipe in (a, b))
    for section in first:
        if not isinstance(first[section] or second[section], Mapping):
            if first[section] != second[section] and section != "name":
                yield {"field": section, "a": first[section], "b": second[section]}
            continue
        for field, of_a, of_b in differing(first, second, section):
            yield {"field": f"{section}.{field}", "a": of_a, "b": of_b}


def _summary(a: Side, b: Side, metrics: JSON) -> list[str]:
    """How the benchmarks and how the slices went."""
    if a.model.files.identity == b.model.files.identity:
        return [f"{a.name} and {b.name} are the same model.", "Nothing can differ."]
    benchmarks = {name: told["kind"] for name, told in metrics.items() if not _is_slice(name)}
    parts = [
        f"{words} on {len(names)}" + (f" ({', '.join(names)})" if kind != "inseparable" else "")
        for kind, words in (("gain", "higher"), ("loss", "lower"), ("inseparable", "not separable"))
        if (names := [name for name, found in benchmarks.items() if found == kind])
    ]
    count = f"Of {len(benchmarks)} benchmark{'s' * (len(benchmarks) > 1)}"
    first = f"{count}, {b.name} against {a.name} is {', '.join(parts)}." if parts else ""
    words = {"gain": "better", "loss": "worse", "inseparable": "not separable"}
    slices = [
        f"{name.partition('.')[2]} {decimal_text(told['difference'], 3, sign=True)} ({words[told['kind']]})"
        for name, told in metrics.items()
        if _is_slice(name)
    ]
    return [
        first or "No benchmark was measured on both.",
        f"Bits per byte: {', '.join(slices)}." if slices else "No held-out text was measured on both.",
    ]


def _told(metric: str, change: JSON) -> str:
    """What a difference is called; of one that is none, what would have been seen."""
    if change["kind"] == "inseparable":
        shown = change.get("smallest")
        return "not separable" + (f" (could have shown {decimal_text(shown, 3)})" if shown else "")
    return _WORDS[change["kind"]][_is_slice(metric)]


def print_comparison(told: JSON, console: Console) -> None:
    """The summary, the table, what to know of it, how the recipes differ, what is missing."""
    for sentence in told["summary"]:
        console.print(sentence, highlight=False, markup=False)
    for letter in ("a", "b"):
        side = told[letter]
        name = f"{letter.upper()}  {side['recipe']}@{side['milestone']}  {side['model']}"
        console.print(name, highlight=False, markup=False, soft_wrap=True)
    if told["metrics"]:
        console.print(_table(told))
    lines = [
        f"{name}, {letter.upper()}: {', '.join(flags)}"
        for name, change in told["metrics"].items()
        for letter, flags in change["flags"].items()
        if flags
    ]
    lines += ["the recipes differ:"] if told["differs"] else []
    lines += [f"  {d['field']}: {value_told(d['a'])} → {value_told(d['b'])}" for d in told["differs"]]
    for entry in told["missing"]:
        side = f", {entry['side'].upper()}" if entry["side"] else ""
        remedy = f"; {entry['run']}" if entry["run"] else ""
        lines.append(f"not compared: {entry['metric']}{side}: {entry['why']}{remedy}")
    for line in lines:
        console.print(line, highlight=False, markup=False, soft_wrap=True)


def _table(told: JSON) -> Table:
    """A row a metric, then a row a group."""
    table = Table(box=box.SIMPLE_HEAD, padding=0, show_edge=False)  # 80 columns hold the numbers
    for column in ("metric", "A", "B", "B - A", "95 % interval", "p", "Holm", "in words"):
        text = column in ("metric", "in words")
        table.add_column(column, justify="left" if text else "right", no_wrap=not text)
    rows = [(name, name, change) for name, change in told["metrics"].items()]
    rows += [(f"mean of {len(c['benchmarks'])}, {name}", name, c) for name, c in told["groups"].items()]
    for shown, name, change in rows:
        digits = 3 if _is_slice(name) else 4
        low, high = (decimal_text(change[end], digits, sign=True) for end in ("low", "high"))
        words = _told(name, change)
        if change.get("relative") is not None:
            words += f", {decimal_text(100 * change['relative'], 1, sign=True)} % of A"
        table.add_row(
            escape(shown.replace(f"{BITS}.", "bits/byte, ")),
            *(decimal_text(change[side], digits) for side in ("a", "b")),
            decimal_text(change["difference"], digits, sign=True),
            f"{low} to {high}",
            *("<.001" if change[p] < 0.001 else decimal_text(change[p], 3) for p in ("p", "p_holm")),
            words,
        )
    return table
