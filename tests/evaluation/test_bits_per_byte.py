import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM
from safetensors.torch import load_file, save_file

from tasks.evaluation.config import EvaluatedModel, held_out_node
from tasks.evaluation.held_out import score, windows
from tasks.evaluation.model import load
from tasks.evaluation.unit import build_held_out
from tasks.store.errors import SourceError
from tasks.store.paths import Store
from tasks.store.shard import build_node, read_table
from tests.evaluation.slices import make_shard
from tests.evaluation.tiny import TEXTS, evaluated_model, tiny_model

pytestmark = pytest.mark.train

CONTEXT = 64
"""Of the tests: short, so that documents need several windows."""

DOCUMENTS = [
    TEXTS[0],
    "",
    "x",
    TEXTS[2],
    " ".join(TEXTS) * 4,
    "a" * 40 + " the end",
    "é" * 200,
]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model(tmp_path_factory.mktemp("model"), context=CONTEXT, scale=8)


def spec(folder: Path, **more: object) -> dict[str, object]:
    return {"model": str(folder), "tokenizer": str(folder), "eos_id": 0, **more}


def test_windows_score_each_token_once_and_refill_the_last() -> None:
    found = windows(7, 150, 64)
    assert [(w.start, w.end, w.scored) for w in found] == [(0, 64, 64), (64, 128, 64), (86, 150, 22)]
    assert windows(7, 0, 64) == []
    assert [(w.start, w.end, w.scored) for w in windows(7, 64, 64)] == [(0, 64, 64)]


def test_nats_are_those_of_lm_evals_rolling_loglikelihood(model: Path) -> None:
    loaded = load(spec(model))
    tokens = [loaded.tokenizer(text, add_special_tokens=False)["input_ids"] for text in DOCUMENTS]
    assert max(map(len, tokens)) > 3 * CONTEXT
    reference = HFLM(
        pretrained=loaded.model,
        tokenizer=loaded.tokenizer,
        batch_size=2,
        max_length=CONTEXT,
        prefix_token_id=0,
        add_bos_token=False,
    )
    asked = [Instance("loglikelihood_rolling", {}, (text,), number) for number, text in enumerate(DOCUMENTS)]
    theirs = [-value for value in reference.loglikelihood_rolling(asked, disable_tqdm=True)]
    ours = score(loaded, tokens, context=CONTEXT)
    # float32 sums in another order; the facts of a real model were 1.2e-7.
    assert ours == pytest.approx(theirs, rel=1e-6)
    assert ours[1] == 0


def test_a_unit_measures_the_slice_and_leaves_no_work_behind(model: Path, tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    shard = make_shard(
        store,
        "one",
        {f"a-{n}": (text, "held_out" if n % 2 == 0 else None) for n, text in enumerate(DOCUMENTS)},
    )
    node = held_out_node(evaluated_model(model), [shard], max_documents=3, context=2000)
    manifest, made = build_node(store, node, build_held_out, room="tasks.evaluation", shard="base domain")
    items = read_table(store, node.path)
    held_out = DOCUMENTS[0:6:2]
    assert made
    assert items["id"].to_pylist() == ["a-0", "a-2", "a-4"]
    assert items["bytes"].to_pylist() == [len(text.encode()) for text in held_out]
    details = manifest.details
    assert details["documents"] == manifest.documents_in == manifest.documents_out == 3
    assert details["context"] == CONTEXT, "the model's own limit is smaller than the rows'"
    assert details["bits_per_byte"] == pytest.approx(details["bits"] / sum(items["bytes"].to_pylist()))
    loaded = load(spec(model))
    spent = {"cpu_seconds": pytest.approx(300, abs=299.9)} if loaded.device == "cpu" else {}
    tokens = [loaded.tokenizer(text, add_special_tokens=False)["input_ids"] for text in held_out]
    assert items["nats"].to_pylist() == pytest.approx(score(loaded, tokens, context=CONTEXT), rel=1e-6)
    assert manifest.how == {"device": loaded.device} | spent
    assert store.names(f"work/evaluation/{node.fingerprint}") == []


def test_an_empty_slice_is_not_measured_and_starts_no_process(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    shard = make_shard(store, "one", {"a-0": ("kept", None)})
    nowhere = {"folder": "/no/model", "reference": "/no/model", "revision": ""}
    evaluated = EvaluatedModel("m", nowhere, "t", nowhere, eos_id=0)
    node = held_out_node(evaluated, [shard], max_documents=3, context=64)
    manifest, _ = build_node(store, node, build_held_out, room="tasks.evaluation", shard="base domain")
    assert manifest.details["bits_per_byte"] is None
    assert manifest.details["documents"] == 0
    assert pq.read_metadata(tmp_path / node.path / "data.parquet").num_rows == 0


def test_mobilellms_own_folder_is_read_as_the_llama_it_is(model: Path, tmp_path: Path) -> None:
    for file in model.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    config = json.loads((model / "config.json").read_text()) | {
        "model_type": "mobilellm",
        "share_embedding": True,
    }
    config |= {
        "auto_map": {"AutoConfig": "configuration_mobilellm.MobileLLMConfig"},
        "tie_word_embeddings": False,
    }
    (tmp_path / "config.json").write_text(json.dumps(config))
    tokens = [[5, 6, 7, 8]]
    theirs, ours = load(spec(model)), load(spec(tmp_path))
    assert score(ours, tokens, context=CONTEXT) == score(theirs, tokens, context=CONTEXT)


def test_a_model_that_does_not_load_or_fit_is_named(model: Path, tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="does not load"):
        load(spec(tmp_path))
    narrow = tmp_path / "narrow"
    narrow.mkdir()
    for file in model.iterdir():
        if file.suffix == ".safetensors":
            weights = {
                name: tensor[:300] if "embed" in name else tensor for name, tensor in load_file(file).items()
            }
            save_file(weights, narrow / file.name, metadata={"format": "pt"})
        else:
            (narrow / file.name).write_text(
                file.read_text().replace('"vocab_size": 384', '"vocab_size": 300')
            )
    with pytest.raises(SourceError, match=r"has 384 entries, the model .* knows 300"):
        load(spec(narrow))
