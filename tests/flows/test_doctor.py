"""`dapt doctor` as a command: exit codes, its JSON, what a recipe adds, no secret in what it prints."""

import json

import pytest

from tests.flows.commands import dapt
from tests.flows.world import World

pytestmark = pytest.mark.flow

MACHINE = {
    "python",
    "packages",
    "kernel cache",
    "torch",
    "deepspeed",
    "ranks",
    "memory",
    "cores",
    "shared memory",
    "open files",
    "store",
    "HF_HOME",
    "hub",
    "prefect",
    "disk",
}
SECRETS = {
    "HF_TOKEN": "hf_planted",
    "PREFECT_API_AUTH_STRING": "admin:planted",
    "HTTPS_PROXY": "http://me:planted@127.0.0.1:9",
    "HF_ENDPOINT": "http://127.0.0.1:9",
}


def test_a_machine_that_will_do_is_exit_0_whatever_the_network(world: World) -> None:
    before = sorted(world.store.rglob("*"))
    done = dapt(world, "doctor", **SECRETS)
    assert done.code == 0, done.out
    assert "warning  hub " in done.out
    assert "does not answer within 5 s, through HTTPS_PROXY=http://***@127.0.0.1:9" in done.out
    assert done.out.splitlines()[-1].endswith(" warning, 0 fails")
    assert "planted" not in done.out + done.err
    assert sorted(world.store.rglob("*")) == before


def test_a_recipe_that_will_not_work_is_exit_1_with_every_reason(world: World) -> None:
    file = world.folder / "model" / "config.json"
    huge = {"hidden_size": 65536, "intermediate_size": 262144, "num_hidden_layers": 200}
    file.write_text(json.dumps({**json.loads(file.read_text()), **huge}))
    benchmarks = 'evaluation.benchmarks=["lunch", "piqa"]'
    words = ["doctor", "recipe.toml", "--json", "--set", benchmarks]
    done = dapt(world, *words, DAPT_POOL="gpu", **SECRETS)
    assert done.code == 1
    checks = done.told["checks"]
    assert {frozenset(check) for check in checks} == {
        frozenset({"check", "state", "found", "expected", "do"})
    }
    by_name = {check["check"]: check for check in checks}
    assert set(by_name) >= MACHINE
    failing = {name for name, check in by_name.items() if check["state"] == "fails"}
    assert failing == {"prefect", "dataset baber/piqa", "benchmarks", "disk", "training memory"}
    assert all(by_name[name]["do"] and by_name[name]["expected"] for name in failing)
    assert "planted" not in done.out + done.err


def test_a_bad_recipe_is_exit_2(given: World) -> None:
    done = dapt(given, "doctor", "recipe.toml", "--set", "seed=-1", "--json")
    assert (done.code, done.out) == (2, "")
    assert "error: " in done.err
