"""A run made to forget on purpose, caught by its tolerance; and the same run with replay, which passes.

    python -m tests.bench.forgetting [--keep FOLDER]

Real text (`DAPT_TEST_DATA`): a Llama of 631k parameters is trained on general text, then continued on
educational text at a high learning rate, without replay and with a quarter of general text. Both have the
same tolerance. Each is a `dapt run` of its own; printed is what it ended with, the slices before and after
with the interval of the change, and the stability gap on the way.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
DATA = Path(os.environ.get("DAPT_TEST_DATA", ROOT.parent / "shared" / "data"))
TOLERANCE = 0.05
RUNS = (("no replay", 0.0), ("a quarter is replayed", 0.25))
TRAINING = (
    'global_batch_sequences = 8\nbetas = [0.9, 0.95]\nweight_decay = 0.01\nprecision = "fp32"\nzero_stage = 1'
)
COMMON = "[packing]\nsequence_length = 256\n[held_out]\nfraction = 0.1\nmax_documents = 60\n"
BASE = f"""\
name = "base"
[budget]
milestones = ["300K"]
[download]
files = ["{DATA}/general/*.parquet"]
shard_bytes = "4MB"
[tokenization]
train_vocab_size = 2048
{COMMON}
[training]
base_model = "{ROOT}/deployments/recipes/tiny-llama"
learning_rate = 3e-3
{TRAINING}
"""
CONTINUED = f"""\
name = "continued"
[budget]
milestones = ["150K"]
[download]
files = ["{DATA}/edu/*.parquet"]
shard_bytes = "4MB"
{COMMON}
[general]
files = ["{DATA}/general/*.parquet"]
shard_bytes = "4MB"
[training]
base_model = "recipe:base.toml"
learning_rate = 6e-3
eval_at = [0, 0.25, 1]
{TRAINING}
[evaluation.tolerance]
general = {TOLERANCE}
"""


def main() -> None:
    """Train the base and both continuations, and print what became of them."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--keep", type=Path, help="a folder for recipes and store, which stays")
    given = parser.parse_args()
    if given.keep:
        given.keep.mkdir(parents=True, exist_ok=True)
        compare(given.keep)
        return
    with tempfile.TemporaryDirectory(prefix="dapt-") as folder:
        compare(Path(folder))


def compare(folder: Path) -> None:
    """Run everything in a folder."""
    (folder / "base.toml").write_text(BASE)
    (folder / "continued.toml").write_text(CONTINUED)
    code, _, err = dapt(folder, "base.toml")
    if code:
        sys.exit(err)
    for name, share in RUNS:
        code, told, err = dapt(folder, "continued.toml", f"general.replay_fraction={share}")
        if code not in (0, 4):
            sys.exit(err)
        print(f"{name}: exit {code}")
        after = told["milestones"][0]["scores"]["bits_per_byte"]
        report = json.loads(Path(told["report"]).with_suffix(".json").read_text())["facts"]["milestones"][0]
        for corpus, before in told["base"]["bits_per_byte"].items():
            delta = report["deltas"][f"bits_per_byte.{corpus}"]
            interval = f"{delta['low'] / before:+.1%} to {delta['high'] / before:+.1%}"
            print(f"  {corpus}: {before:.3f} -> {after[corpus]:.3f} bits per byte, 95% {interval}")
            gap = report["stability"][corpus]
            way = " ".join(f"{point['fraction']:.0%} {point['bits_per_byte']:.3f}" for point in gap["points"])
            print(f"    on the way: {way}; depth {gap['depth']:.3f}, recovery {gap['recovery'] or 0:.0%}")
        print("".join(f"  {line}\n" for line in (told["error"] or "").splitlines()), end="", flush=True)


def dapt(folder: Path, recipe: str, *overrides: str) -> tuple[int, dict[str, Any], str]:
    """`dapt run` of a recipe: its exit code, its JSON and what it said on stderr."""
    words = [sys.executable, "-c", "from deployments.dapt import main; main()", "run", recipe, "--json"]
    for override in overrides:
        words += ["--set", override]
    env = os.environ | {"DAPT_STORE": "store", "DAPT_RANKS": "1", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(words, cwd=folder, env=env, check=False, capture_output=True, text=True)
    return done.returncode, json.loads(done.stdout) if done.stdout else {}, done.stderr


if __name__ == "__main__":
    main()
