"""The nodes of a corpus are known before anything runs, and hold only what shapes their bytes."""

import json

import pytest
from hypothesis import given as provided
from hypothesis import strategies as st

from flows.chain import DOMAIN, GENERAL, Chain, ShardNodes, walk
from tests.flows.world import World, documents, write_jsonl

TRAINED = "tokenization.train_vocab_size=300"


def fingerprints(chain: Chain) -> list[dict[str, str]]:
    return [{stage: node.fingerprint for stage, node in shard.nodes.items()} for shard in chain.shards]


def changed(world: World, *overrides: str) -> set[str]:
    """The stages whose nodes an override changes, of every shard alike."""
    before, after = (fingerprints(world.resolve(*o).chains[DOMAIN]) for o in ((), overrides))
    found = [
        {stage for stage in old if old[stage] != new[stage]} for old, new in zip(before, after, strict=True)
    ]
    assert all(stages - {"tokenizer"} == found[0] - {"tokenizer"} for stages in found)
    return found[0]


def test_the_domain_s_chain_ends_packed_the_general_s_deduplicated(given: World) -> None:
    chains = given.resolve().chains
    for shard in chains[DOMAIN].shards:
        stages = [stage for stage in shard.nodes if stage != "tokenizer"]
        assert stages == ["download", "filtering", "signatures", "dedup", "tokenization", "packing"]
    (shard,) = chains[GENERAL].shards
    assert list(shard.nodes) == ["download", "filtering", "signatures", "dedup"]


LOOKED = ("dedup.decontaminate=drop", "evaluation.benchmarks=['piqa', 'boolq']")


def test_a_domain_that_is_decontaminated_has_a_node_more_a_shard_and_the_benchmarks_in_the_first(
    given: World,
) -> None:
    plain, looked = given.resolve().chains, given.resolve(*LOOKED).chains
    for shard in looked[DOMAIN].shards:
        stages = [stage for stage in shard.nodes if stage not in ("tokenizer", "benchmarks")]
        assert stages == [
            "download", "filtering", "signatures", "contamination", "dedup", "tokenization", "packing",
        ]  # fmt: skip
        assert shard.nodes["dedup"].inputs["contamination"] == shard.nodes["contamination"].fingerprint
        inputs = shard.nodes["contamination"].inputs
        assert inputs["benchmarks"] == looked[DOMAIN].shards[0].nodes["benchmarks"].fingerprint
        before = plain[DOMAIN].shards[shard.position].nodes
        same = {stage for stage, node in before.items() if node == shard.nodes[stage]}
        assert same - {"tokenizer"} == {"download", "filtering", "signatures"}
    assert ["benchmarks" in shard.nodes for shard in looked[DOMAIN].shards] == [True, False, False, False]
    assert fingerprints(looked[GENERAL]) == fingerprints(plain[GENERAL])


@pytest.mark.parametrize(
    ("override", "same"),
    [
        ("evaluation.limit=5", True),
        ("evaluation.benchmarks=['boolq', 'piqa']", True),
        ("evaluation.benchmarks=['boolq']", False),
    ],
)
def test_which_benchmarks_matter_to_what_is_decontaminated_and_not_how_much_of_them(
    given: World, override: str, same: bool
) -> None:
    here, there = (fingerprints(given.resolve(*LOOKED, *more).chains[DOMAIN]) for more in ((), (override,)))
    assert (here == there) == same


def test_without_a_general_section_there_is_one_corpus(world: World) -> None:
    world.recipe.write_text(world.recipe.read_text().replace('[general]\nfiles = ["general/*.jsonl"]\n', ""))
    assert list(world.resolve().chains) == [DOMAIN]


def test_shards_follow_the_files_and_are_called_by_their_position(given: World) -> None:
    shards = given.resolve().chains[DOMAIN].shards
    assert [shard.name for shard in shards] == ["00000", "00001", "00002", "00003"]
    names = [shard.nodes["download"].reads["shard"]["files"][0]["address"] for shard in shards]
    assert names == [str(given.folder / "domain" / f"{n}.jsonl") for n in range(4)]


@pytest.mark.parametrize(
    ("override", "stages"),
    [
        ("filtering.min_lines=4", {"filtering", "signatures", "dedup", "tokenization", "packing"}),
        ("dedup.threshold=0.8", {"dedup", "tokenization", "packing"}),
        ("held_out.fraction=0.1", {"dedup", "tokenization", "packing"}),
        ("tokenization.max_run_fraction=0.2", {"tokenization", "packing"}),
        ("packing.sequence_length=128", {"packing"}),
        ("budget.milestones=['6K']", set()),
        ("training.learning_rate=0.5", set()),
        ("seed=6", set()),
        ("name=other", set()),
        ("held_out.max_documents=3", set()),
        ("evaluation.benchmarks=['piqa']", set()),
    ],
)
def test_a_field_changes_its_stage_and_what_follows_alone(
    given: World, override: str, stages: set[str]
) -> None:
    assert changed(given, override) - {"tokenizer"} == stages


def test_where_the_files_lie_and_how_many_work_changes_nothing(given: World, world: World) -> None:
    here, there = given.resolve(), world.resolve()
    assert str(world.folder) != str(given.folder)
    assert fingerprints(here.chains[DOMAIN]) == fingerprints(there.chains[DOMAIN])


def test_new_files_leave_the_old_shards_alone(world: World) -> None:
    before = fingerprints(world.resolve().chains[DOMAIN])
    write_jsonl(world.folder / "domain" / "9.jsonl", documents(5000, 20))
    after = fingerprints(world.resolve().chains[DOMAIN])
    assert after[: len(before)] == before
    assert len(after) == len(before) + 1


def test_a_changed_file_changes_verdicts_behind_it_and_nothing_before_it(world: World) -> None:
    before = fingerprints(world.resolve().chains[DOMAIN])
    write_jsonl(world.folder / "domain" / "2.jsonl", documents(7000, 19))
    after = fingerprints(world.resolve().chains[DOMAIN])
    assert after[:2] == before[:2]
    assert not set(after[2].values()) & set(before[2].values())
    same = {stage for stage in after[3] if after[3][stage] == before[3][stage]}
    assert same == {"download", "filtering", "signatures"}


def test_a_trained_tokenizer_follows_the_first_shard_and_every_tokenization_follows_it(given: World) -> None:
    shards = given.resolve(TRAINED).chains[DOMAIN].shards
    tokenizer = shards[0].nodes["tokenizer"]
    assert tokenizer.inputs == {"dedup": shards[0].nodes["dedup"].fingerprint}
    assert not any("tokenizer" in shard.nodes for shard in shards[1:])
    assert {s.nodes["tokenization"].inputs["tokenizer"] for s in shards} == {tokenizer.fingerprint}


def test_two_recipes_on_the_same_text_share_their_nodes(given: World) -> None:
    resolved = given.resolve("download.files=['general/*.jsonl']")
    domain, general = (resolved.chains[corpus].shards[0].nodes for corpus in (DOMAIN, GENERAL))
    assert {domain[s].fingerprint for s in general} == {general[s].fingerprint for s in general}


def test_an_identity_is_plain_json_without_paths(given: World) -> None:
    for shard in given.resolve().chains[DOMAIN].shards:
        for node in shard.nodes.values():
            assert str(given.folder) not in json.dumps([node.config, node.inputs])


@pytest.mark.slow
def test_a_walk_ends_at_the_first_shard_that_is_not_whole(standing: World) -> None:
    resolved = standing.resolve()
    chain = resolved.chains[DOMAIN]
    whole = walk(resolved.store, chain)
    assert whole.filled
    assert sum(whole.amounts) >= chain.target > sum(whole.amounts[:-1])
    resolved.store.remove(f"{chain.shards[1].nodes['filtering'].path}/manifest.json")
    cut = walk(resolved.store, chain)
    assert (cut.amounts, cut.filled) == (whole.amounts[:1], False)


def test_where_nothing_is_held_out_no_general_text_is_asked_for(given: World) -> None:
    resolved = given.resolve("held_out.fraction=0")
    asked = walk(resolved.store, resolved.chains[GENERAL])
    assert (asked.used, asked.filled) == ([], True)
    assert resolved.chains[GENERAL].expected_shards(0, 0) == 0


SIZES = st.lists(st.integers(1, 10**9), min_size=1, max_size=12)


@provided(SIZES, st.integers(1, 10**6), st.data())
def test_shards_expected_are_enough_at_the_rate_and_grow_with_the_target(
    sizes: list[int], target: int, data: st.DataObject
) -> None:
    shards = [ShardNodes(position, size, size, {}) for position, size in enumerate(sizes)]
    known = data.draw(st.integers(0, len(sizes)))
    amounts = data.draw(st.lists(st.integers(0, 10**5), min_size=known, max_size=known))
    chain, larger = (Chain(DOMAIN, shards, t, 1e-4, least=t) for t in (target, target * 2))
    expected = chain.expected_shards(known, sum(amounts))
    assert known <= expected <= len(sizes)
    assert expected <= larger.expected_shards(known, sum(amounts))
    reached = sum(amounts) + chain.rate(known, sum(amounts)) * sum(sizes[known:expected])
    assert expected == len(sizes) or reached >= target * (1 - 1e-9)
    if expected > known:
        short = sum(amounts) + chain.rate(known, sum(amounts)) * sum(sizes[known : expected - 1])
        assert short < target * (1 + 1e-9)
