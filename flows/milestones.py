"""What stands on the corpora: the base, a model a milestone, and what is measured on each.

Their fingerprints are known once the corpora stand; until then there is a number of them and no identity.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import tasks.packing.config as packing
import tasks.training.config as training
from flows.chain import DOMAIN, GENERAL, REPLAY, Walk
from flows.resolve import Resolved
from tasks.evaluation.config import (
    SAMPLES,
    EvaluatedModel,
    at_step,
    benchmark_node,
    held_out_node,
    samples_node,
)
from tasks.report.config import report_node
from tasks.store.node import Node
from tasks.store.tokens import format_tokens
from tasks.tokenization.config import trained_tokenizer_of
from tasks.training.config import Files, at_folder, reference_node
from tasks.training.replay import Replay
from tasks.training.schedule import Schedule

BITS = "bits_per_byte"


@dataclass(frozen=True, slots=True)
class Model:
    """The base, or the model of a milestone."""

    label: str
    """`base`, or the milestone as people write it."""
    node: Node | None
    """None: a base with weights of its own, which nobody makes here."""
    files: Files


def corpus_nodes(resolved: Resolved, domain: Walk) -> list[Node]:
    """The corpora of the milestones that the whole shards fill, smallest first."""
    chain = resolved.chains[DOMAIN]
    packed = [
        (shard.nodes["packing"], rows) for shard, rows in zip(chain.shards, domain.amounts, strict=False)
    ]
    reached = [
        budget
        for budget, sequences in zip(
            resolved.recipe.budget.milestones, resolved.recipe.sequences, strict=True
        )
        if sequences <= sum(domain.amounts)
    ]
    return [packing.corpus_node(packed, config=resolved.recipe.packing, budget=budget) for budget in reached]


def replay_nodes(resolved: Resolved, walks: dict[str, Walk]) -> list[Node]:
    """The general corpora that the milestones replay, smallest first, as far as their rows are known.

    Where the sources hold fewer rows than a milestone replays, all of them: it sees them again.
    """
    if REPLAY not in walks:
        return []
    chain, walked = resolved.chains[REPLAY], walks[REPLAY]
    packed = [
        (shard.nodes["packing"], rows) for shard, rows in zip(chain.shards, walked.amounts, strict=False)
    ]
    config = resolved.recipe.packing
    held = [min(needed, walked.added) for needed in resolved.recipe.replayed]
    known = [
        rows
        for rows, needed in zip(held, resolved.recipe.replayed, strict=True)
        if rows == needed or walked.filled
    ]
    return [
        packing.corpus_node(packed, config=config, budget=rows * config.sequence_length) for rows in known
    ]


def tokenizer_node(resolved: Resolved) -> Node:
    """The tokenizer that models are saved and measured with."""
    return resolved.chains[DOMAIN].shards[0].nodes["tokenizer"]


def base_model(resolved: Resolved) -> Model:
    """The model that training starts from; a node where a config without weights is initialised here."""
    base = resolved.base
    if resolved.base_path is not None:
        return Model("base", None, Files(base.model_digest, {"node": resolved.base_path}))
    given = Files.of_base(base)
    if base.has_weights:
        return Model("base", None, given)
    made = training.base_node(
        seed=resolved.recipe.seed, model=given, tokenizer=Files.of_node(tokenizer_node(resolved))
    )
    return Model("base", made, Files.of_node(made))


def reference_nodes(resolved: Resolved, packed: Iterable[str]) -> list[Node]:
    """The reference's losses of packed shards, by their paths; none where no tokens are selected."""
    if resolved.reference is None:
        return []
    files, path = resolved.reference
    config = resolved.recipe.training
    return [
        reference_node(
            shard,
            model=files.model_digest,
            reads={"node": path} if path else Files.of_base(files).reads,
            precision=config.precision,
            document_mask=config.document_mask,
        )
        for shard in packed
    ]


def milestone_models(resolved: Resolved, walks: dict[str, Walk], corpora: list[Node]) -> list[Model]:
    """The model of each milestone whose corpus is known, and the general one that it replays."""
    replayed, fraction = replay_nodes(resolved, walks), resolved.recipe.replay_fraction
    base, tokenizer = base_model(resolved), Files.of_node(tokenizer_node(resolved))
    extends = resolved.recipe.training.continuation == "extend"
    found: list[Model] = []
    for number, corpus in enumerate(corpora[: len(replayed)] if fraction else corpora):
        node = training.node(
            resolved.recipe.training,
            seed=resolved.recipe.seed,
            base=base.files,
            tokenizer=tokenizer,
            corpora=corpora[: number + 1],
            previous=found[-1].node if found and extends else None,
            replay_fraction=fraction,
            replayed=replayed[: number + 1],
            references=reference_nodes(resolved, [shard["path"] for shard in corpus.reads["shards"]]),
        )
        found.append(Model(format_tokens(corpus.reads["budget"]), node, Files.of_node(node)))
    return found


def evaluation_nodes(
    resolved: Resolved, model: Model, walks: dict[str, Walk], first_corpus: Node
) -> dict[str, Node]:
    """What is measured on one model, by name: benchmarks, and `bits_per_byte.domain` and `.general`.

    The domain's slice lies within the first milestone's shards, so that base and all milestones are compared
    on the same documents. Adopted tokens have no text, so no domain slice.
    """
    recipe, tokenizer = resolved.recipe, tokenizer_node(resolved)
    eos_id = (resolved.tokenizer or trained_tokenizer_of(tokenizer)).eos_id
    evaluated = EvaluatedModel(
        digest=model.files.identity,
        address=model.files.reads,
        tokenizer_digest=tokenizer.fingerprint,
        tokenizer_address={"node": tokenizer.path},
        eos_id=eos_id,
    )
    found = {
        name: benchmark_node(recipe.evaluation, name, evaluated) for name in recipe.evaluation.benchmarks
    }
    if not recipe.held_out.fraction:
        return found
    used = {}
    if resolved.chains[DOMAIN].has_text:
        used[DOMAIN] = len(first_corpus.reads["shards"])
    if GENERAL in walks:
        used[GENERAL] = len(walks[GENERAL].used)
    for corpus, num_shards in used.items():
        shards = resolved.chains[corpus].shards[:num_shards]
        found[f"{BITS}.{corpus}"] = held_out_node(
            evaluated,
            [(shard.nodes["download"], shard.nodes["dedup"]) for shard in shards],
            max_documents=recipe.held_out.max_documents,
            context=recipe.packing.sequence_length,
        )
    return found


def all_units(
    resolved: Resolved, model: Model, walks: dict[str, Walk], first_corpus: Node
) -> dict[str, Node]:
    """All that is made of a model: `evaluation_nodes`, and what gives no score."""
    found = evaluation_nodes(resolved, model, walks, first_corpus)
    return found | units_without_score(resolved, model, found)


def units_without_score(resolved: Resolved, model: Model, units: Mapping[str, Node]) -> dict[str, Node]:
    """What is made of a model beside its scores.

    A milestone's slices at the steps of `eval_at` (`bits_per_byte.domain at step 12`), and `samples` where
    there is a domain slice.

    Args:
        resolved: the recipe on its store.
        model: whose training kept the weights of those steps; the base has none.
        units: its `evaluation_nodes`.
    """
    found: dict[str, Node] = {}
    kept = [] if model.label == "base" else kept_steps(resolved, model.label)
    for step in kept:
        for metric, unit in units.items():
            if metric.startswith(f"{BITS}."):
                found[name_at(metric, step)] = at_step(unit, step, inside=at_folder(step))
    of_domain = units.get(f"{BITS}.{DOMAIN}")
    return found | ({SAMPLES: samples_node(of_domain)} if of_domain else {})


def name_at(metric: str, step: int) -> str:
    """What a metric is called that is measured on the weights of a step."""
    return f"{metric} at step {step}"


def kept_steps(resolved: Resolved, label: str) -> list[int]:
    """The steps whose weights a milestone's training keeps, by the milestone as people write it."""
    return schedule_of(resolved, label).kept(resolved.recipe.training.eval_at)


def schedule_of(resolved: Resolved, label: str) -> Schedule:
    """Of a milestone's training, by the milestone as people write it."""
    recipe = resolved.recipe
    number = [format_tokens(budget) for budget in recipe.budget.milestones].index(label)
    return Schedule.of(recipe.training, tuple(recipe.sequences[: number + 1]), Replay(recipe.replay_fraction))


def report_node_of(
    resolved: Resolved,
    walks: dict[str, Walk],
    corpora: list[Node],
    units: Mapping[str, dict[str, Node]] | None = None,
) -> Node:
    """The report of a recipe whose corpora all stand: told by all that it tells of.

    Args:
        resolved: the recipe on its store.
        walks: how far its corpora stand.
        corpora: of all milestones.
        units: `all_units` by the model's label, from who has them: each names every shard.
    """
    inputs: dict[str, str] = {}
    for corpus in corpora:
        inputs[f"corpus {corpus.reads['budget']}"] = corpus.fingerprint
    for model in [base_model(resolved), *milestone_models(resolved, walks, corpora)]:
        inputs[f"model {model.label}"] = model.files.identity
        measured = units[model.label] if units else all_units(resolved, model, walks, corpora[0])
        for name, unit in measured.items():
            inputs[f"{model.label} {name}"] = unit.fingerprint
    return report_node(resolved.recipe.name, resolved.recipe.digest, inputs)
