"""What `dapt doctor` says of the Hub, asked over loopback.

In processes of their own, because HF_ENDPOINT is read at import. The refusals are the Hub's own: status
and headers as `huggingface_hub` reads them.
"""

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from flows.doctor_hub import benchmark_data, benchmark_repositories, benchmarks, repositories
from tests.flows.tiny_recipe import recipe
from tests.flows.world import ROOT
from tests.hub_server import HubServer

ASK = """
import dataclasses, json, sys
from flows import doctor_check, doctor_hub
names = [doctor_hub.Repository(*one) for one in json.loads(sys.argv[1])]
questions = {"hub": doctor_hub.hub}
questions |= {f"{one.kind} {one.name}": lambda one=one: doctor_hub.access(one) for one in names}
found = doctor_check.ask_all(questions, limit_s=60)
print(json.dumps([dataclasses.asdict(check) for check in found]))
"""

REFUSALS = {
    "closed/no-token": (401, {"X-Error-Code": "GatedRepo", "X-Error-Message": "Access is restricted."}),
    "closed/not-yours": (403, {"X-Error-Code": "GatedRepo", "X-Error-Message": "Ask for access."}),
    "hidden/or-none": (401, {"X-Error-Message": "Invalid username or password."}),
    "no/such": (404, {"X-Error-Code": "RepoNotFound"}),
    "old/revision": (404, {"X-Error-Code": "RevisionNotFound"}),
    "off/limits": (403, {"X-Error-Message": "Access to this resource is disabled."}),
    "fine/grained": (403, {"X-Error-Message": "Your token lacks the right."}),
    "bad/token": (401, {"X-Error-Message": "Invalid credentials in Authorization header"}),
    "tired/hub": (503, {}),
}


def ask(url: str, folder: Path, names: list[tuple[str, str]], **env: str) -> dict[str, dict[str, Any]]:
    """Checks by name."""
    words = [sys.executable, "-W", "ignore", "-c", ASK]
    words.append(json.dumps([[kind, name, "", "training.base_model"] for kind, name in names]))
    own = {"HF_ENDPOINT": url, "HF_HOME": str(folder / "hf"), "HF_TOKEN": "", **env}
    done = subprocess.run(
        words, env=os.environ | own, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert "hf_planted" not in done.stdout + done.stderr
    return {check["check"]: check for check in json.loads(done.stdout)}


@pytest.fixture
def hub() -> Iterator[HubServer]:
    with HubServer() as server:
        yield server


@pytest.mark.slow
def test_each_refusal_of_the_hub_is_told_apart_with_what_to_do(hub: HubServer, tmp_path: Path) -> None:
    hub.refused = dict(REFUSALS)
    hub.publish("open/data", {"README.md": b"# Data"})
    names = [("model", name) for name in REFUSALS] + [("dataset", "open/data"), ("model", "open/model")]
    found = ask(hub.url, tmp_path, [*names, ("dataset", "closed/no-token")], HF_TOKEN="hf_planted")
    told = {name: (found[f"model {name}"]["state"], found[f"model {name}"]["found"]) for name in REFUSALS}
    assert told == {
        "closed/no-token": ("fails", "it is gated, not for the token at hand"),
        "closed/not-yours": ("fails", "it is gated, not for the token at hand"),
        "hidden/or-none": ("fails", f"not found on {hub.url} with the token at hand"),
        "no/such": ("fails", f"not found on {hub.url} with the token at hand"),
        "old/revision": ("fails", "it has no revision 'main'"),
        "off/limits": ("fails", "the Hub has disabled it"),
        "fine/grained": ("fails", "the token at hand is refused (403)"),
        "bad/token": ("fails", "the token at hand is refused (401)"),
        "tired/hub": ("warning", "the Hub answers 503"),
    }
    for kind, page in (("model", "closed/no-token"), ("dataset", "datasets/closed/no-token")):
        do = found[f"{kind} closed/no-token"]["do"]
        assert do.startswith(f"accept its terms on {hub.url}/{page}, then set HF_TOKEN")
    assert (found["dataset open/data"]["state"], found["model open/model"]["state"]) == ("ok", "ok")
    assert (found["hub"]["state"], found["hub token"]["state"]) == ("ok", "ok")


@pytest.mark.slow
def test_a_gated_repository_without_a_token_and_a_token_that_is_refused(
    hub: HubServer, tmp_path: Path
) -> None:
    hub.refused = dict(REFUSALS)
    without = ask(hub.url, tmp_path, [("model", "closed/no-token")])
    assert without["model closed/no-token"]["found"] == "it is gated, and no token opens it"
    assert without["hub token"]["found"] == "none: public repositories only"
    hub.refused["whoami-v2"] = (401, {})
    refused = ask(hub.url, tmp_path, [], HF_TOKEN="hf_planted")
    assert refused["hub token"]["state"] == "fails"


@pytest.mark.slow
def test_a_hub_that_takes_the_call_and_says_nothing_costs_seconds(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        names = [("model", "a/b"), ("dataset", "c/d")]
        found = ask(url, tmp_path, names, HTTPS_PROXY="http://me:planted@127.0.0.1:9")
    assert found["hub"]["state"] == "warning"
    assert "does not answer within 5 s, through HTTPS_PROXY=http://***@127.0.0.1:9" in found["hub"]["found"]
    assert found["model a/b"]["state"] == found["dataset c/d"]["state"] == "fails"
    assert "the cache does not hold it" in found["model a/b"]["found"]


@pytest.mark.slow
def test_offline_the_cache_is_looked_at(tmp_path: Path) -> None:
    cache = tmp_path / "hf" / "hub"
    for name, files in {
        "own/whole": ["config.json", "model.safetensors"],
        "own/bare": ["config.json"],
    }.items():
        folder = cache / f"models--{name.replace('/', '--')}"
        (folder / "refs").mkdir(parents=True)
        (folder / "refs" / "main").write_text("c0ffee")
        (folder / "snapshots" / "c0ffee").mkdir(parents=True)
        for file in files:
            (folder / "snapshots" / "c0ffee" / file).write_text("{}")
    (cache / "datasets--own--data").mkdir()
    names = [("model", "own/whole"), ("model", "own/bare"), ("model", "own/none"), ("dataset", "own/data")]
    found = ask("http://127.0.0.1:9", tmp_path, [*names, ("dataset", "own/no-data")], HF_HUB_OFFLINE="1")
    assert found["hub"]["found"].startswith("switched off by HF_HUB_OFFLINE")
    states = [found[f"{kind} {name}"]["state"] for kind, name in names]
    assert states == ["ok", "warning", "fails", "ok"]
    assert found["dataset own/no-data"]["state"] == "fails"


def test_what_a_recipe_reads_from_the_hub_is_named_once() -> None:
    tiny = recipe(base_model="owner/model")
    download = tiny.download.model_copy(update={"files": (), "dataset": "owner/data"})
    evaluation = tiny.evaluation.model_copy(update={"benchmarks": ["arc_easy", "arc_challenge", "mmlu"]})
    tokenization = tiny.tokenization.model_copy(update={"tokenizer": "owner/model"})
    parts = {"download": download, "evaluation": evaluation, "tokenization": tokenization}
    whole = tiny.model_copy(update=parts)
    found = [(one.kind, one.name, one.asked_by) for one in repositories(whole)]
    assert found == [
        ("model", "owner/model", "training.base_model"),
        ("dataset", "owner/data", "download.dataset"),
    ]
    data = [(one.kind, one.name, one.asked_by) for one in benchmark_repositories(whole)]
    assert data == [
        ("dataset", "allenai/ai2_arc", "the benchmark arc_easy"),
        ("dataset", "cais/mmlu", "the benchmark mmlu"),
    ]
    assert repositories(recipe(base_model="/folder")) == []
    assert repositories(recipe(base_model="recipe:/base.toml")) == []


def test_each_known_benchmark_names_its_data_and_an_unknown_one_fails() -> None:
    assert benchmark_data("boolq") == ["aps/super_glue"]
    assert benchmark_data("nobody_knows") == []
    tiny = recipe()
    known = tiny.evaluation.model_copy(update={"benchmarks": ["piqa"]})
    assert [c.state for c in benchmarks(tiny.model_copy(update={"evaluation": known}))] == ["ok"]
