"""What no kept recipe reaches goes, and nothing else: not beside a live run, not when killed half way."""

import io
import json
import os
import shutil
import time
from dataclasses import replace
from pathlib import Path

import fsspec
import pytest
from rich.console import Console

from flows import inspect
from flows.gc import collect
from flows.outcome import save_record
from flows.plan import make_plan
from flows.resolve import resolve
from tasks.settings import Settings
from tasks.store.errors import DaptError, RecipeError
from tasks.store.json import JSON
from tasks.store.lock import locked
from tasks.store.manifest import read_manifest, set_aside
from tasks.store.node import Node
from tasks.store.paths import Store
from tasks.store.shard import build_node
from tasks.store.use import live, using
from tests.flows.commands import Api, await_that, started
from tests.flows.made import make_corpora
from tests.flows.world import World

OTHER = ("name=other", "filtering.min_lines=4", "packing.sequence_length=32")


def gc(world: World, *keep: Path, dry_run: bool = False) -> tuple[JSON, str]:
    """The command in this process: its object, and what a person is told."""
    told = io.StringIO()
    console = Console(file=told, width=100)
    return collect(keep, world.settings, dry_run=dry_run, console=console), told.getvalue()


def manifests(world: World) -> set[str]:
    """Every node that stands, by path."""
    return {str(f.parent.relative_to(world.store)) for f in world.store.glob("*/*/*/manifest.json")}


def nodes_in_use(world: World, *overrides: str) -> set[str]:
    """The nodes that stand of a recipe."""
    resolved = world.resolve(*overrides)
    save_record(resolved)
    (newest, *_) = resolve(resolved.recipe, world.settings).records
    return {path for of_stage in newest.nodes.values() for path in of_stage} & manifests(world)


@pytest.fixture
def two(standing: World) -> World:
    """A store with two recipes' corpora, which share downloads alone."""
    make_corpora(standing.resolve(*OTHER))
    return standing


def test_without_a_keep_set_every_recipe_that_was_run_is_kept(two: World) -> None:
    before = manifests(two)
    told, text = gc(two)
    assert told == {"kept": ["other", "tiny"], "removed": [], "bytes": 0, "dry_run": False}
    assert "nothing to remove" in text
    assert manifests(two) == before


def test_what_only_an_unkept_recipe_reaches_goes_and_the_kept_one_is_whole(two: World) -> None:
    mine, theirs = nodes_in_use(two), nodes_in_use(two, *OTHER)
    assert mine & theirs, "they share what they can"
    planned, text = gc(two, two.recipe, dry_run=True)
    assert manifests(two) == mine | theirs
    assert "packing" in text
    told, _ = gc(two, two.recipe)
    assert told == {**planned, "dry_run": False}
    assert told["kept"] == ["tiny"]
    assert manifests(two) == mine
    assert {entry["path"] for entry in told["removed"]} == {str(two.store / path) for path in theirs - mine}
    assert told["bytes"] == sum(entry["bytes"] for entry in told["removed"]) > 0
    assert not any((two.store / path).exists() for path in theirs - mine)
    assert inspect.verify(two.resolve())["damaged"] == []
    later = ("training", "evaluation", "report")
    planned_now = make_plan(two.resolve())["nodes"]
    assert {node["state"] for node in planned_now if node["stage"] not in later} == {"HIT"}


def test_earlier_runs_under_a_kept_name_are_kept(standing: World) -> None:
    make_corpora(standing.resolve("filtering.min_lines=4"))
    before = manifests(standing)
    assert gc(standing, standing.recipe)[0]["removed"] == []
    assert manifests(standing) == before


def test_shards_beyond_the_budget_are_kept_while_the_source_has_them(standing: World) -> None:
    make_corpora(standing.resolve('budget.milestones=["5K", "11K", "15K"]'))
    shutil.rmtree(standing.store / "recipes")
    save_record(standing.resolve())
    before = manifests(standing)
    told, _ = gc(standing)
    gone = {str(Path(entry["path"]).relative_to(standing.store)) for entry in told["removed"]}
    assert {path.split("/")[0] for path in gone} == {"corpus"}
    assert manifests(standing) == before - gone


def test_a_recipe_whose_source_is_gone_is_kept_by_its_record_and_it_is_said(two: World) -> None:
    before = manifests(two)
    shutil.rmtree(two.folder / "domain")
    told, text = gc(two)
    assert (told["removed"], manifests(two)) == ([], before)
    assert "is kept by its record alone" in text
    assert "matches no file" in text


def test_a_recipe_to_keep_that_is_not_there_or_not_known_removes_nothing(two: World) -> None:
    before = manifests(two)
    with pytest.raises(RecipeError, match="there is no recipe"):
        gc(two, two.folder / "none.toml")
    unknown = two.folder / "unknown.toml"
    unknown.write_text(two.recipe.read_text().replace('"tiny"', '"unknown"').replace("domain/", "nowhere/"))
    with pytest.raises(DaptError, match="matches no file"):
        gc(two, unknown)
    assert manifests(two) == before


def test_a_record_that_cannot_be_read_stops_it(two: World) -> None:
    before = manifests(two)
    (two.store / "recipes" / "other" / "x.json").write_text("{}")
    with pytest.raises(DaptError, match=r"recipes/other cannot be read: what it reaches is not known"):
        gc(two)
    assert manifests(two) == before
    assert gc(two, two.recipe)[0]["removed"], "it is none of those that are kept"


def test_half_made_and_set_aside_nodes_work_and_failures_are_swept(standing: World) -> None:
    resolved = standing.resolve()
    store, nodes = resolved.store, resolved.chains["domain"].shards[0].nodes
    set_aside(store, nodes["packing"].path)
    (standing.store / nodes["dedup"].path / "data.parquet.tmp-1-aa").write_bytes(b"left")
    store.write("packing/ab/abcd/data.parquet", b"half")
    fingerprint = nodes["filtering"].fingerprint
    store.write(f"failures/packing/{'0' * 64}.json", b"{}")
    store.write(f"failures/filtering/{fingerprint}.json", b"{}")
    work = {"training/" + "1" * 64: True, f"training/{fingerprint}": True, "download/" + "1" * 64: True}
    for name in work:
        store.write(f"work/{name}/step-5/state", b"checkpoint")
    store.write("in-use/host-1-aa.json", b"{}")
    old = standing.store / "digests.json.tmp-1-aa"
    old.write_bytes(b"left")
    os.utime(old, (time.time() - 7200,) * 2)
    (standing.store / "digests.json.tmp-1-bb").write_bytes(b"being written")
    told, text = gc(standing)
    gone = {str(Path(entry["path"]).relative_to(standing.store)) for entry in told["removed"]}
    assert gone == {
        nodes["packing"].path,
        f"{nodes['dedup'].path}/data.parquet.tmp-1-aa",
        "packing/ab/abcd",
        f"failures/packing/{'0' * 64}.json",
        *(f"work/{name}" for name in work),
        "in-use/host-1-aa.json",
        "digests.json.tmp-1-aa",
    }
    assert "half-made" in text
    assert not any((standing.store / path).exists() for path in gone)
    make_corpora(standing.resolve())
    assert inspect.verify(standing.resolve())["damaged"] == []


def test_checkpoints_of_a_training_that_a_kept_recipe_waits_for_stay(standing: World) -> None:
    resolved = standing.resolve()
    save_record(resolved)
    (newest, *_) = standing.resolve().records
    fingerprint = newest.nodes["training"][0].rpartition("/")[2]
    resolved.store.write(f"work/training/{fingerprint}/step-5/state", b"checkpoint")
    assert gc(standing)[0]["removed"] == []
    assert (standing.store / "work" / "training" / fingerprint / "step-5" / "state").exists()


def test_the_model_of_another_recipe_that_one_starts_from_is_kept_with_it(standing: World) -> None:
    resolved = standing.resolve()
    node = Node(stage="training", version=1, config={"of": "base.toml"}, inputs={})
    build_node(resolved.store, node, lambda _writer: None, room="tasks.training", shard="")
    assert [Path(entry["path"]).name for entry in gc(standing, dry_run=True)[0]["removed"]] == [
        node.fingerprint
    ]
    save_record(replace(resolved, base_path=node.path))
    assert gc(standing)[0]["removed"] == []


def test_beside_a_live_run_every_recorded_recipe_and_what_is_new_stays(two: World) -> None:
    before, store = manifests(two), Store(str(two.store))

    def say(started_at: str) -> None:
        (entry,) = (two.store / "in-use").iterdir()
        entry.write_text(json.dumps({"recipe": "other", "started": started_at}))

    with using(store, "other"):
        say("2999")
        told, text = gc(two, two.recipe)
        assert told["removed"] == []
        assert told["kept"] == ["other", "tiny"]
        assert "at work on this store: other" in text
        shutil.rmtree(two.store / "recipes" / "other")
        say("2000")
        assert gc(two, two.recipe)[0]["removed"] == [], "all was made since it began"
        assert manifests(two) == before
        say("2999")
        assert gc(two, two.recipe)[0]["removed"], "older than any live run, and in no record"
    assert manifests(two) == nodes_in_use(two)


def test_a_node_that_somebody_makes_keeps_all_nodes(two: World) -> None:
    before = manifests(two)
    store = Store(str(two.store))
    with locked(store, "training/ab/abcd"):
        told, text = gc(two, two.recipe)
    assert told["removed"] == []
    assert "somebody makes" in text
    assert manifests(two) == before


def test_beside_a_live_run_what_looks_half_made_stays(standing: World) -> None:
    """Its maker may have written the manifest after the store was listed."""
    store = Store(str(standing.store))
    store.write("packing/ab/abcd/data.parquet", b"half")
    left = f"{standing.resolve().chains['domain'].shards[0].nodes['dedup'].path}/data.parquet.tmp-1-aa"
    store.write(left, b"left")
    with using(store, "tiny"):
        assert gc(standing)[0]["removed"] == []
    gone = {str(Path(entry["path"]).relative_to(standing.store)) for entry in gc(standing)[0]["removed"]}
    assert gone == {"packing/ab/abcd", left}


def test_stopped_anywhere_no_node_looks_whole_that_is_not(
    two: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    planned, _ = gc(two, two.recipe, dry_run=True)
    real, left = Store.remove, 0

    class Killed(BaseException):
        pass

    def remove(store: Store, path: str) -> None:
        nonlocal left
        if left == 0:
            raise Killed
        left -= 1
        real(store, path)

    monkeypatch.setattr(Store, "remove", remove)
    for allowed in (1, 2, 3, 8):
        left = allowed
        with pytest.raises(Killed):
            gc(two, two.recipe)
        for path in manifests(two):
            manifest = read_manifest(Store(str(two.store)), path)
            assert manifest is not None
            assert all((two.store / path / file.name).exists() for file in manifest.files)
            for shard in manifest.shards or []:
                assert shard["path"] in manifests(two), "what a corpus lists stands"
    monkeypatch.setattr(Store, "remove", real)
    gc(two, two.recipe)
    assert not any(Path(entry["path"]).exists() for entry in planned["removed"])


def test_an_object_store_is_collected_too(given: World) -> None:
    fsspec.filesystem("memory").store.clear()
    root = "memory://collected"
    settings = Settings(store=root, workers=1, ranks=1)
    for overrides in ((), OTHER):
        make_corpora(resolve(given.load(*overrides), settings))
    store = Store(root)
    store.write("packing/ab/abcd/data.parquet", b"half")
    told = collect([given.recipe], settings, dry_run=False, console=Console(file=io.StringIO()))
    kept = store.fs.find(store.base)
    assert told["removed"]
    assert all(entry["path"].startswith(root) for entry in told["removed"])
    assert not any("packing/ab/abcd" in path for path in kept)
    assert inspect.verify(resolve(given.load(), settings))["damaged"] == []
    theirs = inspect.status(resolve(given.load(*OTHER), settings), on_server=False)
    assert theirs["stages"]["packing"]["stand"] == 0


@pytest.mark.flow
def test_racing_with_a_run_it_takes_nothing_that_the_run_needs(standing: World, api: Api) -> None:
    """A run of a recipe that is not kept, collected around over and over, from its start to its end."""
    words = ["run", "recipe.toml", "--until", "corpus", "--json"]
    overrides = [word for override in OTHER for word in ("--set", override)]
    store, told = Store(str(standing.store)), []
    with started(standing, *words, *overrides, PREFECT_API_URL=api.url, SLOW="dedup 1") as process:
        await_that(lambda: live(store), "the run says that it lives")
        while process.poll() is None:
            told.append(gc(standing, standing.recipe)[1])
            time.sleep(0.2)
        out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    assert sum("at work on this store: other" in text for text in told) > 1
    done = json.loads(out)["stages"]
    assert (done["packing"]["computed"], done["corpus"]["computed"]) == (3, 2)
    assert inspect.verify(standing.resolve())["damaged"] == []
