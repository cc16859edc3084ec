"""Looking at a store: status, show, verify and the outcome say what stands, what went and why."""

import io
import json
from pathlib import Path

import pytest
from rich.console import Console

from flows import inspect
from flows.outcome import outcome
from tasks.store.errors import DaptError, SourceError
from tasks.store.json import JSON
from tasks.store.manifest import stands
from tasks.store.paths import Store
from tasks.store.shard import NodeWriter, build_node
from tests.flows.world import SHORT, World, prose

STAGE_KEYS = {
    "hit", "computed", "failed", "waiting", "seconds", "peak_rss_bytes",
    "documents_in", "documents_out", "dropped", "tokens",
}  # fmt: skip


def console(width: int = 80) -> Console:
    return Console(file=io.StringIO(), width=width)


def text_of(shown: Console) -> str:
    return shown.file.getvalue()  # type: ignore[attr-defined, no-any-return]


def fail_packing(world: World, error: str) -> str:
    """Have the second packing fail; the path of its node."""
    resolved = world.resolve()
    node = resolved.chains["domain"].shards[1].nodes["packing"]
    resolved.store.remove(f"{node.path}/manifest.json")

    def fail(_writer: NodeWriter) -> None:
        raise SourceError(error)

    with pytest.raises(SourceError):
        build_node(resolved.store, node, fail, room="tasks.packing", shard="00001")
    return node.path


def test_status_before_any_run_tells_what_is_missing(given: World) -> None:
    told = inspect.status(given.resolve(), on_server=False)
    assert set(told) == {"recipe", "failed", "waiting", "missing", "stages", "forgetting"}
    assert (told["failed"], told["waiting"]) == ([], [])
    assert told["stages"]["corpus"] == {"stand": 0, "expected": 2}
    assert told["stages"]["training"] == {"stand": 0, "expected": 2}
    assert {"stage": "corpus", "shard": "11K"} in told["missing"]
    assert json.loads(json.dumps(told)) == told


def test_status_tells_what_stands(corpora: World) -> None:
    told = inspect.status(corpora.resolve(), on_server=False)
    assert told["stages"]["packing"] == {"stand": 3, "expected": 3}
    assert told["stages"]["corpus"] == {"stand": 2, "expected": 2}
    assert {entry["stage"] for entry in told["missing"]} == {"base", "training", "evaluation", "report"}


def test_status_tells_failures_first_with_their_cause_and_what_waits(standing: World) -> None:
    fail_packing(standing, "the disk [sda] is on fire")
    told = inspect.status(standing.resolve(), on_server=False)
    (failure,) = told["failed"]
    assert set(failure) == {"stage", "shard", "error", "path", "log"}
    assert (failure["stage"], failure["shard"]) == ("packing", "00001")
    assert json.loads(Path(failure["path"]).read_text())["error"] == "the disk [sda] is on fire"
    assert {"stage": "corpus", "shard": "11K"} in told["waiting"]
    shown = console()
    inspect.print_status(told, shown)
    first, second, *_ = text_of(shown).splitlines()
    assert first == "failed packing shard 00001: the disk [sda] is on fire"
    assert second.strip() == failure["path"]


def test_verify_finds_nothing_wrong_where_nothing_is(corpora: World) -> None:
    told = inspect.verify(corpora.resolve())
    assert set(told) == {"checked", "damaged"}
    assert told["damaged"] == []
    assert told["checked"] == sum(1 for _ in corpora.store.glob("*/*/*/manifest.json"))


def test_verify_names_one_flipped_bit_and_the_next_run_rebuilds_just_this(standing: World) -> None:
    resolved = standing.resolve()
    path = resolved.chains["domain"].shards[2].nodes["tokenization"].path
    file = standing.store / path / "data.parquet"
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)
    assert stands(resolved.store, path)
    (damage,) = inspect.verify(resolved)["damaged"]
    assert set(damage) == {"path", "why"}
    assert damage["path"] == str(standing.store / path)
    assert "data.parquet" in damage["why"]
    assert stands(resolved.store, path) is None
    others = [n for s in resolved.chains["domain"].shards[:3] for n in s.nodes.values() if n.path != path]
    assert all(stands(resolved.store, node.path) for node in others)


def test_show_dropped_tells_where_why_and_how_it_begins(corpora: World) -> None:
    found = inspect.dropped(corpora.resolve(), "min_lines", 10)
    assert [entry["shard"] for entry in found] == ["00000", "00001", "00002"]
    for entry in found:
        assert (entry["stage"], entry["reason"]) == ("filtering", "min_lines")
        assert entry["text"].startswith(SHORT)


def test_show_dropped_names_what_a_duplicate_duplicates(corpora: World) -> None:
    resolved = corpora.resolve()
    first = inspect.dropped(resolved, "exact", 1)[0]
    assert first["text"] == prose(1003)[:300]
    kept, row = first["duplicate_of"].rsplit("-", 1)
    assert first["id"].startswith(kept)
    assert row != first["id"].rsplit("-", 1)[1]


def test_show_dropped_stops_at_the_count_and_takes_any_reason(corpora: World) -> None:
    found = inspect.dropped(corpora.resolve(), "", 4)
    assert len(found) == 4
    assert len({entry["reason"] for entry in found}) > 1


def test_show_dropped_for_an_unknown_reason_tells_those_there_are(corpora: World) -> None:
    with pytest.raises(
        DaptError,
        match=r"no document of tiny was dropped for 'boring'; reasons here: exact, held_out, min_lines",
    ):
        inspect.dropped(corpora.resolve(), "boring", 3)


def test_show_packed_decodes_rows_with_their_documents(corpora: World) -> None:
    found = inspect.packed(corpora.resolve(), 3)
    assert len(found) == 3
    assert found[0]["text"].startswith(prose(1000)[:60])
    assert found[0]["doc_starts"][0] == 0
    assert all(entry["doc_ids"] for entry in found)
    everything = inspect.packed(corpora.resolve(), 1000)
    assert "<|end|>" in "".join(entry["text"] for entry in everything), "the end of a document is seen"
    assert {entry["shard"] for entry in everything} == {"00000", "00001", "00002"}


def test_before_any_run_there_is_nothing_to_show(given: World) -> None:
    resolved = given.resolve()
    assert inspect.packed(resolved, 3) == inspect.dropped(resolved, "", 3) == []
    shown = console()
    inspect.print_found([], shown)
    assert text_of(shown) == "nothing to show: run the recipe first\n"


def test_what_is_shown_is_not_taken_for_markup() -> None:
    shown = console()
    inspect.print_found([{"stage": "dedup", "duplicate_of": None, "text": "a [red]b[/red] :smile: c"}], shown)
    assert "a [red]b[/red] :smile: c" in text_of(shown)
    assert "duplicate_of" not in text_of(shown)


def corpus_outcome(world: World, **summary: object) -> JSON:
    return outcome(world.resolve(), "corpus", dict(summary))


def test_an_outcome_has_the_promised_keys(corpora: World) -> None:
    done = corpus_outcome(corpora)
    assert set(done) == {"recipe", "stages", "milestones", "base", "failed", "report"}
    domain = {"download", "filtering", "dedup", "tokenization", "packing", "corpus"}
    general = {"general:download", "general:filtering", "general:dedup"}
    assert set(done["stages"]) == domain | general
    assert all(set(tally) == STAGE_KEYS for tally in done["stages"].values())
    keys = {"budget", "tokens", "sequences", "corpus", "checkpoint", "scores"}
    assert [set(milestone) for milestone in done["milestones"]] == [keys, keys]
    assert (done["base"], done["report"], done["failed"]) == (None, None, [])
    assert json.loads(json.dumps(done, allow_nan=False)) == done


def test_an_outcome_counts_shards_and_conserves_documents(corpora: World) -> None:
    stages = corpus_outcome(corpora)["stages"]
    for stage in ("download", "filtering", "dedup", "tokenization", "packing"):
        assert (stages[stage]["hit"], stages[stage]["computed"]) == (3, 0)
    for stage in ("filtering", "dedup", "tokenization"):
        assert stages[stage]["documents_in"] == stages[stage]["documents_out"] + sum(
            stages[stage]["dropped"].values()
        )
    assert stages["filtering"]["documents_in"] == stages["download"]["documents_out"] == 60
    assert stages["dedup"]["documents_in"] == stages["filtering"]["documents_out"] == 57
    assert stages["filtering"]["dropped"] == {"min_lines": 3}
    assert stages["dedup"]["dropped"]["exact"] == 3


def test_an_outcome_s_milestones_are_its_corpora(corpora: World) -> None:
    small, large = corpus_outcome(corpora)["milestones"]
    assert (small["budget"], small["sequences"], small["tokens"]) == (5000, 79, 79 * 64)
    assert (large["budget"], large["sequences"]) == (11000, 172)
    for milestone in (small, large):
        manifest = json.loads((Path(milestone["corpus"]) / "manifest.json").read_text())
        assert manifest["sequences"] == milestone["sequences"] == sum(s["rows"] for s in manifest["shards"])
        assert manifest["budget"] == milestone["budget"]


def test_an_outcome_tells_hits_from_what_was_made(corpora: World) -> None:
    nodes = corpora.resolve().chains["domain"].shards[1].nodes
    stages = corpus_outcome(corpora, made=[nodes["packing"].path, nodes["signatures"].path])["stages"]
    assert (stages["packing"]["hit"], stages["packing"]["computed"]) == (2, 1)
    assert (stages["dedup"]["hit"], stages["dedup"]["computed"]) == (3, 0), (
        "signatures are told under dedup, not counted"
    )


def test_an_outcome_counts_what_failed_and_what_waits(corpora: World) -> None:
    failed = [{"stage": "filtering", "shard": "00001", "error": "x"}]
    waiting = [{"stage": "dedup", "shard": "00002"}]
    done = corpus_outcome(corpora, failed=failed, waiting=waiting)
    assert done["failed"] == failed
    assert (done["stages"]["filtering"]["failed"], done["stages"]["dedup"]["waiting"]) == (1, 1)


def test_an_outcome_before_any_run_is_empty_and_whole(given: World) -> None:
    done = corpus_outcome(given)
    assert done["milestones"] == []
    assert all(tally["hit"] == tally["computed"] == 0 for tally in done["stages"].values())


def test_a_run_s_end_reads_at_80_columns_and_tells_peak_memory(corpora: World) -> None:
    done = corpus_outcome(corpora)
    done["stages"]["filtering"] |= {
        "documents_in": 34_567,
        "documents_out": 34_567,
        "peak_rss_bytes": 512_000_000,
    }
    done["milestones"][0]["scores"] = {
        "bits_per_byte": {"domain": 1.25, "general": None},
        "piqa": {"score": 0.5},
    }
    shown = console()
    inspect.print_outcome(done, shown)
    text = text_of(shown)
    assert max(map(len, text.splitlines())) <= 80
    assert "peak MB" in text
    assert "512" in text
    assert "34,567 → 34,567" in text
    assert "5,000 tokens: domain 1.250 bits per byte, piqa 0.500" in text


def test_a_store_tells_its_recipes_and_its_failures_without_one(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    assert inspect.status_of_store(store, on_server=False) == {"recipes": [], "failed": []}
    failure = {
        "stage": "download",
        "shard": "00003",
        "fingerprint": "f",
        "error": "a.parquet: broken",
        "at": "",
    }
    store.write("failures/download/f.json", json.dumps(failure).encode())
    told = inspect.status_of_store(store, on_server=False)["failed"]
    assert told == [
        {
            "stage": "download",
            "shard": "00003",
            "error": "a.parquet: broken",
            "log": "",
            "path": store.address("failures/download/f.json"),
        }
    ]
