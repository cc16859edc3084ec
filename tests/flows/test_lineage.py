"""From a checkpoint back to files, revisions, configs and code; and what a step saw, down to the line."""

import hashlib
import io
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from rich.console import Console
from tokenizers import Tokenizer

from flows.adoption import adopt
from flows.lineage import documents_of_step, lineage, print_documents, print_lineage
from flows.milestones import base_model, corpus_nodes, milestone_models
from flows.outcome import walks_of
from flows.resolve import Resolved
from tasks.download.tokens import TokenSource
from tasks.store.code import code_commit, package_version
from tasks.store.errors import RecipeError, StoreDamaged
from tasks.store.json import JSON
from tasks.store.node import Node
from tasks.store.packed import PackedCorpus
from tasks.store.paths import Store
from tasks.store.shard import NodeWriter, build_node
from tests.flows.made import make_corpora
from tests.flows.world import LENGTH, World, prose


def pretend_to_train(resolved: Resolved) -> list[Node]:
    """Every model's node, committed as a training commits it, but for the training."""

    def build(writer: NodeWriter) -> None:
        writer.file("config.json", b"{}")
        writer.how["base"] = writer.node.reads.get("base", {})

    walks = walks_of(resolved)
    corpora = corpus_nodes(resolved, walks["domain"])
    models = [base_model(resolved), *milestone_models(resolved, walks, corpora)]
    nodes = [model.node for model in models if model.node]
    for node in nodes:
        build_node(resolved.store, node, build, room="tasks.training", shard="")
    return nodes


@pytest.fixture
def trained(standing: World) -> tuple[World, list[Node]]:
    """A world whose models stand: the base, 5K, 11K."""
    return standing, pretend_to_train(standing.resolve())


def told_of(told: JSON) -> list[str]:
    """The lines a person reads."""
    out = io.StringIO()
    (print_lineage if "nodes" in told else print_documents)(told, Console(file=out, width=80))
    return out.getvalue().splitlines()


def test_a_checkpoint_leads_back_to_its_files_configs_and_code(trained: tuple[World, list[Node]]) -> None:
    world, (base, _, large) = trained
    told = lineage(str(world.store / large.path))
    nodes = {node["path"]: node for node in told["nodes"]}
    assert told["path"] == str(world.store / large.path) == told["nodes"][0]["path"]
    stages = [node["stage"] for node in told["nodes"]]
    assert {stage: stages.count(stage) for stage in dict.fromkeys(stages)} == {
        "training": 2, "tokenizer": 1, "corpus": 2, "packing": 3, "tokenization": 3, "dedup": 3,
        "signatures": 3, "filtering": 3, "download": 3,
    }  # fmt: skip
    made_of = {Path(source["address"]).name: source["digest"] for source in told["sources"]}
    files = sorted((world.folder / "domain").glob("[012].jsonl"))
    assert made_of == {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in files}
    first = told["nodes"][0]
    assert first["config"]["learning_rate"] == 1e-3
    assert first["inputs"]["base"] == str(world.store / base.path)
    assert first["code"]["package"] == package_version()
    assert first["code"]["commit"] == code_commit()
    assert all(value in nodes for name, value in first["inputs"].items())
    assert told["missing"] == []
    assert json.loads(json.dumps(told)) == told


def test_any_file_of_a_node_is_a_way_in_whatever_store_it_lies_in(
    trained: tuple[World, list[Node]], monkeypatch: pytest.MonkeyPatch
) -> None:
    world, (_, small, _) = trained
    monkeypatch.chdir(world.store)
    whole = lineage(small.path)
    assert lineage(f"{small.path}/config.json") == whole
    packed = lineage(next(node["path"] for node in whole["nodes"] if node["stage"] == "packing"))
    assert [node["stage"] for node in packed["nodes"]][:2] == ["packing", "tokenization"]
    assert len(packed["sources"]) == 1


def test_what_was_removed_since_is_told(trained: tuple[World, list[Node]]) -> None:
    world, (_, _, large) = trained
    resolved = world.resolve()
    gone = resolved.chains["domain"].shards[1].nodes["filtering"].path
    resolved.store.remove(gone)
    told = lineage(str(world.store / large.path))
    assert told["missing"] == [str(world.store / gone)]
    assert f"removed since: {world.store / gone}" in told_of(told)


def test_a_tree_tells_each_stage_once_with_its_files_last(trained: tuple[World, list[Node]]) -> None:
    world, (_, _, large) = trained
    lines = told_of(lineage(str(world.store / large.path)))
    assert lines[0] == f"training  {world.store / large.path}"
    stages = [line.split()[0] for line in lines if line.split()[1:] and line.split()[-1] == "nodes"]
    assert stages == ["corpus", "packing", "tokenization", "dedup", "signatures", "filtering", "download"]
    assert sum(" file " in line for line in lines) == 3
    assert sum(" VERSION " in line and ", daptflow" in line for line in lines) == 10


def test_a_data_set_s_commit_and_the_part_that_was_read_are_told(tmp_path: Path) -> None:
    digest, commit = "ab" * 32, "12" * 20
    node = Node(stage="download", version=1, config={}, inputs={"file-00000": f"{digest} row groups 0-3"})

    def build(writer: NodeWriter) -> None:
        writer.file("data.parquet", b"")
        writer.details["sources"] = [f"hf://datasets/owner/name@{commit}/data/0.parquet"]

    build_node(Store(str(tmp_path)), node, build, room="tasks.download", shard="00000")
    (source,) = lineage(str(tmp_path / node.path))["sources"]
    assert source["address"] == f"hf://datasets/owner/name@{commit}/data/0.parquet"
    assert (source["revision"], source["digest"]) == (commit, digest)
    assert source["part"] == "row groups 0-3"


def test_a_step_s_documents_lead_to_the_lines_their_rows_were_made_of(
    trained: tuple[World, list[Node]],
) -> None:
    world, (_, _, large) = trained
    resolved = world.resolve()
    tokenizer = Tokenizer.from_file(str(world.folder / "model" / "tokenizer.json"))
    told = documents_of_step(str(world.store / large.path), 2)
    rows = [sequence["row"] for sequence in told["sequences"]]
    assert (told["step"], len(rows), len(set(rows))) == (2, 4, 4)
    with PackedCorpus(resolved.store, large.reads["corpora"][-1]) as corpus:
        for sequence in told["sequences"]:
            (row,) = corpus.rows(np.array([sequence["row"]]))
            pieces = tokenizer.decode(row.tolist(), skip_special_tokens=False).split("<|end|>")
            texts = []
            for document in sequence["documents"]:
                with Path(document["file"]).open("rb") as file:
                    file.seek(document["byte"])
                    texts.append(json.loads(file.readline())["text"])
            assert all(piece in text for piece, text in zip(pieces, texts, strict=False))
    assert told_of(told)[0] == f"corpus row {rows[0]}"


def test_the_steps_of_an_epoch_see_each_row_once(trained: tuple[World, list[Node]]) -> None:
    world, (_, small, _) = trained
    seen = [
        sequence["row"]
        for step in range(1, 20)
        for sequence in documents_of_step(str(world.store / small.path), step)["sequences"]
    ]
    assert len(seen) == len(set(seen)) == 76
    assert set(seen) <= set(range(79))


def test_adopted_documents_lead_to_their_rows(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(world.folder)
    tokenizer = Tokenizer.from_file(str(world.folder / "model" / "tokenizer.json"))
    ids = [tokenizer.encode(prose(number)).ids for number in range(60)]
    pq.write_table(pa.table({"input_ids": ids}), world.folder / "ids.parquet")
    options: JSON = {"name": "ids", "tokenizer": "model", "sequence_length": LENGTH}
    adopt(TokenSource("ids.parquet"), settings=world.settings, **options)
    recipe = world.recipe.read_text()
    source = recipe[recipe.index("[download]") : recipe.index("[packing]")]
    world.recipe.write_text(recipe.replace(source, '[download]\nadopted = "ids"\n\n'))
    resolved = world.resolve()
    make_corpora(resolved)
    large = pretend_to_train(resolved)[-1]
    document = documents_of_step(str(world.store / large.path), 1)["sequences"][0]["documents"][0]
    assert document["file"] == str(world.folder / "ids.parquet")
    assert document["id"].endswith(f"-{document['row']}")
    told = lineage(str(world.store / large.path))
    packing = next(node for node in told["nodes"] if node["stage"] == "packing")
    assert packing["given"]["adopted"]["column"] == "input_ids"
    assert told["sources"][0]["address"] == str(world.folder / "ids.parquet")


def test_what_has_no_such_step_is_told(trained: tuple[World, list[Node]]) -> None:
    world, (base, small, _) = trained
    for step in (0, 20):
        with pytest.raises(RecipeError, match="this training has the steps 1 to 19"):
            documents_of_step(str(world.store / small.path), step)
    with pytest.raises(RecipeError, match="is a base that no step trained"):
        documents_of_step(str(world.store / base.path), 1)
    with pytest.raises(RecipeError, match=r"--step is of a training, .* is corpus"):
        documents_of_step(str(world.store / small.reads["corpora"][0]), 1)
    with pytest.raises(RecipeError, match="lies in no node of a store"):
        lineage(str(world.recipe))
    with pytest.raises(StoreDamaged, match="it has no whole manifest"):
        lineage(str(world.store / "corpus" / "00" / ("0" * 64)))
