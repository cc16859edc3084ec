"""Promise: the graph changes on purpose alone: its flows, tasks, nodes and edges are in a golden file."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from flows.chain import DOMAIN, Walk, room_of
from flows.milestones import all_units, base_model, corpus_nodes, milestone_models, report_node_of
from flows.recipe import load_recipe
from flows.resolve import Resolved, resolve
from tasks.settings import Settings
from tasks.store.json import JSON
from tasks.store.node import Node
from tests.contracts.world import LARGE, SMALL, World

pytestmark = pytest.mark.flow


def all_nodes(resolved: Resolved) -> dict[str, Node]:
    """Every node of a recipe by a name, as if each shard filled a third of the large budget."""
    found: dict[str, Node] = {}
    walks = {}
    for corpus, chain in resolved.chains.items():
        amounts = [chain.target // 3 + 1] * 3
        walks[corpus] = Walk([{}, {}, {}], amounts, filled=True)
        for shard in chain.shards[:2]:
            for stage, node in shard.nodes.items():
                found[f"{chain.stage_name(stage)} {shard.position}"] = node
    corpora = corpus_nodes(resolved, walks[DOMAIN])
    found |= {f"corpus {number}": node for number, node in enumerate(corpora)}
    models = [base_model(resolved), *milestone_models(resolved, walks, corpora)]
    for number, model in enumerate(models):
        name = f"training {number - 1}" if number else "training base"
        if model.node:
            found[name] = model.node
        for unit, node in all_units(resolved, model, walks, corpora[0]).items():
            found[f"evaluation of {name}: {unit}"] = node
    found["report"] = report_node_of(resolved, walks, corpora)
    return found


def test_flows_tasks_nodes_and_edges_are_those_of_the_golden_file(
    offline_world: World, tmp_path: Path, golden: Callable[[str, Any], None]
) -> None:
    from flows import adapt, corpus, gpu, report
    from flows.outcome import LEGS

    recipe = offline_world.recipe(
        "graph",
        budgets=[SMALL, LARGE],
        general={"files": [str(offline_world.sources / "part-3.jsonl")]},
        evaluation={"benchmarks": ["piqa"]},
    )
    resolved = resolve(load_recipe(recipe), Settings(store=str(tmp_path)))
    nodes = all_nodes(resolved)
    names: dict[str, str] = {}
    for name, node in nodes.items():
        names.setdefault(node.fingerprint, name)
    edges: JSON = {
        name: sorted({names.get(value, f"({key})") for key, value in node.inputs.items()})
        for name, node in nodes.items()
    }
    flows = (
        adapt.adapt,
        corpus.build_corpus,
        gpu.train_model,
        gpu.evaluate_model,
        report.write_recipe_report,
    )
    tasks = [*corpus.TASKS.values(), corpus.commit_corpus, gpu.make_base, gpu.train_milestone]
    tasks += [gpu.evaluate_benchmark, gpu.evaluate_held_out, gpu.write_samples]
    golden(
        "graph",
        {
            "legs": list(LEGS),
            "flows": [flow.name for flow in flows],
            "tasks": [f"{task.name} {sorted(task.tags)}" for task in tasks],
            "in order": sorted(corpus.IN_ORDER),
            "rooms": {node.stage: room_of(node.stage) for node in nodes.values()},
            "edges": edges,
        },
    )
