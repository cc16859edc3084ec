"""What plans, explains and reads a store starts without Prefect, torch and their like."""

import subprocess
import sys

import pytest

from tests.flows.world import ROOT

LIGHT = [
    "adopted",
    "adoption",
    "chain",
    "doctor_check",
    "doctor_hub",
    "doctor_machine",
    "doctor_store",
    "gc",
    "inspect",
    "lineage",
    "milestones",
    "outcome",
    "plan",
    "propose",
    "reasons",
    "recipe",
    "record",
    "resolve",
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
