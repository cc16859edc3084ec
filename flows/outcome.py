"""What a run came to, read from the store: the same whether anything ran or everything stood."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from flows.chain import DOMAIN, Walk, walk
from flows.milestones import (
    BITS,
    all_units,
    base_model,
    corpus_nodes,
    evaluation_nodes,
    milestone_models,
    reference_nodes,
    replay_nodes,
    report_node_of,
    units_without_score,
)
from flows.record import write_record
from flows.replay import replay_told
from flows.resolve import Resolved
from tasks.store.json import JSON
from tasks.store.manifest import Manifest, stands
from tasks.store.node import Node
from tasks.training.config import REFERENCE_STAGE

NOTHING_DONE: JSON = {
    "recipe": None,
    "stages": {},
    "milestones": [],
    "base": None,
    "failed": [],
    "report": None,
    "forgetting": [],
}
"""The `run --json` object of a run that failed before it began."""
LEGS = ("corpus", "train", "evaluate", "report")
TOLD_UNDER = {
    "signatures": "dedup",
    "benchmarks": "dedup",
    "contamination": "dedup",
    "tokenizer": "tokenization",
}
"""Stages that stand in the store by themselves and are told under another."""


def reaches(until: str, leg: str) -> bool:
    """Whether a run until one leg includes another."""
    return LEGS.index(until) >= LEGS.index(leg)


def walks_of(resolved: Resolved) -> dict[str, Walk]:
    """How far each corpus stands."""
    return {corpus: walk(resolved.store, chain) for corpus, chain in resolved.chains.items()}


def nodes_of(resolved: Resolved, walks: dict[str, Walk]) -> dict[str, list[Node]]:
    """Every node the recipe stands on, as far as it is known, by stage and in order.

    Of shards: those in use, and those the budget is expected to need. Of what stands on the corpora: all that
    is known once they stand.
    """
    shards: dict[str, dict[str, Node]] = {}
    for corpus, chain in resolved.chains.items():
        walked = walks[corpus]
        reached = len(walked.used)
        if not walked.filled:
            reached = chain.expected_shards(reached, walked.added)
        for shard in chain.shards[:reached]:
            for stage, node in shard.nodes.items():  # general shards may be both measured and replayed
                shards.setdefault(chain.stage_name(stage), {})[node.path] = node
    nodes = {stage: list(of_stage.values()) for stage, of_stage in shards.items()}
    if resolved.reference is not None:
        nodes[REFERENCE_STAGE] = reference_nodes(resolved, [node.path for node in nodes.get("packing", [])])
    corpora = corpus_nodes(resolved, walks[DOMAIN])
    nodes["corpus"] = corpora
    if replayed := replay_nodes(resolved, walks):
        nodes["general:corpus"] = replayed
    models = [base_model(resolved), *milestone_models(resolved, walks, corpora)]
    nodes["base"] = [models[0].node] if models[0].node else []
    nodes["training"] = [model.node for model in models[1:] if model.node]
    if len(models) == 1 + len(resolved.recipe.budget.milestones):
        units = [all_units(resolved, model, walks, corpora[0]) for model in models]
        nodes["evaluation"] = [unit for of_model in units for unit in of_model.values()]
        nodes["report"] = [report_node_of(resolved, walks, corpora)]
    return nodes


def save_record(resolved: Resolved, *, walks: dict[str, Walk] | None = None) -> None:
    """Write down what the recipe stands on.

    Args:
        resolved: the recipe on its store.
        walks: how far its corpora stand, from who has just looked; None: looked at here.
    """
    nodes = nodes_of(resolved, walks or walks_of(resolved))
    paths = {stage: [node.path for node in of_stage] for stage, of_stage in nodes.items()}
    if resolved.base_path is not None:
        paths["base"] = [resolved.base_path]
    if resolved.reference is not None and resolved.reference[1] is not None:
        paths["reference"] = [resolved.reference[1]]
    write_record(
        resolved.store,
        resolved.recipe,
        revisions=resolved.revisions,
        versions={node.stage: node.version for of_stage in nodes.values() for node in of_stage},
        nodes=paths,
    )


def outcome(resolved: Resolved, until: str, summary: JSON, *, walks: dict[str, Walk] | None = None) -> JSON:
    """The `run --json` object.

    Args:
        resolved: the recipe on its store.
        until: the leg that was asked for.
        summary: `made` (paths of the nodes made by this run), `failed` and `waiting` of a run that failed.
        walks: how far its corpora stand, from who has just looked; None: looked at here.
    """
    made = set(summary.get("made", []))
    walks = walks or walks_of(resolved)
    stages: JSON = {}
    for stage, used in stages_used(resolved, walks).items():
        stages[stage] = _told(used, made)
    corpora = corpus_nodes(resolved, walks[DOMAIN])
    found = [stands(resolved.store, node.path) for node in corpora]
    stages["corpus"] = _tally([m for m in found if m], made)
    if replayed := replay_nodes(resolved, walks):
        general = {node.path: stands(resolved.store, node.path) for node in replayed}
        stages["general:corpus"] = _tally([m for m in general.values() if m], made)
    milestones = [
        {
            "budget": node.reads["budget"],
            "tokens": node.config["sequences"] * resolved.recipe.packing.sequence_length,
            "sequences": node.config["sequences"],
            "corpus": resolved.store.address(node.path),
            "checkpoint": None,
            "scores": None,
        }
        for node, manifest in zip(corpora, found, strict=True)
        if manifest
    ]
    for milestone, told in zip(milestones, replay_told(resolved, walks), strict=False):
        milestone["replay"] = told
    done: JSON = {"recipe": resolved.recipe.name, "stages": stages, "milestones": milestones, "base": None}
    done |= {"failed": summary.get("failed", []), "report": None}
    if milestones and len(milestones) == len(corpora):
        _add_models(resolved, until, walks, done, made)
    _add_failures(stages, summary)
    return done


@dataclass(slots=True)
class Used:
    """What a recipe uses of one data stage, by path, and what is told under it."""

    manifests: dict[str, Manifest] = field(default_factory=dict)
    beside: dict[str, Manifest] = field(default_factory=dict)


def stages_used(resolved: Resolved, walks: dict[str, Walk]) -> dict[str, Used]:
    """The shards in use of each data stage; one that is measured and replayed counts once."""
    found: dict[str, Used] = {}
    for corpus, chain in resolved.chains.items():
        for stage in chain.shards[0].nodes if chain.shards else []:
            if stage not in TOLD_UNDER:
                found.setdefault(chain.stage_name(stage), Used())
        for shard in walks[corpus].used:
            for stage, manifest in shard.items():
                used = found.get(chain.stage_name(TOLD_UNDER.get(stage, stage)))
                if used is not None:  # adopted tokens have a tokenizer and no tokenization to tell it under
                    (used.beside if stage in TOLD_UNDER else used.manifests)[manifest.path] = manifest
    return found


def _told(used: Used, made: set[str]) -> JSON:
    """One data stage's entry, with the time of what is told under it."""
    tally = _tally(used.manifests.values(), made)
    for manifest in used.beside.values():
        tally["seconds"] = round(tally["seconds"] + manifest.seconds, 3)
        tally["peak_rss_bytes"] = max(tally["peak_rss_bytes"], manifest.peak_rss_bytes)
    counts = [m.details["contaminated"] for m in used.manifests.values() if "contaminated" in m.details]
    if counts:
        tally["contaminated"] = dict(sum(map(Counter, counts), Counter[str]()))
    return tally


def _tally(manifests: Iterable[Manifest], made: set[str]) -> JSON:
    """One stage's entry."""
    all_of = list(manifests)
    computed = sum(m.path in made for m in all_of)
    dropped: Counter[str] = Counter()
    for manifest in all_of:
        dropped.update(manifest.dropped)
    return {
        "hit": len(all_of) - computed,
        "computed": computed,
        "failed": 0,
        "waiting": 0,
        "seconds": round(sum(m.seconds for m in all_of), 3),
        "peak_rss_bytes": max((_peak(m) for m in all_of), default=0),
        "documents_in": sum(m.documents_in for m in all_of),
        "documents_out": sum(m.documents_out for m in all_of),
        "dropped": dict(dropped),
        "tokens": sum(m.tokens for m in all_of),
    }


def dropped_told(manifests: Iterable[Manifest]) -> Counter[str]:
    """How many documents a stage dropped, by reason; for people those that benchmarks share by benchmark."""
    dropped: Counter[str] = Counter()
    for manifest in manifests:
        reasons = dict(manifest.dropped)
        if reasons.pop("contaminated", 0):
            by_benchmark = manifest.details["contaminated"].items()
            reasons |= {f"contaminated ({benchmark})": count for benchmark, count in by_benchmark}
        dropped.update(reasons)
    return dropped


def _peak(manifest: Manifest) -> int:
    """The most memory that one process of a stage held: of a training, its largest rank."""
    return int(manifest.details.get("ranks_peak_rss_bytes", manifest.peak_rss_bytes))


def _add_failures(stages: JSON, summary: JSON) -> None:
    for key in ("failed", "waiting"):
        for entry in summary.get(key, []):
            stages.setdefault(entry["stage"], _tally([], set()))[key] += 1


def _add_models(resolved: Resolved, until: str, walks: dict[str, Walk], done: JSON, made: set[str]) -> None:
    """Trainings, evaluations and the report, as far as they were asked for and stand."""
    corpora = corpus_nodes(resolved, walks[DOMAIN])
    models = [base_model(resolved), *milestone_models(resolved, walks, corpora)]
    trained: list[Manifest] = []
    measured: list[Manifest] = []
    for model in models if reaches(until, "train") else []:
        manifest = stands(resolved.store, model.node.path) if model.node else None
        entry = done["milestones"][models.index(model) - 1] if model.label != "base" else None
        if manifest:
            trained.append(manifest)
            if entry is not None:
                entry["checkpoint"] = resolved.store.address(manifest.path)
        if reaches(until, "evaluate") and (manifest or model.node is None):
            of_model = evaluation_nodes(resolved, model, walks, corpora[0])
            scores, units = scores_of(resolved, of_model)
            others = units_without_score(resolved, model, of_model).values()
            measured += units + [m for unit in others if (m := stands(resolved.store, unit.path))]
            if entry is not None:
                entry["scores"] = scores
            else:
                done["base"] = scores
    if reaches(until, "train"):
        packed = [shard["path"] for shard in corpora[-1].reads["shards"]]
        scored = [stands(resolved.store, node.path) for node in reference_nodes(resolved, packed)]
        if scored:
            done["stages"][REFERENCE_STAGE] = _tally([m for m in scored if m], made)
        done["stages"]["training"] = _tally(trained, made)
        trained_now = sum(m.tokens for m in trained if m.path in made)
        done["stages"]["training"]["tokens"] = trained_now
    if reaches(until, "evaluate"):
        done["stages"]["evaluation"] = _tally(measured, made)
    if reaches(until, "report"):
        manifest = stands(resolved.store, report_node_of(resolved, walks, corpora).path)
        done["stages"]["report"] = _tally([manifest] if manifest else [], made)
        done["report"] = f"{resolved.store.address(manifest.path)}/report.html" if manifest else None


def scores_of(resolved: Resolved, units: dict[str, Node]) -> tuple[JSON, list[Manifest]]:
    """The scores of a model that stand, and their manifests."""
    scores: JSON = {BITS: {}}
    found: list[Manifest] = []
    for name, unit in units.items():
        manifest = stands(resolved.store, unit.path)
        if manifest is None:
            continue
        found.append(manifest)
        kind, _, corpus = name.partition(".")
        if kind == BITS and corpus:
            scores[BITS][corpus] = manifest.details["bits_per_byte"]
        else:
            scores[name] = manifest.details
    return scores, found
