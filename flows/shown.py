"""What each flow shows of itself in the Prefect UI: its tags, its progress, and what it came to.

The numbers of the tables are those of `dapt run --json`; a difference to the base stands with its paired
interval, as in the report.
"""

import contextlib
import json
from collections.abc import Iterator
from functools import lru_cache, partial

from prefect import tags

from flows.artifacts import Artifacts, artifacts
from flows.chain import DOMAIN, Chain, Walk
from flows.differences import compare_units
from flows.milestones import BITS, base_model, corpus_nodes, evaluation_nodes, milestone_models
from flows.outcome import TOLD_UNDER, dropped_told
from flows.recipe import Recipe
from flows.resolve import Resolved
from flows.tally import Tally, time_left
from tasks.report.curves import draw_loss
from tasks.report.facts import ReportFacts
from tasks.report.files import make_report
from tasks.report.page import Report, markdown_table
from tasks.report.svg import image_address
from tasks.runtime.progress import Progress, listening
from tasks.store.json import JSON
from tasks.store.manifest import Manifest, stands
from tasks.store.paths import Store
from tasks.store.tokens import parse_tokens

_MOST_POINTS = 4000
"""Of a curve that is followed; more than are drawn."""


def tags_of(recipe: Recipe) -> list[str]:
    """What every run of a recipe is found by; tasks add their stage."""
    return ["dapt", f"recipe:{recipe.name}"]


@contextlib.contextmanager
def corpus_shown(recipe: Recipe, chain: Chain) -> Iterator[Artifacts]:
    """A corpus in the making: shards done, documents and speed of each stage."""
    last: dict[str, tuple[Progress, str]] = {}
    tallies: dict[str, Tally] = {}
    stages = {chain.stage_name(stage) for stage in chain.shards[0].nodes if stage != "tokenizer"}

    def hear(word: Progress) -> None:
        if word.unit == "shards" and word.stage in stages:
            rate = tallies.setdefault(word.stage, Tally()).add(word)
            last[word.stage] = word, rate
            show(word, rate, word.total)

    def show(word: Progress, rate: str, total: float) -> None:
        counted = f"{word.done:,.0f} of {total:,.0f} shards, {rate}"
        shown.progress(word.stage, done=word.done, total=total, description=counted)

    with tags(*tags_of(recipe)), artifacts(recipe.name) as shown, listening(hear):
        yield shown
        for word, rate in last.values():  # how many shards it takes was an estimate until now
            show(word, rate, word.done)


@contextlib.contextmanager
def training_shown(recipe: Recipe, label: str) -> Iterator[Artifacts]:
    """A training: its steps, loss, speed and what is left, and the curve so far."""
    tally, points = Tally(), list[tuple[float, float | None]]()
    a_step = recipe.training.global_batch_sequences * recipe.packing.sequence_length

    def hear(word: Progress) -> None:
        if word.stage != "training" or word.shard != label:
            return
        told = f"step {word.done:,.0f} of {word.total:,.0f}, {tally.add(word)}{time_left(word)}"
        shown.progress(f"training {label}", done=word.done, total=word.total, description=told)
        points.append((word.done * a_step, float(word.fields["loss"])))
        if len(points) > _MOST_POINTS:
            del points[1:-1:2]
        show_curve(shown, label, points, told)

    with tags(*tags_of(recipe)), artifacts(recipe.name) as shown, listening(hear):
        yield shown


def show_curve(
    shown: Artifacts, label: str, points: list[tuple[float, float | None]], description: str
) -> None:
    """The loss of a training by tokens trained.

    Args:
        shown: where.
        label: the milestone as people write it.
        points: tokens and loss; read when the picture is drawn.
        description: what stands above it.
    """

    def draw() -> str:
        drawing = draw_loss({parse_tokens(label): list(points)})
        return image_address(drawing) if drawing else ""

    shown.image(f"loss {label}", draw, description)


def show_trained(shown: Artifacts, label: str, manifest: Manifest) -> None:
    """A finished training, from what it left: of a resumed one its beginning too."""
    details = manifest.details
    told = f"{details['steps']:,} steps, {manifest.tokens:,} tokens, loss {details['final_loss']:.3f}"
    shown.progress(f"training {label}", done=1, total=1, description=told)
    rows = details["curve"]["rows"]
    show_curve(shown, label, [(tokens, loss) for _, tokens, loss, *_ in rows], told)


@contextlib.contextmanager
def evaluation_shown(recipe: Recipe, label: str, units: list[str]) -> Iterator[Artifacts]:
    """One model's evaluation: units done, and how far those at work are."""
    parts: dict[str, Progress] = {}
    names = {f"{label} {unit}": unit for unit in units}
    done = 0.0

    def hear(word: Progress) -> None:
        nonlocal done
        if word.stage != "evaluation" or word.shard not in {label, *names}:
            return
        if word.shard == label:
            done = word.done
        else:
            parts[names[word.shard]] = word
        heard = list(parts.items())
        sofar = max(done, sum(part.done / part.total for _, part in heard if part.total))
        told = [f"{done:,.0f} of {len(units)} units"]
        told += [
            f"{unit} {part.done:,.0f} of {part.total:,.0f} {part.unit}"
            for unit, part in heard
            if part.done < part.total
        ]
        shown.progress(f"evaluation {label}", done=sofar, total=len(units), description=", ".join(told))

    with tags(*tags_of(recipe)), artifacts(recipe.name) as shown, listening(hear):
        yield shown


def show_funnel(shown: Artifacts, chain: Chain, used: list[dict[str, Manifest]]) -> None:
    """What became of a corpus' documents, stage by stage.

    Args:
        shown: where.
        chain: the corpus.
        used: the manifests of the whole shards that it takes.
    """
    rows: list[JSON] = []
    for stage in chain.shards[0].nodes:
        if stage in TOLD_UNDER:
            continue
        found = [shard[stage] for shard in used]
        dropped = dropped_told(found)
        rows.append(
            {
                "stage": stage,
                "corpus": chain.corpus,
                "documents in": sum(m.documents_in for m in found),
                "documents out": sum(m.documents_out for m in found),
                "dropped": dropped.total(),
                "tokens": sum(m.tokens for m in found),
                "why": ", ".join(f"{reason} {count}" for reason, count in dropped.most_common() if count),
            }
        )
    name = "funnel" if chain.corpus == DOMAIN else f"{chain.corpus} funnel"
    shown.table(name, rows, f"The {chain.corpus} corpus, shards: {len(used):,}")


def show_scores(resolved: Resolved, walks: dict[str, Walk]) -> None:
    """The base and every milestone that was measured, with the difference to the base."""
    corpora = corpus_nodes(resolved, walks[DOMAIN])
    base, *models = [base_model(resolved), *milestone_models(resolved, walks, corpora)]
    base_units = evaluation_nodes(resolved, base, walks, corpora[0])
    rows: dict[str, JSON] = {name: {"measure": name} for name in base_units}
    before: dict[str, float] = {}
    for model in [base, *models]:
        units = evaluation_nodes(resolved, model, walks, corpora[0])
        scores = {name: _score(stands(resolved.store, unit.path)) for name, unit in units.items()}
        if all(score is None for score, _ in scores.values()):
            continue
        paired = {} if model is base else compare_units(resolved.store, base_units, units)
        for name, (score, stderr) in scores.items():
            row = rows[name]
            row[model.label] = _rounded(score)
            if resolved.recipe.evaluation.benchmarks:
                row[f"{model.label} ±"] = _rounded(stderr)
            if model is base:
                before |= {} if score is None else {name: score}
                continue
            known = score is not None and name in before
            row[f"{model.label} - base"] = _rounded(score - before[name]) if known and score else ""
            interval = paired.get(name)
            row[f"{model.label} - base, 95 %"] = (
                f"{interval['low']:+.4f} to {interval['high']:+.4f}" if interval else ""
            )
    higher = "benchmarks: higher is better; " if resolved.recipe.evaluation.benchmarks else ""
    with artifacts(resolved.recipe.name) as shown:
        shown.table("scores", list(rows.values()), f"{higher}bits per byte: lower is better")


def _score(manifest: Manifest | None) -> tuple[float | None, float | None]:
    """A unit's score and its standard error, as far as there are such."""
    if manifest is None:
        return None, None
    details = manifest.details
    return details.get("score", details.get(BITS)), details.get("stderr")


def _rounded(value: float | None) -> float | str:
    return "" if value is None else round(value, 4)


def show_report(recipe: Recipe, store: Store, made: list[str]) -> None:
    """The report on the run that made it: verdict and scores, its figures, its text, and where the page is.

    A browser opens no file of a disk from a server's page, so the address is told, not linked.

    Args:
        recipe: what it tells of.
        store: where it stands.
        made: nodes made by the run; without a report among them nothing is shown.
    """
    paths = [path for path in made if path.startswith("report/")]
    if not paths:
        return
    manifest = stands(store, paths[-1])
    assert manifest is not None, "it was made just now"
    address = f"{store.address(paths[-1])}/report.html"
    text = store.read(f"{paths[-1]}/report.md").decode()
    with artifacts(recipe.name) as shown:
        verdict = " ".join(manifest.details["verdict"])
        shown.markdown("report", f"With figures: `{address}`\n\n{text}", verdict)
        report = _report_of(store.root, paths[-1])
        told = [verdict, report.verdict.benchmarks]
        if scores := report.tables.get("scores"):
            told += [markdown_table(scores), *scores.notes]
        shown.markdown("verdict", "\n\n".join(filter(None, told)), verdict)
        for drawing in report.drawings.values():
            shown.image(f"figure {drawing.name}", partial(image_address, drawing), drawing.caption)


@lru_cache(maxsize=1)
def _report_of(root: str, path: str) -> Report:
    """A report from the facts it holds: its own flow shows it, and the one that called it."""
    told = json.loads(Store(root).read(f"{path}/report.json"))
    return make_report(ReportFacts.model_validate(told["facts"]))
