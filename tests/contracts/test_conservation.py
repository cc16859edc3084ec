"""Promise: every document and every token is accounted for, and each document closes with exactly one EOS."""

import json
from collections import Counter
from itertools import pairwise
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from tokenizers import Tokenizer

from tasks.store.paths import Store
from tasks.store.shard import read_table
from tests.contracts.conftest import Grown, Scratch
from tests.contracts.sources import EOS
from tests.contracts.world import LENGTH, World, conserve, corpus_shards, manifests

pytestmark = pytest.mark.flow


def source_documents(folder: Path) -> list[str]:
    """All texts of the source files, in order, read without any code of ours."""
    found: list[str] = []
    for path in sorted(folder.iterdir()):
        if path.suffix == ".parquet":
            found += pq.read_table(path, columns=["text"])["text"].to_pylist()
        else:
            found += [json.loads(line)["text"] for line in path.read_text().splitlines()]
    return found


def test_every_manifest_and_every_table_accounts_for_its_documents_and_tokens(grown: Grown) -> None:
    conserve(grown.store)


def test_what_one_stage_lets_out_the_next_takes_in(grown: Grown) -> None:
    for done in (grown.small, grown.large):
        stages = done.body["stages"]
        for one, other in pairwise(("download", "filtering", "dedup", "tokenization", "packing")):
            assert stages[one]["documents_out"] == stages[other]["documents_in"]
        assert {"min_lines", "dup_line_frac"} <= stages["filtering"]["dropped"].keys()
        assert {"exact", "near", "held_out"} <= stages["dedup"]["dropped"].keys(), (
            "the sources hold all kinds"
        )


def test_packed_rows_decode_to_the_kept_documents_whole_once_and_in_order(world: World, grown: Grown) -> None:
    tokenizer = Tokenizer.from_file(str(world.base / "tokenizer.json"))
    texts = source_documents(world.sources)
    place = {text: number for number, text in reversed(list(enumerate(texts)))}
    store = Store(str(grown.store))
    tokenized = {m["fingerprint"]: path for path, m in manifests(grown.store, "tokenization").items()}
    packed = manifests(grown.store, "packing")
    seen: list[int] = []
    for shard in corpus_shards(grown.large.body["milestones"][1]):
        table = read_table(store, shard["path"])
        flat = [token for row in table["input_ids"].to_pylist() for token in row]
        starts = [n * LENGTH + s for n, row in enumerate(table["doc_starts"].to_pylist()) for s in row]
        assert starts[0] == 0
        decoded = []
        for begin, end in pairwise(starts):
            assert flat[end - 1] == EOS
            assert EOS not in flat[begin : end - 1]
            decoded.append(tokenizer.decode(flat[begin : end - 1], skip_special_tokens=False))
        ids = list(dict.fromkeys(i for row in table["doc_ids"].to_pylist() for i in row))
        rows = read_table(store, tokenized[packed[shard["path"]]["inputs"]["tokenization"]])
        assert ids == rows.filter(rows["kept"])["id"].to_pylist()[: len(ids)]
        assert len(ids) == len(starts)
        seen += [place[text] for text in decoded]
    assert seen == sorted(set(seen))


def test_each_document_ends_in_exactly_one_place(scratch: Scratch) -> None:
    """By ids: dropped once for one reason, or tokenized."""
    store = Store(str(scratch.store))
    fetched = [
        i for path in manifests(scratch.store, "download") for i in read_table(store, path)["id"].to_pylist()
    ]
    assert len(set(fetched)) == scratch.large.body["stages"]["download"]["documents_out"]
    ends: Counter[str] = Counter()
    for stage in ("filtering", "dedup", "tokenization"):
        for path in manifests(scratch.store, stage):
            rows = read_table(store, path, columns=["id", "kept", "reason"]).to_pylist()
            assert all((row["reason"] is None) == row["kept"] for row in rows)
            ends.update(row["id"] for row in rows if not row["kept"] or stage == "tokenization")
    assert ends == Counter(fetched)


def test_a_duplicate_names_a_kept_document_that_stands_before_it(grown: Grown) -> None:
    store = Store(str(grown.store))
    fetched = manifests(grown.store, "download")
    texts = {row["id"]: row["text"] for path in fetched for row in read_table(store, path).to_pylist()}
    rows = [row for path in manifests(grown.store, "dedup") for row in read_table(store, path).to_pylist()]
    verdicts = {row["id"]: row for row in rows}
    exact = [row for row in rows if row["reason"] == "exact"]
    assert exact
    for row in rows:
        if row["reason"] in ("exact", "near"):
            original = verdicts[row["duplicate_of"]]
            assert original["reason"] in (None, "held_out")
    assert all(texts[row["id"]] == texts[row["duplicate_of"]] for row in exact)
