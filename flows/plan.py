"""`dapt plan`: what a run would do, told before anything runs, without Prefect, without changing data.

Each node is a HIT (it stands), a DRIFT (it stands, and its room's code changed since while its VERSION did
not) or a MISS, with the reason. The nodes of source shards are known; how many shards fill the budget is an
estimate until they are packed, and what stands on the corpora has no fingerprint until those stand.
"""

from collections import Counter, defaultdict
from dataclasses import dataclass, field

from flows.chain import DOMAIN, REPLAY, Chain, Walk, room_of
from flows.milestones import (
    Model,
    all_units,
    base_model,
    corpus_nodes,
    kept_steps,
    milestone_models,
    name_at,
    replay_nodes,
    report_node_of,
)
from flows.outcome import nodes_of, reaches, walks_of
from flows.reasons import Reasons
from flows.replay import replay_told
from flows.resolve import Resolved
from flows.standing import standing
from tasks.evaluation.config import SAMPLES
from tasks.store.fingerprint import source_hash
from tasks.store.json import JSON
from tasks.store.manifest import Manifest, stands
from tasks.store.node import Node
from tasks.store.tokens import format_tokens
from tasks.training.config import REFERENCE_STAGE
from tasks.training.memory import estimate_memory, parameter_count
from tasks.training.strategy import candidates, named, profile_needs

_SECONDS_PER_MB = {
    "download": 0.02,
    "filtering": 0.05,
    "signatures": 0.04,
    "contamination": 0.02,
    "dedup": 0.02,
    "tokenization": 0.7,
    "packing": 0.02,
}
"""Before a stage was ever measured on this store: of one core of a small machine."""
_DISK_PER_BYTE = 1.1
"""Bytes the store takes for a byte of text: the text once (zstd), signatures, ids and packed rows."""
_MODEL_BYTES = {"restart": 20, "extend": 32}
"""Of a parameter: the model and the checkpoints of its training; and the state that a larger one extends."""
_KEPT_BYTES = 8
"""Of a parameter, for each step of `eval_at` on the way: fp32 while it trains, and the model made of it."""
_CPU_FLOPS = 2e10
_GPU_FLOPS = 2e14
_EVALUATION_S = 30.0
_REFERENCE_BYTES = 3
"""Of a token whose loss under the reference is kept."""


@dataclass(slots=True)
class _Draft:
    """A plan being drawn up."""

    resolved: Resolved
    reasons: Reasons
    nodes: list[JSON] = field(default_factory=list)
    told: set[str] = field(default_factory=set)
    """Paths of shards' nodes: general shards may be both measured and replayed."""
    drifts: dict[tuple[str, str], tuple[str, str]] = field(default_factory=dict)
    bytes_to_read: int = 0
    tokens_to_make: float = 0.0
    seconds: float = 0.0
    disk_bytes: float = 0.0

    def _drift(self, manifest: Manifest) -> tuple[str, str]:
        """State and reason of a node that stands."""
        found = self.drifts.get((manifest.stage, manifest.drift))
        if found is None:
            room = room_of(manifest.stage)
            found = ("HIT", "")
            if manifest.drift != source_hash(room):
                found = ("DRIFT", f"the code of {room} changed since, its VERSION did not")
            self.drifts[manifest.stage, manifest.drift] = found
        return found

    def look(self, node: Node | None) -> Manifest | None:
        """The manifest of a node that is known and stands."""
        return stands(self.resolved.store, node.path) if node else None

    def add(
        self,
        node: Node | None,
        manifest: Manifest | None,
        stage: str,
        shard: str,
        position: int,
        *,
        estimated: bool,
        upstream: list[tuple[str, str]],
    ) -> None:
        """Tell one node; it stands when it has a manifest."""
        state, reason = "MISS", ""
        if manifest is not None:
            state, reason = self._drift(manifest)
        elif node is not None:
            reason = self.reasons.why(node, stage, position, upstream)
            upstream.append((stage, reason))
        else:
            reason = "stands on a corpus that is not built yet"
        self.nodes.append(
            {
                "stage": stage,
                "shard": shard,
                "fingerprint": node.fingerprint if node else None,
                "state": state,
                "reason": reason,
                "estimated": estimated,
            }
        )


def make_plan(resolved: Resolved, until: str = "report", *, walks: dict[str, Walk] | None = None) -> JSON:
    """Draw up the plan of a recipe.

    Args:
        resolved: the recipe on its store.
        until: the leg that is asked for.
        walks: how far its corpora stand, from who has just looked; None: looked at here.

    Returns:
        The `plan --json` object.
    """
    draft = _Draft(resolved, Reasons(resolved.store, resolved.recipe, resolved.records))
    walks = walks or walks_of(resolved)
    for corpus, chain in resolved.chains.items():
        _add_shards(draft, chain, walks[corpus])
    draft.seconds /= min(resolved.settings.workers, max(1, len(draft.nodes)))
    _add_models(draft, walks, until)
    states = Counter(node["state"] for node in draft.nodes)
    replayed = replay_told(resolved, walks)
    return {
        "recipe": resolved.recipe.name,
        "nodes": draft.nodes,
        **({"replay": replayed} if replayed else {}),
        "totals": {
            "hit": states["HIT"] + states["DRIFT"],
            "miss": states["MISS"],
            "bytes_to_read": draft.bytes_to_read,
            "tokens_to_make": round(draft.tokens_to_make),
            "seconds": round(draft.seconds, 1),
            "disk_bytes": round(draft.disk_bytes),
        },
        "memory": _memory(resolved),
    }


def _add_shards(draft: _Draft, chain: Chain, walked: Walk) -> None:
    """The nodes of the shards that the target is expected to need, and of all others that stand."""
    whole, added = len(walked.used), walked.added
    expected = chain.expected_shards(whole, added)
    sequences_per_byte = chain.rate(whole, added)
    rates = _Rates()
    length = draft.resolved.recipe.packing.sequence_length
    for shard in chain.shards:
        known = shard.position < whole
        manifests = walked.used[shard.position] if known else standing(draft.resolved.store, shard)
        nodes = shard.nodes
        if shard.position >= expected:  # of these only what stands is told, nothing is to be made
            nodes = {stage: node for stage, node in nodes.items() if stage in manifests}
            if not nodes:
                break
        upstream: list[tuple[str, str]] = []
        name = shard.name
        for stage, node in nodes.items():
            manifest = manifests.get(stage)
            if node.path in draft.told:
                continue
            draft.told.add(node.path)
            draft.add(
                node,
                manifest,
                chain.stage_name(stage),
                name,
                shard.position,
                estimated=not known,
                upstream=upstream,
            )
            if manifest:
                rates.learn(stage, manifest, shard.text_bytes)
                continue
            draft.seconds += rates.seconds(stage, shard.text_bytes)
            if stage == "download" or "adopted" in node.config:
                draft.bytes_to_read += shard.read_bytes
                draft.disk_bytes += shard.text_bytes * _DISK_PER_BYTE
            if stage == "packing":
                draft.tokens_to_make += length * sequences_per_byte * shard.text_bytes


class _Rates:
    """Seconds a byte of each stage, from the manifests that stand."""

    def __init__(self) -> None:
        self._seconds: defaultdict[str, float] = defaultdict(float)
        self._bytes: defaultdict[str, int] = defaultdict(int)

    def learn(self, stage: str, manifest: Manifest, text_bytes: int) -> None:
        self._seconds[stage] += manifest.seconds
        self._bytes[stage] += text_bytes

    def seconds(self, stage: str, text_bytes: int) -> float:
        if self._bytes[stage]:
            return self._seconds[stage] / self._bytes[stage] * text_bytes
        return _SECONDS_PER_MB.get(stage, 0.0) * text_bytes / 1e6


def _add_models(draft: _Draft, walks: dict[str, Walk], until: str) -> None:
    """Corpora, trainings, evaluations and the report."""
    resolved, recipe = draft.resolved, draft.resolved.recipe
    corpora = corpus_nodes(resolved, walks[DOMAIN])
    labels = [format_tokens(budget) for budget in recipe.budget.milestones]
    known: list[Node | None] = [*corpora, *[None] * (len(labels) - len(corpora))]
    for number, (label, corpus) in enumerate(zip(labels, known, strict=True)):
        draft.add(corpus, draft.look(corpus), "corpus", label, number, estimated=corpus is None, upstream=[])
    _add_replayed(draft, walks, labels)
    if not reaches(until, "train"):
        return
    models = {
        model.label: model for model in [base_model(resolved), *milestone_models(resolved, walks, corpora)]
    }
    base = models["base"].node
    if base is not None:
        found = draft.look(base)
        draft.add(base, found, "training", "base", 0, estimated=False, upstream=[])
        draft.seconds += _EVALUATION_S if found is None else 0
    _add_references(draft, walks)
    for number, label in enumerate(labels):
        model = models[label].node if label in models else None
        found = draft.look(model)
        draft.add(model, found, "training", label, number, estimated=model is None, upstream=[])
        if found is None:
            extends = number > 0 and recipe.training.continuation == "extend"
            before = recipe.sequences[number - 1] if extends else 0
            trained = recipe.trained(recipe.sequences[number]) - recipe.trained(before)
            draft.seconds += _training_seconds(resolved, trained)
            kept = len(kept_steps(resolved, label))
            a_parameter = _MODEL_BYTES[recipe.training.continuation] + _KEPT_BYTES * kept
            draft.disk_bytes += a_parameter * parameter_count(resolved.base.config)
    if not reaches(until, "evaluate"):
        return
    measured = _add_evaluations(draft, walks, models, corpora, ["base", *labels])
    if reaches(until, "report"):
        whole = len(models) == 1 + len(labels)
        report = report_node_of(resolved, walks, corpora, measured) if whole else None
        found = draft.look(report)
        draft.add(report, found, "report", recipe.name, 0, estimated=report is None, upstream=[])


def _add_replayed(draft: _Draft, walks: dict[str, Walk], labels: list[str]) -> None:
    """The general corpora that trainings replay."""
    if REPLAY not in walks:
        return
    nodes = replay_nodes(draft.resolved, walks)
    known: list[Node | None] = [*nodes, *[None] * (len(labels) - len(nodes))]
    for number, (label, node) in enumerate(zip(labels, known, strict=True)):
        found, estimated = draft.look(node), node is None
        draft.add(node, found, "general:corpus", label, number, estimated=estimated, upstream=[])


def _add_references(draft: _Draft, walks: dict[str, Walk]) -> None:
    """The reference's losses of each shard, where tokens are selected."""
    resolved, walked = draft.resolved, walks[DOMAIN]
    if resolved.reference is None:
        return
    model = resolved.reference[0].config
    chain, whole = resolved.chains[DOMAIN], len(walked.used)
    rate, length = chain.rate(whole, walked.added), resolved.recipe.packing.sequence_length
    for position, node in enumerate(nodes_of(resolved, walks)[REFERENCE_STAGE]):
        found, known = draft.look(node), position < whole
        shard = f"{position:05d}"
        draft.add(node, found, REFERENCE_STAGE, shard, position, estimated=not known, upstream=[])
        if found is None:
            rows = walked.amounts[position] if known else rate * chain.shards[position].text_bytes
            draft.seconds += _passes_s(resolved, rows * length, model, passes=1)
            draft.disk_bytes += _REFERENCE_BYTES * rows * length


def _add_evaluations(
    draft: _Draft, walks: dict[str, Walk], models: dict[str, Model], corpora: list[Node], labels: list[str]
) -> dict[str, dict[str, Node]]:
    """What is measured on each model that is known."""
    known: dict[str, dict[str, Node]] = {}
    resolved, recipe = draft.resolved, draft.resolved.recipe
    position = 0
    for label in labels:
        units: dict[str, Node | None]
        if label in models and corpora:
            known[label] = all_units(resolved, models[label], walks, corpora[0])
            units = {**known[label]}
        else:
            names = list(recipe.evaluation.benchmarks)
            chains = resolved.chains.items()
            measured = [corpus for corpus, chain in chains if chain.has_text and corpus != REPLAY]
            slices = [f"bits_per_byte.{corpus}" for corpus in measured] if recipe.held_out.fraction else []
            kept = [] if label == "base" else kept_steps(resolved, label)
            names += slices + [name_at(name, step) for step in kept for name in slices]
            names += [SAMPLES] if slices and DOMAIN in measured else []
            units = dict.fromkeys(names, None)
        for name, unit in units.items():
            found = draft.look(unit)
            draft.add(
                unit, found, "evaluation", f"{label} {name}", position, estimated=unit is None, upstream=[]
            )
            draft.seconds += _EVALUATION_S if found is None else 0
            position += 1
    return known


def _training_seconds(resolved: Resolved, sequences: int) -> float:
    """By its passes through the model, one more where tokens are selected: a guess."""
    tokens = sequences * resolved.recipe.packing.sequence_length
    config = resolved.recipe.training
    passes = 3 + config.gradient_checkpointing + (config.selective is not None)
    seconds = _passes_s(resolved, tokens, resolved.base.config, passes=passes)
    return 10 + seconds / resolved.settings.all_ranks


def _passes_s(resolved: Resolved, tokens: float, model: JSON, *, passes: int) -> float:
    """Of one device: a pass through a model of N parameters takes 2 N operations a token."""
    flops = _GPU_FLOPS if resolved.settings.has_gpu else _CPU_FLOPS
    return passes * 2 * parameter_count(model) * tokens / flops


def _memory(resolved: Resolved) -> JSON:
    """What a rank needs: of "auto" the cheapest it may come to, and each; and what the profiles need."""
    recipe, ranks = resolved.recipe, resolved.settings.all_ranks
    model, length = resolved.base.config, recipe.packing.sequence_length
    needs = [
        {"strategy": named(one), **estimate_memory(model, one, length, ranks)}
        for one in candidates(recipe.training, ranks)
    ]
    auto = {"auto": needs} if recipe.training.zero_stage == "auto" else {}
    return {**needs[0], **auto, "profiles": profile_needs(model, recipe.training, length, ranks)}
