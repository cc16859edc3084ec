"""The report of a recipe: facts collected from manifests, told by tasks/report."""

import datetime
import importlib.metadata
import json
import os
import platform
from collections.abc import Iterable

import msgspec
from prefect import flow, tags

from flows.chain import DOMAIN, GENERAL, Walk, room_of
from flows.differences import answer_shares, compare_groups, compare_units
from flows.forgetting import losses_of
from flows.milestones import (
    BITS,
    Model,
    base_model,
    corpus_nodes,
    evaluation_nodes,
    milestone_models,
    report_node_of,
    units_without_score,
)
from flows.outcome import Used, dropped_told, scores_of, stages_used, walks_of
from flows.overlap import overlaps
from flows.recipe import Recipe
from flows.resolve import Resolved, resolve
from flows.server import remember_run
from flows.shown import show_report, tags_of
from flows.stability import stability
from flows.took import (
    code_of,
    devices_of,
    evaluation_took,
    samples_of,
    shards_took,
    training_took,
    wall_seconds,
)
from tasks.download.config import SourceConfig
from tasks.report.task import write_report
from tasks.settings import Settings
from tasks.store.errors import DaptError
from tasks.store.fingerprint import source_hash
from tasks.store.json import JSON
from tasks.store.manifest import Manifest, read_manifest, stands
from tasks.store.node import Node
from tasks.store.tokens import format_tokens

_LIBRARIES = ("daptflow", "torch", "transformers", "deepspeed", "lm_eval", "tokenizers", "pyarrow", "prefect")


@flow(name="report", flow_run_name="report {recipe.name}", persist_result=False, on_running=[remember_run])
def write_recipe_report(recipe: Recipe) -> JSON:
    """Write the report, unless it stands.

    Returns:
        `{"made": [node path]}`, empty when it stood.

    Raises:
        DaptError: it could not be written; `.summary` says so.
    """
    resolved = resolve(recipe, Settings())
    walks = walks_of(resolved)
    corpora = corpus_nodes(resolved, walks[DOMAIN])
    node = report_node_of(resolved, walks, corpora)
    if stands(resolved.store, node.path):
        return {"made": []}
    told = f"work/report/{node.fingerprint}.json"
    resolved.store.write(told, json.dumps(report_facts(resolved, walks, corpora)).encode())
    try:
        with_facts = msgspec.structs.replace(node, reads={"facts": told})
        with tags(*tags_of(recipe)):
            write_report(resolved.store.root, with_facts.to_json(), recipe.name)
    except DaptError as err:
        err.summary = {"made": [], "failed": [{"stage": "report", "shard": recipe.name, "error": str(err)}]}
        raise
    resolved.store.remove(told)
    show_report(recipe, resolved.store, [node.path])
    return {"made": [node.path]}


def report_facts(resolved: Resolved, walks: dict[str, Walk], corpora: list[Node]) -> JSON:
    """`ReportFacts` as plain JSON."""
    recipe = resolved.recipe
    models = [base_model(resolved), *milestone_models(resolved, walks, corpora)]
    units = [evaluation_nodes(resolved, model, walks, corpora[0]) for model in models]
    used_stages = stages_used(resolved, walks).items()
    made = [m for _, used in used_stages for m in (*used.manifests.values(), *used.beside.values())]
    later = [model.node for model in models if model.node] + [unit for of in units for unit in of.values()]
    made += filter(None, (read_manifest(resolved.store, node.path) for node in later))
    base_scores, base_manifests = _scores(resolved, models[0], units[0])
    losses = losses_of(resolved, walks=walks)
    return {
        "recipe": {
            "name": recipe.name,
            "seed": recipe.seed,
            "base_model": recipe.training.base_model,
            "dataset": _described(recipe.download),
            "general": _general(recipe),
        },
        "versions": {name: importlib.metadata.version(name) for name in _LIBRARIES},
        "machine": {
            "platform": platform.platform(),
            "cpu_count": os.cpu_count() or 1,
            "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
            "devices": devices_of(made),
        },
        "funnel": [_stage(stage, used) for stage, used in used_stages if used.manifests],
        "base": {"scores": base_scores, "evaluation": evaluation_took(base_manifests)},
        "milestones": [
            _milestone(resolved, model, corpus, units[: number + 1])
            | shards_took(walks[DOMAIN], len(corpus.reads["shards"]))
            | {"stability": stability(resolved, model, walks, corpora[0])}
            | {"losses": [loss.model_dump(mode="json") for loss in losses if loss.milestone == model.label]}
            for number, (model, corpus) in enumerate(zip(models[1:], corpora, strict=True), 1)
        ],
        "samples": samples_of(
            resolved.store,
            {
                model.label: units_without_score(resolved, model, of_model)
                for model, of_model in zip(models, units, strict=True)
            },
        ),
        "sources": [
            {
                "name": _described(
                    recipe.download if corpus == DOMAIN or recipe.general is None else recipe.general
                ),
                "corpus": corpus,
                "revision": source.revision or None,
                "files": source.num_files,
                "bytes": sum(shard.text_bytes for shard in source.shards),
                "notes": source.notes,
            }
            for corpus, source in resolved.sources.items()
        ],
        "overlaps": overlaps(resolved, walks, corpora[0]),
        "lineage": _lineage(resolved, models, corpora) | {"code": code_of(made)},
    }


def _described(source: SourceConfig) -> str:
    """A source in words."""
    if source.adopted:
        return f"adopted tokens {source.adopted}"
    if source.dataset:
        return f"{source.dataset} {source.subset}".strip()
    if source.source:
        of = ", ".join(source.packages) or source.subset
        return f"{source.source} of {'the standard library' if source.subset == 'stdlib' else of}"
    return ", ".join(source.files)


def _general(recipe: Recipe) -> str | None:
    """The general source, and how much of it is trained on."""
    if recipe.general is None:
        return None
    share = f" ({100 * recipe.replay_fraction:g} % of what is trained on)" if recipe.replay_fraction else ""
    return _described(recipe.general) + share


def _stage(stage: str, used: Used) -> JSON:
    found, beside = list(used.manifests.values()), list(used.beside.values())
    corpus, _, name = stage.rpartition(":")
    return {
        "stage": name,
        "corpus": corpus or DOMAIN,
        "documents_in": sum(m.documents_in for m in found),
        "documents_out": sum(m.documents_out for m in found),
        "dropped": dict(dropped_told(found)),
        "text_bytes_in": _summed(found, "text_bytes_in"),
        "text_bytes_out": _summed(found, "text_bytes_out"),
        "tokens": sum(m.tokens for m in found),
        "shards": len(found),
        "seconds": sum(m.seconds for m in [*found, *beside]),
        "wall_seconds": wall_seconds([*found, *beside]),
        "peak_rss_bytes": max(m.peak_rss_bytes for m in [*found, *beside]),
    }


def _summed(found: Iterable[Manifest], key: str) -> int | None:
    values = [m.details[key] for m in found if isinstance(m.details.get(key), int)]
    return sum(values) if values else None


def _scores(resolved: Resolved, model: Model, units: dict[str, Node]) -> tuple[JSON, list[Manifest]]:
    """Scores with all that is told of them, as the report reads them; manifests of all that was made."""
    scores, manifests = scores_of(resolved, units)
    others = units_without_score(resolved, model, units).values()
    manifests += [m for unit in others if (m := stands(resolved.store, unit.path))]
    for name, unit in units.items():
        kind, _, corpus = name.partition(".")
        if kind == BITS and corpus and scores[BITS].get(corpus) is not None:
            manifest = read_manifest(resolved.store, unit.path)
            scores[BITS][corpus] = manifest.details if manifest else None
        elif name in scores:
            scores[name] = scores[name] | answer_shares(resolved.store, unit)
    return scores, manifests


def _milestone(resolved: Resolved, model: Model, corpus: Node, measured: list[dict[str, Node]]) -> JSON:
    """One milestone; `measured` are the units of the base and of every model up to its own."""
    store, base, units = resolved.store, measured[0], measured[-1]
    trained = read_manifest(resolved.store, model.node.path) if model.node else None
    assert trained is not None, "a report is written when its models stand"
    scores, manifests = _scores(resolved, model, units)
    details = trained.details
    return {
        "budget": corpus.reads["budget"],
        "tokens": corpus.config["sequences"] * resolved.recipe.packing.sequence_length,
        "sequences": corpus.config["sequences"],
        "shards": len(corpus.reads["shards"]),
        "steps": details["steps"],
        "tokens_trained": trained.tokens,
        "sequences_left_out": details["sequences_left_out"],
        "curve": details["curve"]["rows"],
        "tokens_per_s": details["tokens_per_s"],
        "ranks": trained.how.get("ranks", 1),
        "peak_rss_bytes": details["ranks_peak_rss_bytes"],
        "checkpoint": resolved.store.address(trained.path),
        "scores": scores,
        **training_took(store, trained, _tokens_a_step(resolved)),
        "evaluation": evaluation_took(manifests),
        "deltas": compare_units(store, base, units),
        "previous": compare_units(store, measured[-2], units) if len(measured) > 2 else {},
        "groups": compare_groups(store, base, units, resolved.recipe.evaluation.groups),
    }


def _tokens_a_step(resolved: Resolved) -> int:
    recipe = resolved.recipe
    return recipe.training.global_batch_sequences * recipe.packing.sequence_length


def _lineage(resolved: Resolved, models: list[Model], corpora: list[Node]) -> JSON:
    fingerprints = {f"corpus {format_tokens(c.reads['budget'])}": c.fingerprint for c in corpora}
    fingerprints |= {f"model {model.label}": model.files.identity for model in models}
    stages = [*resolved.chains[DOMAIN].shards[0].nodes, "training", "evaluation", "report"]
    return {
        "generated_at": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "fingerprints": fingerprints,
        "config": resolved.recipe.model_dump(mode="json"),
        "drift": {room: source_hash(room) for room in dict.fromkeys(map(room_of, stages))},
        "environment": {
            "python": platform.python_version(),
            "platform": platform.platform(),
            "general": GENERAL in resolved.chains,
        },
    }
