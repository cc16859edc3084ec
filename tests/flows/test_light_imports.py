"""What plans, explains and reads a store starts without Prefect, torch and their like."""

import subprocess
import sys

from tests.flows.world import ROOT

LIGHT = "chain inspect milestones outcome plan propose reasons recipe record resolve".split()
HEAVY = ("prefect", "torch", "transformers", "deepspeed", "lm_eval")


def test_the_modules_that_tell_import_neither_prefect_nor_torch() -> None:
    code = (
        f"import importlib, sys\nfor name in {LIGHT}:\n    importlib.import_module('flows.' + name)\n"
        f"    assert not set({HEAVY}) & set(sys.modules), name"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
