"""What plans, explains and reads a store starts without Prefect, torch and their like."""

import os
import subprocess
import sys

import pytest

from tests.flows.world import ROOT, World

LIGHT = [
    "adopted",
    "adoption",
    "chain",
    "compare",
    "doctor_check",
    "doctor_hub",
    "doctor_machine",
    "doctor_store",
    "gc",
    "inspect",
    "lineage",
    "look",
    "milestones",
    "outcome",
    "plan",
    "propose",
    "reasons",
    "recipe",
    "record",
    "resolve",
    "terminal",
]
HEAVY = ("prefect", "torch", "transformers", "deepspeed", "lm_eval")


@pytest.mark.slow
def test_the_modules_that_tell_import_neither_prefect_nor_torch() -> None:
    code = (
        f"import importlib, sys\nfor name in {LIGHT}:\n    importlib.import_module('flows.' + name)\n"
        f"    assert not set({HEAVY}) & set(sys.modules), name"
    )
    words = [sys.executable, "-c", code]
    done = subprocess.run(words, check=False, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("command", ["plan", "status", "show", "verify"])
def test_a_command_that_looks_starts_without_prefect_and_the_hubs_clients(command: str) -> None:
    """Their imports took more than a plan of 10,000 shards; what they need is imported when it is used."""
    code = "from deployments.dapt import main; main()"
    words = [sys.executable, "-X", "importtime", "-c", code, command, "--help"]
    done = subprocess.run(words, check=False, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert "flows.plan" in imported
    assert "huggingface_hub.hf_api" not in imported
    packages = {name.partition(".")[0] for name in imported}
    assert not packages & {"prefect", "datasets", "torch", "httpx2", "numba"}


@pytest.mark.slow
def test_a_plan_imports_nothing_that_computes(given: World) -> None:
    code = "from deployments.dapt import main; main()"
    words = [sys.executable, "-X", "importtime", "-c", code, "plan", "recipe.toml"]
    done = subprocess.run(
        words, check=False, cwd=given.folder, env=given.env(), capture_output=True, text=True, timeout=120
    )
    assert "nodes stand" in done.stdout, done.stderr
    imported = {line.rpartition("|")[2].strip().partition(".")[0] for line in done.stderr.splitlines()}
    assert "tokenizers" in imported
    assert not imported & {"prefect", "datasets", "torch", "numpy", "pyarrow", "numba"}


@pytest.mark.slow
def test_the_whole_command_line_has_the_commands_that_look() -> None:
    words = [sys.executable, "-c", "from deployments.dapt import main; main()", "--help"]
    done = subprocess.run(words, check=False, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert all(
        f" {command} " in done.stdout
        for command in ("init", "plan", "run", "status", "show", "verify", "compare")
    )


SPY = """
import os, sys
class Spy:
    def find_spec(self, name, path=None, target=None):
        if name == "prefect":
            seen.append(os.environ.get("DO_NOT_TRACK"))
seen = []
sys.meta_path.insert(0, Spy())
sys.argv = ["dapt", "run", "--help"]
from deployments.dapt import main
try:
    main()
finally:
    print(seen)
"""


def test_prefect_is_told_to_send_no_telemetry_before_it_is_imported() -> None:
    env = {name: value for name, value in os.environ.items() if name != "DO_NOT_TRACK"}
    done = subprocess.run(
        (sys.executable, "-c", SPY),
        check=False,
        cwd=ROOT,
        env=env,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.stdout.splitlines()[-1] == "['1']", done.stderr
