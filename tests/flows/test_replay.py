"""General text that is replayed: what is packed of it, what is told, and what stays as it was."""

import io
import shutil
from collections import Counter
from functools import partial
from pathlib import Path

import pyarrow.compute as pc
import pytest
from rich.console import Console

from flows.chain import DOMAIN, GENERAL, REPLAY
from flows.gc import collect
from flows.lineage import documents_of_step, lineage
from flows.milestones import base_model, corpus_nodes, evaluation_nodes, milestone_models, replay_nodes
from flows.outcome import outcome, walks_of
from flows.plan import make_plan
from flows.resolve import Resolved
from tasks.evaluation.config import items_node
from tasks.store.json import JSON
from tasks.store.manifest import read_manifest
from tasks.store.node import Node
from tasks.store.shard import read_table
from tests.flows.commands import Api, Done, dapt
from tests.flows.made import make_corpora
from tests.flows.test_plan import checked, reasons, shown
from tests.flows.world import World, documents, write_jsonl

TENTH = "general.replay_fraction=0.1"
QUARTER = "general.replay_fraction=0.25"
"""Of 79 and 172 sequences of the domain: 8 and 19 general ones, 26 and 57."""
QUIET = Console(file=io.StringIO())
SMALL = 'budget.milestones=["5K"]'


def write_general(world: World, *counts: int) -> World:
    """General text in a shard for each count of documents, about three sequences a document."""
    for number, count in enumerate(counts):
        write_jsonl(world.folder / "general" / f"{number}.jsonl", documents(9000 + 100 * number, count))
    text_bytes = (world.folder / "general" / "0.jsonl").stat().st_size
    recipe = world.recipe.read_text().replace("[general]\n", f"[general]\nshard_bytes = {text_bytes}\n")
    world.recipe.write_text(recipe)
    return world


@pytest.fixture(scope="module")
def replaying(given: World, tmp_path_factory: pytest.TempPathFactory) -> World:
    """A world whose corpora stand for a quarter of general text, which its sources hold."""
    world = World(shutil.copytree(given.folder, tmp_path_factory.mktemp("replaying") / "world"))
    make_corpora(write_general(world, 10, 10, 10).resolve(QUARTER))
    return world


def trainings(resolved: Resolved) -> list[Node]:
    walks = walks_of(resolved)
    models = milestone_models(resolved, walks, corpus_nodes(resolved, walks[DOMAIN]))
    return [model.node for model in models if model.node]


def test_the_second_general_chain_goes_on_from_the_first_s_nodes(replaying: World) -> None:
    chains = replaying.resolve(QUARTER).chains
    assert list(chains) == [DOMAIN, GENERAL, REPLAY]
    for measured, replayed in zip(chains[GENERAL].shards, chains[REPLAY].shards, strict=True):
        stages = list(replayed.nodes)
        assert stages == ["download", "filtering", "signatures", "dedup", "tokenization", "packing"]
        assert all(replayed.nodes[stage] == node for stage, node in measured.nodes.items())
        domain = chains[DOMAIN].shards[1].nodes["tokenization"].inputs
        assert replayed.nodes["tokenization"].inputs["tokenizer"] == domain["tokenizer"]


def test_a_tokenizer_trained_on_the_domain_reads_the_replayed_text_too(given: World) -> None:
    chains = given.resolve(TENTH, "tokenization.train_vocab_size=300").chains
    tokenizer = chains[DOMAIN].shards[0].nodes["tokenizer"].fingerprint
    inputs = chains[REPLAY].shards[0].nodes["tokenization"].inputs
    assert inputs["tokenizer"] == tokenizer
    assert "tokenizer" not in chains[REPLAY].shards[0].nodes


def test_what_is_replayed_is_looked_at_for_benchmarks_where_the_domain_is(given: World) -> None:
    looked = ("dedup.decontaminate=drop", "evaluation.benchmarks=['piqa']")
    plain, replayed = given.resolve(*looked).chains, given.resolve(TENTH, *looked).chains
    assert "contamination" not in plain[GENERAL].shards[0].nodes
    benchmarks = items_node(given.load(*looked).evaluation).fingerprint
    for corpus in (GENERAL, REPLAY):
        nodes = replayed[corpus].shards[0].nodes
        assert nodes["contamination"].inputs["benchmarks"] == benchmarks
        assert nodes["dedup"].inputs["contamination"] == nodes["contamination"].fingerprint
    assert [s.nodes for s in plain[DOMAIN].shards] == [s.nodes for s in replayed[DOMAIN].shards]


def test_without_replay_everything_is_called_as_before_and_with_it_only_trainings_change(
    replaying: World,
) -> None:
    plain, mixed = replaying.resolve(), replaying.resolve(QUARTER)
    assert [node.fingerprint for node in trainings(plain)] != [n.fingerprint for n in trainings(mixed)]
    for node in trainings(plain):
        assert not [name for name in (*node.inputs, *node.config) if name.startswith("repla")]
    measured = [
        {
            name: unit.fingerprint
            for name, unit in evaluation_nodes(r, base_model(r), w, corpus_nodes(r, w[DOMAIN])[0]).items()
        }
        for r, w in ((plain, walks_of(plain)), (mixed, walks_of(mixed)))
    ]
    assert measured[0] == measured[1]
    assert set(measured[0]) == {"bits_per_byte.domain", "bits_per_byte.general"}


def test_as_much_is_packed_as_the_largest_milestone_replays_and_nothing_held_out(replaying: World) -> None:
    resolved = replaying.resolve(QUARTER)
    walks = walks_of(resolved)
    small, large = replay_nodes(resolved, walks)
    assert [node.config["sequences"] for node in (small, large)] == [26, 57]
    amounts = walks[REPLAY].amounts
    assert sum(amounts[:-1]) < 57 <= sum(amounts)
    assert large.reads["shards"][: len(small.reads["shards"]) - 1] == small.reads["shards"][:-1]
    kept, held = set[str](), set[str]()
    for shard in resolved.chains[REPLAY].shards[: len(amounts)]:
        verdicts = read_table(resolved.store, shard.nodes["dedup"].path)
        held |= set(verdicts.filter(pc.equal(verdicts["reason"], "held_out"))["id"].to_pylist())
        rows = read_table(resolved.store, shard.nodes["packing"].path)
        kept |= {one for ids in rows["doc_ids"].to_pylist() for one in ids}
    assert kept
    assert held
    assert not kept & held


def test_a_smaller_budget_s_training_is_the_one_that_a_larger_begins_with(replaying: World) -> None:
    small, large = (trainings(replaying.resolve(QUARTER, *more)) for more in ((SMALL,), ()))
    assert [node.fingerprint for node in small] == [large[0].fingerprint]
    assert {"replay-0", "replay-1"} <= set(large[1].inputs)
    assert large[1].config["replay_fraction"] == 0.25


def told(world: World, *overrides: str) -> JSON:
    return checked(make_plan(world.resolve(*overrides), "train"))


def test_a_plan_tells_each_general_node_once_and_how_much_is_replayed(given: World) -> None:
    plan = told(given, TENTH)
    downloads = [n for n in plan["nodes"] if n["stage"] == "general:download"]
    assert [n["shard"] for n in downloads] == ["00000"]
    corpora = [n["shard"] for n in plan["nodes"] if n["stage"] == "general:corpus"]
    assert corpora == ["5K", "11K"]
    assert [(r["sequences"], r["estimated"]) for r in plan["replay"]] == [(8, True), (19, True)]
    assert "11K replays 19 general sequences, 10 % of all: about " in shown(plan)
    assert "replay" not in told(given)


def test_what_training_sees_counts_every_epoch(given: World) -> None:
    recipe = given.load(QUARTER, "training.epochs=2")
    assert recipe.replayed == [52, 114]
    assert recipe.trained(172) == 2 * 172 + 114
    assert (given.load().replayed, given.load().trained(172)) == ([0, 0], 172)


def test_a_changed_share_is_the_reason_of_new_trainings_alone(replaying: World) -> None:
    found = reasons(told(replaying, TENTH))
    assert found["training"] == {"general.replay_fraction: 0.25 → 0.1", "not made yet"}
    assert found["general:corpus"] == {"general.replay_fraction: 0.25 → 0.1"}
    assert set(found) == {"training", "general:corpus"}


def test_the_same_rows_come_again_where_there_are_no_more_and_that_is_told(world: World) -> None:
    resolved = write_general(world, 8).resolve(QUARTER)
    make_corpora(resolved)
    (first, second), walks = make_plan(resolved)["replay"], walks_of(resolved)
    held = walks[REPLAY].added
    assert 57 / 4 <= held < 57, "the one general file holds less than is replayed"
    assert second == {
        "budget": 11_000, "fraction": 0.25, "sequences": 57, "rows": held,
        "repeats": -(-57 // held), "estimated": False,
    }  # fmt: skip
    assert first["repeats"] == -(-26 // held)
    assert f"{held} different ones, each seen up to {second['repeats']} times" in shown(
        make_plan(resolved), 200
    )
    done = outcome(resolved, "corpus", {})
    assert [milestone["replay"]["repeats"] for milestone in done["milestones"]] == [
        first["repeats"], second["repeats"],
    ]  # fmt: skip
    assert done["stages"]["general:packing"]["tokens"] == held * 64
    assert make_plan(resolved, "corpus")["totals"]["miss"] == 0


def ran(done: Done) -> JSON:
    assert done.code == 0, done.err
    return done.told


@pytest.mark.flow
@pytest.mark.train
def test_a_run_replays_and_growth_makes_what_is_missing(world: World, api: Api) -> None:
    # one worker begins no shard before the last one's rows are counted
    run = partial(dapt, world, PREFECT_API_URL=api.url, DAPT_WORKERS="1")
    write_general(world, 10, 10, 10)
    words = ["run", "recipe.toml", "--json", "--set", QUARTER, "--until"]
    first = ran(run(*words, "train", "--set", SMALL))
    grown = ran(run(*words, "train"))
    made = Counter({stage: tally["computed"] for stage, tally in grown["stages"].items()})
    assert (made["training"], grown["stages"]["training"]["hit"]) == (1, 2), "the base and 5K stood"
    assert grown["milestones"][0] == first["milestones"][0]
    assert 0 < made["general:packing"] < grown["stages"]["general:packing"]["hit"] + made["general:packing"]
    assert make_plan(world.resolve(QUARTER), "train")["totals"]["miss"] == 0
    assert collect([], world.settings, dry_run=True, console=QUIET)["removed"] == []
    look_back(world, grown["milestones"][1]["checkpoint"])


def look_back(world: World, checkpoint: str) -> None:
    """What the larger training and its lineage tell."""
    manifest = read_manifest(world.resolve().store, str(Path(checkpoint).relative_to(world.store)))
    assert manifest is not None
    details = manifest.details
    assert (details["steps"], details["sequences_left_out"]) == ((172 + 57) // 4, 1)
    assert (details["replay_sequences"], details["replay_tokens"]) == (57, 57 * 64)
    assert details["replay_repeats"] == 1
    assert Counter(node["stage"] for node in lineage(checkpoint)["nodes"])["corpus"] == 4
    step = documents_of_step(checkpoint, 1)["sequences"]
    assert [sequence["corpus"] for sequence in step] == ["domain", "domain", "domain", "general"]
    for sequence in step:
        for document in sequence["documents"]:
            assert Path(document["file"]).parent.name == sequence["corpus"]
