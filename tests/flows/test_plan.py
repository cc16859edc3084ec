"""A plan tells what stands, what is missing and why; its totals are those of its nodes."""

import io
import json
import re
from collections import Counter

import pytest
from rich.console import Console

from flows.plan import make_plan
from flows.plan_table import print_plan
from flows.record import read_records
from tasks.store.errors import SourceError
from tasks.store.fingerprint import source_hash
from tasks.store.json import JSON
from tasks.store.node import Node
from tasks.store.shard import NodeWriter, build_node
from tests.flows.made import make_corpora
from tests.flows.world import World, documents, write_jsonl

DATA_STAGES = {"download", "filtering", "signatures", "dedup", "tokenization", "packing"}


def reasons(plan: JSON, state: str = "MISS") -> dict[str, set[str]]:
    """The reasons of each stage's nodes in a state."""
    found: dict[str, set[str]] = {}
    for node in plan["nodes"]:
        if node["state"] == state:
            found.setdefault(node["stage"], set()).add(node["reason"])
    return found


def checked(plan: JSON) -> JSON:
    """A plan whose form is as promised and whose totals are those of its nodes."""
    assert set(plan) >= {"recipe", "nodes", "totals", "memory"}
    assert json.loads(json.dumps(plan, allow_nan=False)) == plan
    for node in plan["nodes"]:
        assert set(node) == {"stage", "shard", "fingerprint", "state", "reason", "estimated"}
        assert (node["fingerprint"] is None) <= node["estimated"]
        assert (node["state"] == "HIT") == (node["reason"] == "")
    states, totals = Counter(node["state"] for node in plan["nodes"]), plan["totals"]
    assert set(totals) == {"hit", "miss", "bytes_to_read", "tokens_to_make", "seconds", "disk_bytes"}
    assert (totals["hit"], totals["miss"]) == (states["HIT"] + states["DRIFT"], states["MISS"])
    assert len({(node["stage"], node["shard"]) for node in plan["nodes"]}) == len(plan["nodes"])
    return plan


def shown(plan: JSON, width: int = 80) -> str:
    console = Console(file=io.StringIO(), width=width)
    print_plan(plan, console)
    return console.file.getvalue()  # type: ignore[attr-defined, no-any-return]


def test_before_any_run_everything_misses_and_nothing_is_written(given: World) -> None:
    plan = checked(make_plan(given.resolve()))
    told = reasons(plan)
    assert plan["totals"]["hit"] == 0
    assert {stage for stage in told if ":" not in stage} >= DATA_STAGES | {
        "corpus",
        "training",
        "evaluation",
        "report",
    }
    assert told["download"] == {"not made yet"}
    assert told["corpus"] == {"stands on a corpus that is not built yet"}
    assert [n["shard"] for n in plan["nodes"] if n["stage"] == "corpus"] == ["5K", "11K"]
    files = sum(file.stat().st_size for file in (given.folder / "domain").iterdir())
    assert plan["totals"]["bytes_to_read"] <= files + (given.folder / "general" / "0.jsonl").stat().st_size
    assert not [path for path in given.store.rglob("*.parquet") if path.is_file()]


def test_where_the_corpora_stand_only_what_stands_on_them_misses(corpora: World) -> None:
    plan = checked(make_plan(corpora.resolve()))
    told = reasons(plan)
    assert set(told) == {"training", "evaluation", "report"}
    assert not any(node["estimated"] for node in plan["nodes"])
    totals = plan["totals"]
    assert (totals["bytes_to_read"], totals["tokens_to_make"]) == (0, 0)
    assert totals["seconds"] > 0


def test_a_leg_is_planned_alone(corpora: World) -> None:
    resolved = corpora.resolve()
    stages = {
        until: {n["stage"] for n in make_plan(resolved, until)["nodes"]}
        for until in ("corpus", "train", "evaluate")
    }
    assert make_plan(resolved, "corpus")["totals"]["miss"] == 0
    assert stages["train"] - stages["corpus"] == {"training"}
    assert stages["evaluate"] - stages["train"] == {"evaluation"}


def test_a_changed_field_is_the_reason_and_what_follows_says_so(corpora: World) -> None:
    plan = checked(make_plan(corpora.resolve("filtering.min_lines=2")))
    told = reasons(plan)  # a fourth shard may be needed: what these rules drop is not known
    assert told["filtering"] - {"new shard"} == {"filtering.min_lines: 3 → 2"} == told["general:filtering"]
    follows = {"follows filtering (filtering.min_lines: 3 → 2)"}
    assert told["signatures"] - {"new shard"} == follows == told["packing"] - {"new shard"}
    assert reasons(plan, "HIT").keys() - {"tokenizer"} == {"download", "general:download"}


def test_benchmarks_to_look_for_are_the_reason_of_new_verdicts(corpora: World) -> None:
    looked = ("dedup.decontaminate=flag", "evaluation.benchmarks=['piqa']")
    found = reasons(checked(make_plan(corpora.resolve(*looked), "corpus")))
    told = {stage: why - {"new shard"} for stage, why in found.items()}  # a fourth one may be needed
    asked = "dedup.decontaminate: off → flag"
    both = {f"{asked}, evaluation.benchmarks: [] → ['piqa']"}
    assert told["contamination"] == told["benchmarks"] == both
    assert told["dedup"] == {asked}
    missing = {stage for stage, why in told.items() if why}
    assert missing == {"benchmarks", "contamination", "dedup", "tokenization", "packing", "corpus"}


def test_a_larger_budget_tells_its_new_shards_and_keeps_the_old(corpora: World) -> None:
    plan = checked(make_plan(corpora.resolve('budget.milestones=["5K", "11K", "15K"]')))
    new = [node for node in plan["nodes"] if node["state"] == "MISS" and node["stage"] in DATA_STAGES]
    assert new
    assert {node["reason"] for node in new} == {"new shard"}
    assert {node["shard"] for node in new} == {"00003"}
    assert reasons(plan)["corpus"] == {"stands on a corpus that is not built yet"}
    assert reasons(plan)["evaluation"] == {"not made yet", "stands on a corpus that is not built yet"}
    assert 1500 < plan["totals"]["tokens_to_make"] < 8000
    assert plan["totals"]["bytes_to_read"] == (corpora.folder / "domain" / "3.jsonl").stat().st_size


def test_a_new_file_behind_what_fills_the_budget_is_not_needed(standing: World) -> None:
    write_jsonl(standing.folder / "domain" / "9.jsonl", documents(5000, 20))
    plan = checked(make_plan(standing.resolve(), "corpus"))
    assert plan["totals"]["miss"] == 0


def test_a_failure_of_before_is_the_reason(standing: World) -> None:
    resolved = standing.resolve()
    node = resolved.chains["domain"].shards[1].nodes["packing"]
    resolved.store.remove(f"{node.path}/manifest.json")

    def fail(_writer: NodeWriter) -> None:
        raise SourceError("the disk is on fire\nand more")

    with pytest.raises(SourceError):
        build_node(resolved.store, node, fail, room="tasks.packing", shard="00001")
    told = reasons(make_plan(standing.resolve(), "corpus"))
    assert told["packing"] >= {"failed before: the disk is on fire"}


def test_a_damaged_node_is_told_as_such(standing: World) -> None:
    resolved = standing.resolve()
    path = resolved.chains["domain"].shards[0].nodes["dedup"].path
    file = standing.store / path / "data.parquet"
    file.write_bytes(file.read_bytes()[:-1])
    told = reasons(make_plan(standing.resolve(), "corpus"))["dedup"]
    assert any(
        re.match(r"damaged: data.parquet has \d+ bytes, its manifest says \d+", reason) for reason in told
    )


def test_code_that_changed_without_its_version_is_drift_and_a_hit(
    corpora: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "flows.plan.source_hash", lambda room: "x" if room == "tasks.dedup" else source_hash(room)
    )
    plan = checked(make_plan(corpora.resolve(), "corpus"))
    assert plan["totals"]["miss"] == 0
    told = reasons(plan, "DRIFT")
    assert set(told) == {"signatures", "dedup", "general:signatures", "general:dedup"}
    assert told["dedup"] == {"the code of tasks.dedup changed since, its VERSION did not"}
    assert "DRIFT" in shown(plan)


def test_a_bumped_version_is_the_reason(corpora: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tasks.packing.config.VERSION", 2)
    with_another = make_plan(corpora.resolve("name=tiny", "seed=6"), "corpus")
    assert "packing VERSION 1 → 2" in reasons(with_another)["packing"]


def test_a_plan_changes_no_record(standing: World) -> None:
    resolved = standing.resolve("filtering.min_lines=2")
    before = read_records(resolved.store, "tiny")
    make_plan(resolved)
    assert read_records(resolved.store, "tiny") == before


@pytest.mark.parametrize(
    "overrides", [(), ("filtering.min_lines=2",), ('budget.milestones=["5K", "11K", "15K"]',)]
)
def test_a_plan_reads_at_80_columns(corpora: World, overrides: tuple[str, ...]) -> None:
    text = shown(make_plan(corpora.resolve(*overrides)))
    lines = text.splitlines()
    assert max(map(len, lines)) <= 80
    assert "…" not in text, "nothing is cut off"
    for stage in (*DATA_STAGES, "general:download", "corpus", "training", "evaluation", "report"):
        assert re.search(rf"│ {stage} ", text), "a stage's name stands in one piece"


def test_amounts_are_told_in_units_people_read(corpora: World) -> None:
    text = " ".join(shown(make_plan(corpora.resolve('budget.milestones=["5K", "11K", "15K"]'))).split())
    assert re.search(r"read 0\.013 MB, make about [\d,]+ tokens, [\d.]+ MB on disk", text)
    assert re.search(r"memory a rank, ZeRO-1: 0\.8 MB \(states 0\.41 MB \+ activations 0\.15 MB \+ ", text)
    assert re.search(
        r"profile paper, ZeRO-3, .* on the host\), 4 passes a token profile fast, ZeRO-1: ", text
    )


def test_nodes_hold_together(corpora: World) -> None:
    plan = make_plan(corpora.resolve())
    known = {node["fingerprint"] for node in plan["nodes"] if node["fingerprint"]}
    assert all(re.fullmatch(r"[0-9a-f]{64}", fingerprint) for fingerprint in known)
    chain = corpora.resolve().chains["domain"]
    assert {node.fingerprint for shard in chain.shards[:3] for node in shard.nodes.values()} <= known
    assert isinstance(chain.shards[0].nodes["packing"], Node)


@pytest.mark.slow
def test_made_again_the_same_is_a_hit(world: World) -> None:
    made = make_corpora(world.resolve())
    assert len(made) == len(set(made))
    assert make_corpora(world.resolve("name=second", "seed=9")) == []
    assert make_plan(world.resolve("name=third"), "corpus")["totals"]["miss"] == 0
