"""The verdict: what was gained on the domain, what was lost on the general slice, and what cannot be said.

A difference is a gain or a loss where its 95% interval leaves out 0 and its p, corrected for all metrics
compared, is below .05; one without an interval is shown and claims nothing; what was not measured is said to
be so. Pure.
"""

from dataclasses import dataclass
from typing import Literal

from tasks.report import forgetting
from tasks.report.facts import MilestoneFacts, ReportFacts
from tasks.report.flags import says_little
from tasks.report.numbers import decimal_text, p_text
from tasks.report.scored import BITS, Corpus, Delta, GroupChange
from tasks.store.tokens import format_tokens

Kind = Literal["gain", "loss", "inseparable", "no interval", "not measured"]

ALPHA = 0.05
"""Of a whole comparison: in so many of them, were there no difference at all, anything is called one."""

PLACES: dict[Corpus, str] = {"domain": "On the domain", "general": "On the general slice"}


@dataclass(frozen=True, slots=True)
class Finding:
    """What became of one metric at one milestone, against the base."""

    metric: str
    kind: Kind
    base: float | None = None
    score: float | None = None
    delta: Delta | None = None
    sentence: str = ""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a report says first, of its largest milestone."""

    sentences: tuple[str, ...]
    """One for each loss beyond the recipe's tolerance, at any milestone; then two: the domain's, the general
    slice's; one when no milestone stands."""
    findings: tuple[Finding, ...]
    """The domain's, the general slice's."""
    benchmarks: str
    """How the benchmarks went, counted; empty without any."""


def judge(facts: ReportFacts) -> Verdict:
    """Weigh the largest milestone against the base."""
    if not facts.milestones:
        return Verdict(("No milestone has been trained, so there is nothing to judge yet.",), (), "")
    last = max(facts.milestones, key=lambda milestone: milestone.budget)
    findings = tuple(_slice_finding(facts, last, corpus) for corpus in PLACES)
    lost = forgetting.beyond(loss for milestone in facts.milestones for loss in milestone.losses)
    sentences = [f"It forgot more than its recipe allows: {forgetting.sentence(loss)}." for loss in lost]
    sentences += [finding.sentence for finding in findings]
    return Verdict(tuple(sentences), findings, _benchmarks_sentence(facts, last))


def kind_of(*, delta: Delta | GroupChange | None, has_both: bool, lower_is_better: bool) -> Kind:
    """Whether a difference may be called a gain or a loss.

    Args:
        delta: milestone minus base, with its interval and corrected p.
        has_both: the base and the milestone have a score.
        lower_is_better: bits per byte.
    """
    if delta is None:
        return "no interval" if has_both else "not measured"
    if delta.p_holm >= ALPHA or delta.low <= 0 <= delta.high:
        return "inseparable"
    return "gain" if (delta.difference < 0) == lower_is_better else "loss"


def _slice_finding(facts: ReportFacts, last: MilestoneFacts, corpus: Corpus) -> Finding:
    metric, place = f"{BITS}.{corpus}", PLACES[corpus]
    before = facts.base.scores.bits_per_byte.get(corpus) if facts.base else None
    after = last.scores.bits_per_byte.get(corpus)
    delta = last.deltas.get(metric)
    base = before.bits_per_byte if before else None
    score = after.bits_per_byte if after else None
    kind = kind_of(delta=delta, has_both=before is not None and after is not None, lower_is_better=True)
    told = {"gain": "the model gained", "loss": "the model lost"}.get(kind, "")
    trained = f"after {format_tokens(last.budget)} tokens"
    if delta is not None:
        change = (
            f"{decimal_text(delta.difference, 3, sign=True)} bits per byte (95% interval "
            f"{decimal_text(delta.low, 3, sign=True)} to {decimal_text(delta.high, 3, sign=True)}, "
            f"{p_text(delta.p_holm)}{_corrected(last)})"
        )
        if before and after:
            change += f", from {decimal_text(base, 3)} to {decimal_text(score, 3)}"
    if kind == "not measured":
        sentence = f"{place}, the change {trained} was not measured{_why(facts, corpus, last)}."
    elif delta is None:
        sentence = (
            f"{place}, bits per byte went from {decimal_text(base, 3)} to {decimal_text(score, 3)} "
            f"{trained}; without an interval this is called neither a gain nor a loss."
        )
    elif kind == "inseparable":
        sentence = f"{place}, no change can be told from chance {trained}: {change}."
    else:
        sentence = f"{place}, {told} {trained}: {change}."
    return Finding(metric, kind, base, score, delta, sentence)


def _corrected(last: MilestoneFacts) -> str:
    """What p was corrected for."""
    return f" corrected for {len(last.deltas)} metrics" if len(last.deltas) > 1 else ""


def _why(facts: ReportFacts, corpus: Corpus, last: MilestoneFacts) -> str:
    if facts.base is None:
        return ": there is no base to compare with"
    if corpus == "general" and facts.recipe.general is None:
        return ": the recipe names no general corpus"
    missing = [
        name
        for name, scores in (("base", facts.base.scores), ("milestone", last.scores))
        if corpus not in scores.bits_per_byte
    ]
    return f": the {' and the '.join(missing)} {'has' if len(missing) == 1 else 'have'} no score on it"


def _benchmarks_sentence(facts: ReportFacts, last: MilestoneFacts) -> str:
    names = last.scores.benchmarks
    if not names:
        return ""
    before = facts.base.scores.benchmarks if facts.base else {}
    kinds: list[str] = [
        kind_of(delta=last.deltas.get(name), has_both=name in before, lower_is_better=False) for name in names
    ]
    told = {
        "gain": "higher than the base",
        "loss": "lower than the base",
        "inseparable": "not to be told from the base",
        "no interval": "without an interval",
        "not measured": "without a base score",
    }
    parts = [f"{kinds.count(kind)} {text}" for kind, text in told.items() if kind in kinds]
    sentence = (
        f"Of {len(names)} benchmark{'s' if len(names) > 1 else ''} at this milestone: {', '.join(parts)}"
    )
    sentence += f" (p below {ALPHA:g}{_corrected(last)})." if {"gain", "loss"} & set(kinds) else "."
    blind = [name for name, score in names.items() if says_little(score)]
    if blind:
        sentence += f" No better than guessing or than always giving one answer: {', '.join(blind)}."
    return sentence
