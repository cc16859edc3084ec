"""Token shards of others: taken in once, never changed, grown by appending, trained on as our own."""

import hashlib
import io
import os
import shutil
import signal
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from numpy.typing import NDArray
from rich.console import Console
from tokenizers import Tokenizer

from flows import inspect
from flows.adopted import read_adopted
from flows.adoption import adopt
from flows.gc import collect
from flows.outcome import nodes_of, walks_of
from flows.plan import make_plan
from flows.resolve import Resolved, resolve
from tasks.download import tokens
from tasks.download.tokens import TokenSource
from tasks.store.errors import DaptError, RecipeError, ShardsFailed
from tasks.store.json import JSON
from tasks.store.manifest import read_manifest, stands
from tasks.store.packed import PackedCorpus
from tasks.store.paths import Store
from tasks.store.shard import read_table
from tests.flows.commands import Api, await_that, dapt, made, started
from tests.flows.made import make_corpora
from tests.flows.world import LENGTH, World, prose
from tests.hub_server import HubServer

RECIPE = f"""\
name = "adopting"
seed = 5
[budget]
milestones = ["5K", "11K"]
[download]
adopted = "tokens"
[packing]
sequence_length = {LENGTH}
[general]
files = ["general/*.jsonl"]
[held_out]
fraction = 0.2
max_documents = 8
[training]
base_model = "./model"
learning_rate = 1e-3
global_batch_sequences = 4
precision = "fp32"
zero_stage = 1
"""


@pytest.fixture(autouse=True)
def _a_shard_a_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tokens, "SHARD_BYTES", 1)


@pytest.fixture
def tokenized(world: World, monkeypatch: pytest.MonkeyPatch) -> World:
    """A world with three files of token ids, and a recipe that adopts them."""
    monkeypatch.chdir(world.folder)
    for number in range(3):
        write_tokens(world, number)
    world.recipe.write_text(RECIPE)
    return world


def write_tokens(world: World, number: int, *, first: int = 0) -> Path:
    """A file of token ids: 20 documents."""
    tokenizer = Tokenizer.from_file(str(world.folder / "model" / "tokenizer.json"))
    ids = [tokenizer.encode(prose(first + 3000 + 100 * number + place)).ids for place in range(20)]
    file = world.folder / "tokens" / f"{number}.parquet"
    file.parent.mkdir(exist_ok=True)
    pq.write_table(pa.table({"input_ids": ids}), file)
    return file


def take(world: World, **more: object) -> JSON:
    """`dapt adopt tokens`, in this process."""
    given: JSON = {"name": "tokens", "tokenizer": "model", "sequence_length": LENGTH, **more}
    source = TokenSource(str(given.pop("path", "tokens")), column=str(given.pop("column", "input_ids")))
    return adopt(source, settings=world.settings, **given)


def rows_of(resolved: Resolved) -> NDArray[np.uint16 | np.uint32]:
    """Every row of the largest corpus."""
    path = nodes_of(resolved, walks_of(resolved))["corpus"][-1].path
    with PackedCorpus(resolved.store, path) as corpus:
        return corpus.rows(np.arange(len(corpus)))


def test_what_is_adopted_tells_where_it_is_from_and_loses_no_token(tokenized: World) -> None:
    told = take(tokenized)
    assert (told["shards"], told["made"], told["documents_in"]) == (3, 3, 60)
    assert told["tokens_in"] + told["eos_added"] == (
        told["tokens"] + told["leftover_tokens"] + told["surplus_eos"]
    )
    store = Store(str(tokenized.store))
    adopted = read_adopted(store, "tokens")
    assert adopted is not None
    for number, shard in enumerate(adopted.shards):
        manifest = read_manifest(store, shard.node.path)
        assert manifest is not None
        assert manifest.config["adopted"] == {"column": "input_ids", "layout": "documents"}
        (source,) = manifest.details["sources"]
        assert source == str(tokenized.folder / "tokens" / f"{number}.parquet")
        assert manifest.inputs["file-00000"] == hashlib.sha256(Path(source).read_bytes()).hexdigest()
        assert manifest.details["adopted"]["path"] == str(tokenized.folder / "tokens")
        assert manifest.documents_in == manifest.documents_out + sum(manifest.dropped.values())


def test_adopted_documents_are_packed_in_order_and_closed_by_one_eos(tokenized: World) -> None:
    tokenizer = Tokenizer.from_file(str(tokenized.folder / "model" / "tokenizer.json"))
    take(tokenized)
    packed = tokenized.resolve().chains["domain"].shards[0].nodes["packing"]
    table = read_table(Store(str(tokenized.store)), packed.path)
    flat = [token for row in table["input_ids"].to_pylist() for token in row]
    expected = [token for place in range(20) for token in [*tokenizer.encode(prose(3000 + place)).ids, 0]]
    assert flat == expected[: len(flat)]


def test_adopting_again_makes_nothing_and_more_files_append(tokenized: World) -> None:
    first = take(tokenized)
    assert take(tokenized) == {**first, "made": 0}
    small = tokenized.resolve()
    make_corpora(small)
    before = rows_of(small)
    write_tokens(tokenized, 3)
    write_tokens(tokenized, -1)  # sorts to the front, stands at the end
    grown = take(tokenized)
    assert (grown["shards"], grown["made"]) == (5, 2)
    large = tokenized.resolve('budget.milestones=["5K", "11K", "20K"]')
    make_corpora(large)
    assert [s.nodes["packing"].path for s in large.chains["domain"].shards[:3]] == [
        s.nodes["packing"].path for s in small.chains["domain"].shards
    ]
    assert np.array_equal(rows_of(large)[: len(before)], before)


def test_the_source_may_go_once_it_is_adopted(tokenized: World) -> None:
    take(tokenized)
    shutil.rmtree(tokenized.folder / "tokens")
    resolved = tokenized.resolve()
    make_corpora(resolved)
    plan = make_plan(tokenized.resolve())
    stages = {node["stage"]: node["state"] for node in plan["nodes"]}
    assert (stages["packing"], stages["corpus"]) == ("HIT", "HIT")
    assert inspect.verify(resolved)["damaged"] == []
    assert inspect.packed(resolved, 1)[0]["text"].startswith(prose(3000)[:40])
    assert inspect.status(resolved, on_server=False)["stages"]["packing"] == {"stand": 2, "expected": 2}
    with pytest.raises(DaptError, match="trains on adopted tokens"):
        inspect.dropped(resolved, "", 1)


def test_only_the_general_slice_is_measured_and_it_is_said(tokenized: World) -> None:
    take(tokenized)
    resolved = tokenized.resolve()
    make_corpora(resolved)
    units = nodes_of(resolved, walks_of(resolved))["evaluation"]
    assert len(units) == 3, "the base and two milestones, on general text"
    assert "bits per byte are not measured" in resolved.sources["domain"].notes[0]
    expected = [n["shard"] for n in make_plan(resolved)["nodes"] if n["stage"] == "evaluation"]
    assert expected == ["base bits_per_byte.general", "5K bits_per_byte.general", "11K bits_per_byte.general"]


def test_the_number_of_shards_that_a_budget_needs_is_known(tokenized: World) -> None:
    take(tokenized)
    chain = tokenized.resolve().chains["domain"]
    assert chain.expected_shards(0, 0) == 2
    assert chain.rate(0, 0) == pytest.approx(1 / LENGTH)


def test_a_file_that_changed_since_it_was_adopted_is_refused(tokenized: World) -> None:
    take(tokenized)
    write_tokens(tokenized, 1, first=50_000)
    with pytest.raises(RecipeError, match=r"1\.parquet changed since it was adopted as tokens"):
        take(tokenized)
    assert take(tokenized, name="others")["shards"] == 3


@pytest.mark.parametrize(
    ("more", "told"),
    [
        ({"sequence_length": 32}, "tokens was adopted with --sequence-length 64, found 32"),
        ({"path": "s3://me:secret@bucket/*.parquet"}, "the URL carries a user name or password"),
        ({"name": "No Name"}, "--name 'No Name': expected lower-case letters"),
        ({"sequence_length": 1, "name": "x"}, "--sequence-length 1: expected at least 2"),
    ],
)
def test_what_does_not_go_with_a_name_is_refused(tokenized: World, more: JSON, told: str) -> None:
    take(tokenized)
    with pytest.raises(RecipeError, match=told):
        take(tokenized, **more)


def test_every_bad_file_is_told_and_the_others_stand(tokenized: World) -> None:
    pq.write_table(pa.table({"input_ids": [[1], [2, -7]]}), tokenized.folder / "tokens" / "1.parquet")
    pq.write_table(pa.table({"input_ids": [[400]]}), tokenized.folder / "tokens" / "2.parquet")
    with pytest.raises(ShardsFailed) as failure:
        take(tokenized)
    first, second, count = str(failure.value).splitlines()
    assert "1.parquet, row 1: token 1 is -7, expected an id from 0 to 319" in first
    assert "2.parquet, row 0: token 0 is 400" in second
    assert count == "2 of 3 shards failed; adopt again to redo just these"
    assert read_adopted(Store(str(tokenized.store)), "tokens") is None
    (tokenized.folder / "tokens" / "1.parquet").unlink()
    (tokenized.folder / "tokens" / "2.parquet").unlink()
    assert take(tokenized)["made"] == 0


def test_rows_of_one_other_length_are_noted(tokenized: World) -> None:
    file = tokenized.folder / "rows.parquet"
    pq.write_table(pa.table({"input_ids": [[1] * 32] * 4}), file)
    noted = take(tokenized, path=file, name="noted")
    assert "if they are packed already, adopt them with --sequence-length 32" in noted["notes"][0]
    assert noted["eos_added"] == 4
    packed = take(tokenized, path=file, name="packed", sequence_length=32)
    assert (packed["layout"], packed["sequences"], packed["eos_added"]) == ("rows", 4, 0)


def test_what_is_adopted_is_collected_only_when_other_recipes_alone_are_kept(
    given: World, tokenized: World
) -> None:
    take(tokenized)
    other = tokenized.folder / "other.toml"
    other.write_text(given.recipe.read_text())
    console = Console(file=io.StringIO())

    def gone(*keep: Path) -> list[str]:
        told = collect(keep, tokenized.settings, dry_run=True, console=console)
        return sorted(Path(entry["path"]).relative_to(tokenized.store).parts[0] for entry in told["removed"])

    assert gone() == []
    assert gone(tokenized.recipe) == []
    assert gone(other) == ["adopted", *["packing"] * 3]
    collect([other], tokenized.settings, dry_run=False, console=console)
    assert read_adopted(Store(str(tokenized.store)), "tokens") is None
    assert made(tokenized, "packing") == 0


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("download.adopted=others", "nothing was adopted as 'others' .* tokens"),
        ("packing.sequence_length=32", "packing.sequence_length is 32, 'tokens' was adopted in rows of 64"),
        ("tokenization.train_vocab_size=300", "tokenization works on text"),
        (
            "tokenization.max_run_fraction=0.5",
            "tokenization works on text, and",
        ),
        ("general.adopted=tokens", "found files and adopted"),
        ("download.text_column=body", "text_column is for a dataset or files, but adopted is given"),
    ],
)
def test_a_recipe_that_does_not_fit_what_it_adopts_is_told(
    tokenized: World, override: str, told: str
) -> None:
    take(tokenized)
    with pytest.raises(RecipeError, match=told):
        tokenized.resolve(override)


def test_rules_for_text_are_refused_where_no_general_text_is_judged_by_them(tokenized: World) -> None:
    take(tokenized)
    tokenized.resolve("dedup.threshold=0.5")
    alone = RECIPE.replace('[general]\nfiles = ["general/*.jsonl"]\n', "[dedup]\nthreshold = 0.5\n")
    tokenized.recipe.write_text(alone)
    with pytest.raises(RecipeError, match="dedup works on text"):
        tokenized.load()


def test_another_tokenizer_is_refused(tokenized: World) -> None:
    take(tokenized)
    file = tokenized.folder / "model" / "tokenizer_config.json"
    file.write_text(file.read_text().replace("PreTrainedTokenizerFast", "GPT2TokenizerFast"))
    with pytest.raises(RecipeError, match="is not the one that 'tokens' was adopted with"):
        tokenized.resolve()


@pytest.mark.flow
def test_killed_in_the_middle_it_goes_on_and_ends_with_the_same_bytes(tokenized: World) -> None:
    words = ["adopt", "tokens", "--tokenizer", "model", "--sequence-length", str(LENGTH), "--json"]
    with started(tokenized, *words, SLOW="packing 1", DAPT_WORKERS="1") as process:
        await_that(lambda: made(tokenized, "packing") >= 1, "a shard is adopted")
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    assert made(tokenized, "packing") < 3
    assert read_adopted(Store(str(tokenized.store)), "tokens") is None
    again = dapt(tokenized, *words, SLOW="none 0")
    assert again.code == 0
    assert 0 < again.told["made"] < 3
    assert "adopt: 3/3 shards" in again.err
    there = {file.parent.name: file.read_bytes() for file in tokenized.store.glob("packing/*/*/data.parquet")}
    shutil.rmtree(tokenized.store)
    take(tokenized)
    assert there == {f.parent.name: f.read_bytes() for f in tokenized.store.glob("packing/*/*/data.parquet")}


@pytest.mark.flow
def test_a_run_on_adopted_tokens_makes_a_lost_shard_again(tokenized: World, api: Api) -> None:
    take(tokenized)
    resolved = resolve(tokenized.load(), tokenized.settings)
    lost = resolved.chains["domain"].shards[1].nodes["packing"].path
    resolved.store.remove(lost)
    words = ["run", "recipe.toml", "--until", "corpus", "--json"]
    done = dapt(tokenized, *words, PREFECT_API_URL=api.url, SLOW="none 0")
    assert done.code == 0
    assert done.told["stages"]["packing"]["computed"] == 1
    assert [m["budget"] for m in done.told["milestones"]] == [5000, 11000]
    assert stands(resolved.store, lost)


@pytest.mark.flow
def test_a_data_set_of_the_hub_is_pinned_to_its_commit(tokenized: World) -> None:
    files = {f"data/train-{n}.parquet": write_tokens(tokenized, n).read_bytes() for n in range(2)}
    with HubServer() as hub:
        first = hub.publish("team/ids", files)
        env = {"HF_ENDPOINT": hub.url, "HF_HOME": str(tokenized.folder / "hub"), "SLOW": "none 0"}
        words = ["adopt", "team/ids", "--tokenizer", "model", "--sequence-length", str(LENGTH), "--json"]
        told = dapt(tokenized, *words, **env).told
        assert (told["name"], told["revision"], told["shards"]) == ("ids", first, 2)
        more = write_tokens(tokenized, 7).read_bytes()
        second = hub.publish("team/ids", {**files, "data/train-2.parquet": more})
        grown = dapt(tokenized, *words, **env).told
        assert (grown["revision"], grown["shards"], grown["made"]) == (second, 3, 1)
    adopted = read_adopted(Store(str(tokenized.store)), "ids")
    assert adopted is not None
    assert adopted.shards[0].node.reads["revision"] == first
