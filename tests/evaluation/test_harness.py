import contextlib
import json
import re
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from lm_eval.api.instance import Instance

from tasks.evaluation.config import EvaluationConfig, benchmark_node
from tasks.evaluation.harness import ToldLM, spread
from tasks.evaluation.model import load
from tasks.evaluation.unit import build_benchmark
from tasks.runtime.job import Job
from tasks.store.errors import RecipeError, SourceError
from tasks.store.manifest import Manifest
from tasks.store.node import Node
from tasks.store.paths import Store
from tasks.store.shard import build_node, read_table
from tests.evaluation.hub_folders import small_piqa
from tests.evaluation.tiny import evaluated_model, tiny_model
from tests.hub_server import HubServer, hub_of

pytestmark = pytest.mark.train

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model(tmp_path_factory.mktemp("model"), scale=8)


@pytest.fixture(scope="module")
def small_hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HubServer]:
    with hub_of(small_piqa(tmp_path_factory.mktemp("hub"), items=150)) as hub:
        yield hub


@pytest.fixture(scope="module")
def filled_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("hf")


def node_of(model: Path, benchmark: str, *, limit: int = 5) -> Node:
    config = EvaluationConfig(benchmarks=[benchmark], limit=limit)
    return benchmark_node(config, benchmark, evaluated_model(model))


def build(store: Path, node: Node) -> Manifest:
    return build_node(Store(str(store)), node, build_benchmark, room="tasks.evaluation", shard="x")[0]


def online(patch: pytest.MonkeyPatch, hub: HubServer, home: Path) -> None:
    patch.setenv("HF_ENDPOINT", hub.url)
    patch.setenv("HF_HOME", str(home))
    patch.delenv("HF_HUB_OFFLINE", raising=False)
    patch.setenv("OMP_NUM_THREADS", "1")


def test_a_local_folder_serves_as_the_hub_does_without_a_network(
    model: Path, small_hub: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = small_piqa(tmp_path / "benchmarks", items=150)
    node = node_of(model, "piqa")
    online(monkeypatch, small_hub, tmp_path / "hf")
    wanted = build(tmp_path / "hub", node).details
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "empty"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("DAPT_BENCHMARKS", str(folder / "nothing"))
    with pytest.raises(SourceError, match=r"DAPT_BENCHMARKS=.*is no folder"):
        build(tmp_path / "local", node)
    monkeypatch.setenv("DAPT_BENCHMARKS", str(folder))
    found = build(tmp_path / "local", node).details
    digest = found["datasets"]["baber/piqa"]
    assert re.fullmatch("sha256:[0-9a-f]{64}", digest)
    assert found == wanted | {"datasets": {"baber/piqa": digest}}


REFERENCE = """
import json, sys
from lm_eval import simple_evaluate
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager
from tasks.evaluation.names import FOLDERS, definitions
names = sys.argv[2:]
folders = [definitions() / FOLDERS[name] for name in names]
found = simple_evaluate(
    model=HFLM(pretrained=sys.argv[1], device="cpu", dtype="float32", batch_size=3), tasks=names, limit=5,
    task_manager=TaskManager(include_defaults=False, include_path=folders),
)
answers = {name: [[answer[0] for answer in sample["filtered_resps"]] for sample in found["samples"][name]]
           for name in names}
told = {name: [found["versions"][name], found["results"][name], answers[name]] for name in names}
print(json.dumps(told, default=str))
"""


def test_real_splits_score_as_in_lm_evals_own_run(
    model: Path, data_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = ["arc_easy", "piqa", "boolq"]
    with hub_of(data_folder / "benchmarks") as hub:
        online(monkeypatch, hub, tmp_path / "hf")
        manifests = {name: build(tmp_path / "store", node_of(model, name)) for name in names}
    # What the mirror gave is in the cache: lm-eval's own run needs no network.
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    words = [sys.executable, "-c", REFERENCE, str(model), *names]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    reference = json.loads(done.stdout.strip().splitlines()[-1])
    for name, manifest in manifests.items():
        version, theirs, answers = reference[name]
        items = read_table(Store(str(tmp_path / "store")), node_of(model, name).path)
        details = manifest.details
        assert details["version"] == str(version) == {"boolq": "2.0"}.get(name, "1.0")
        assert details["items"] == manifest.documents_in == len(items) == 5
        assert details["metric"] == ("acc" if name == "boolq" else "acc_norm")
        assert details["score"] == details[details["metric"]]
        for metric in ("acc", "acc_stderr", "acc_norm", "acc_norm_stderr"):
            assert details.get(metric) == theirs.get(f"{metric},none")
        for ours, reference_answers in zip(items["log_likelihoods"].to_pylist(), answers, strict=True):
            assert ours == pytest.approx(reference_answers, rel=1e-4)  # other batches, float32
        assert items["correct"].to_pylist() == [
            chosen == target
            for chosen, target in zip(items["chosen"].to_pylist(), items["target"].to_pylist(), strict=True)
        ]
        assert all(len(revision) == 40 for revision in details["datasets"].values())


def test_a_limit_is_of_the_whole_group(
    model: Path, data_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with hub_of(data_folder / "benchmarks") as hub:
        online(monkeypatch, hub, tmp_path / "hf")
        details = build(tmp_path / "store", node_of(model, "mmlu", limit=60)).details
    assert details["items"] == 60
    assert details["version"] == "2"
    assert details["chance"] == pytest.approx(0.25)
    assert "mmlu_professional_law" in details["subjects"]
    items = read_table(Store(str(tmp_path / "store")), node_of(model, "mmlu", limit=60).path)
    assert details["score"] == pytest.approx(sum(items["correct"].to_pylist()) / 60)


def test_a_killed_unit_goes_on_where_it_was(
    model: Path, small_hub: HubServer, filled_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    online(monkeypatch, small_hub, filled_cache)
    node = node_of(model, "piqa", limit=0)
    whole = build(tmp_path / "whole", node)
    assert whole.how["answers_computed"] == 300
    code = (
        "import json, sys; from tasks.evaluation.unit import build_benchmark;"
        "from tasks.store.node import Node;"
        "from tasks.store.paths import Store; from tasks.store.shard import build_node;"
        "build_node(Store(sys.argv[1]), Node.from_json(json.loads(sys.argv[2])), build_benchmark,"
        " room='tasks.evaluation', shard='x')"
    )
    words = [sys.executable, "-c", code, str(tmp_path / "killed"), json.dumps(node.to_json())]
    work = tmp_path / "killed" / "work" / "evaluation" / node.fingerprint
    with subprocess.Popen(words, cwd=ROOT) as running:
        deadline = time.monotonic() + 120
        while answered(work, node) == 0 and time.monotonic() < deadline:
            time.sleep(0.01)
        running.send_signal(signal.SIGKILL)
    before = answered(work, node)
    assert 0 < before < 300, "the kill was meant to come in the middle"
    assert not (tmp_path / "killed" / node.path / "manifest.json").exists()
    resumed = build(tmp_path / "killed", node)
    assert resumed.how["answers_computed"] <= 300 - before
    ours, theirs = (read_table(Store(str(tmp_path / name)), node.path) for name in ("killed", "whole"))
    for one, other in zip(ours.to_pylist(), theirs.to_pylist(), strict=True):
        assert one.pop("log_likelihoods") == pytest.approx(other.pop("log_likelihoods"), rel=1e-5)
        assert one == other
    assert resumed.details == whole.details
    assert not work.exists()


def answered(work: Path, node: Node) -> int:
    file = work / f"responses-{node.fingerprint}.db"
    if not file.exists():
        return 0
    with contextlib.closing(sqlite3.connect(f"file:{file}?mode=ro", uri=True, timeout=5)) as base:
        try:
            return int(base.execute("select count(*) from unnamed").fetchone()[0])
        except sqlite3.OperationalError:
            return 0


def test_what_cannot_be_had_is_named_with_a_remedy(
    model: Path, small_hub: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    online(monkeypatch, small_hub, tmp_path / "hf")
    told = (
        "the benchmark winogrande needs the data set allenai/winogrande, which cannot be had: .*HF_ENDPOINT"
    )
    with pytest.raises(SourceError, match=told):
        build(tmp_path / "store", node_of(model, "winogrande"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    started = time.monotonic()
    with pytest.raises(SourceError, match=r"baber/piqa, which is not in the cache \(HF_HUB_OFFLINE is set\)"):
        build(tmp_path / "store", node_of(model, "piqa"))
    assert time.monotonic() - started < 60, "offline is offline: nothing is waited for"
    with pytest.raises(RecipeError, match="did you mean piqa"):
        build(tmp_path / "store", node_of(model, "piqaa"))


def test_a_context_too_short_for_an_answer_is_told(tmp_path: Path) -> None:
    folder = str(tiny_model(tmp_path / "model", context=16))
    loaded = load({"model": folder, "tokenizer": folder, "eos_id": 0})
    (tmp_path / "job.json").write_text("{}")
    told = ToldLM(loaded, "piqa", Job(tmp_path / "job.json"))
    asked = [
        Instance("loglikelihood", {}, ("Question: which?", answer), 0) for answer in (" A", " word" * 40)
    ]
    assert len(told.loglikelihood(asked[:1], disable_tqdm=True)) == 1
    with pytest.raises(SourceError, match=r"an answer of piqa has .* tokens, the model reads 16 at once"):
        told.loglikelihood(asked, disable_tqdm=True)


def test_a_limit_is_shared_by_size() -> None:
    assert spread({"a": 100, "b": 50, "c": 1}, 3) == {"a": 2, "b": 1, "c": 0}
    assert spread({"a": 10, "b": 10, "c": 10}, 4) == {"a": 2, "b": 1, "c": 1}
    assert spread({"a": 2, "b": 3}, 5) == spread({"a": 2, "b": 3}, 99) == {"a": 2, "b": 3}
