"""Training speed and memory: ours, Hugging Face's Trainer, what each setting costs, and a second rank.

    python -m tests.bench.bench_training [--table]

Model and data are random and made here: MobileLLM-125M's shape and 2,000 tokens on a GPU, a Llama of a
million parameters on a CPU. Each row is a fresh process on the same model, sequences and tokens a step; the
first steps are not counted. On a CPU a rank has one thread and speed is tokens a CPU second of all ranks,
which other work on the machine hardly changes; on a GPU it is tokens a second. One hook of torch's, called
after each optimizer step, times both sides; on a GPU it waits for the device, once a step.

`fast` is ZeRO-1 and no gradient checkpointing, compiled on a GPU; `paper` ZeRO-3, all offloaded, gradient
checkpointing. The Trainer's best is SDPA, fused AdamW and bf16 on a GPU (compiled too, in a row of its own),
and the paper's flags go to it as DeepSpeed's JSON. This takes 90 CPU seconds; `--table` runs every setting
of ZeRO, offload, gradient checkpointing and chunked loss instead, in about 5 minutes.
"""

import argparse
import itertools
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from pydantic import ValidationError
from torch.optim.optimizer import register_optimizer_step_post_hook
from transformers import LlamaConfig, LlamaForCausalLM, Trainer, TrainingArguments

from tasks.runtime.job import Job
from tasks.store.node import Node
from tasks.store.paths import Store
from tasks.store.shard import NodeWriter, build_node
from tasks.training import loop
from tasks.training.config import TrainingConfig, TrainingJob
from tasks.training.zero import environment

CUDA = torch.cuda.is_available()
ROOT = Path(__file__).parents[2]
LENGTH = 2000 if CUDA else 256
BATCH, MICRO_BATCH = (64, 16) if CUDA else (8, 4)
WARM = 3
SHAPE = (
    {"vocab_size": 32000, "hidden_size": 576, "intermediate_size": 1536, "num_hidden_layers": 30}
    | {"num_attention_heads": 9, "num_key_value_heads": 3}
    if CUDA
    else {"vocab_size": 2048, "hidden_size": 128, "intermediate_size": 352, "num_hidden_layers": 4}
    | {"num_attention_heads": 4, "num_key_value_heads": 2}
)
FAST = {"zero_stage": 1, "compile": CUDA}
PAPER = {"zero_stage": 3, "offload": "all", "gradient_checkpointing": True}
Row = dict[str, Any]


def make_world(folder: Path, sequences: int) -> tuple[str, str]:
    """A base with random weights, and a corpus of random tokens; the store, and where the corpus is in it."""
    torch.manual_seed(0)
    config = LlamaConfig(**SHAPE, max_position_embeddings=LENGTH, tie_word_embeddings=True)
    LlamaForCausalLM(config).save_pretrained(folder / "base")
    store = Store(str(folder / "store"))
    packed = Node(stage="packing", version=1, config={}, inputs={})
    corpus = Node(stage="corpus", version=1, config={}, inputs={"packing": packed.fingerprint})

    def build_packed(writer: NodeWriter) -> None:
        ids = np.random.default_rng(0).integers(SHAPE["vocab_size"], size=sequences * LENGTH, dtype=np.uint16)
        table = pa.table({"input_ids": pa.FixedSizeListArray.from_arrays(pa.array(ids), LENGTH)})
        with writer.parquet(table.schema) as out:
            out.write_table(table, row_group_size=100)

    def build_corpus(writer: NodeWriter) -> None:
        writer.corpus = {
            "budget": sequences * LENGTH,
            "sequence_length": LENGTH,
            "sequences": sequences,
            "shards": [{"path": packed.path, "rows": sequences}],
        }

    build_node(store, packed, build_packed, room="tasks.packing", shard="00000")
    build_node(store, corpus, build_corpus, room="tasks.packing", shard="bench")
    return store.root, corpus.path


def ours(folder: Path, given: Row) -> None:
    """Train as `dapt run` does, in this process."""
    if not given["chunked"]:
        loop.chunk_loss = lambda model: False
    job = TrainingJob(
        config=config_of(given["fields"]),
        seed=1,
        base=given["base"],
        store=given["store"],
        corpus=given["corpus"],
        borders=(given["steps"] * BATCH,),
        micro_batch=MICRO_BATCH,
        checkpoint=None,
        leads=True,
    )
    if os.environ["RANK"] == "0":
        (folder / "job.json").write_text(job.model_dump_json())
    while not (folder / "job.json").exists():
        time.sleep(0.1)
    loop.train(Job(folder / "job.json"))


def config_of(fields: Row) -> TrainingConfig:
    """A recipe's training section.

    Raises:
        ValidationError: there is no such setting.
    """
    precision = "bf16" if CUDA else "fp32"
    given: Row = {"precision": precision, "checkpoint_every": 10**6, **fields}
    return TrainingConfig(base_model="bench", global_batch_sequences=BATCH, **given)


class Sequences(torch.utils.data.Dataset[Row]):
    """The corpus as the Trainer takes it, in memory."""

    def __init__(self, count: int) -> None:
        rng = torch.Generator().manual_seed(0)
        self._ids = torch.randint(SHAPE["vocab_size"], (count, LENGTH), generator=rng)

    def __len__(self) -> int:
        return len(self._ids)

    def __getitem__(self, at: int) -> Row:
        return {"input_ids": self._ids[at], "labels": self._ids[at]}


def theirs(folder: Path, given: Row) -> None:
    """Train with Hugging Face's Trainer, in this process."""
    model = LlamaForCausalLM.from_pretrained(given["base"], attn_implementation="sdpa", dtype=torch.float32)
    deepspeed: Row | None = None
    if given["paper"]:
        loop.deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = CUDA  # as in our own loop
        offload = {"device": "cpu"}
        deepspeed = {
            "zero_optimization": {"stage": 3, "offload_optimizer": offload, "offload_param": offload},
            "zero_force_ds_cpu_optimizer": False,
            "zero_allow_untested_optimizer": True,
            "bf16": {"enabled": CUDA},
            "gradient_clipping": 1.0,
            "train_micro_batch_size_per_gpu": MICRO_BATCH,
            "gradient_accumulation_steps": BATCH // MICRO_BATCH,
        }
    arguments = TrainingArguments(
        output_dir=str(folder),
        max_steps=given["steps"],
        per_device_train_batch_size=MICRO_BATCH,
        gradient_accumulation_steps=BATCH // MICRO_BATCH,
        gradient_checkpointing=given["paper"],
        gradient_checkpointing_kwargs={"use_reentrant": False} if given["paper"] else None,
        optim="adamw_torch" if given["paper"] else "adamw_torch_fused",
        torch_compile=given["compile"],
        deepspeed=deepspeed,
        bf16=CUDA,
        use_cpu=not CUDA,
        lr_scheduler_type="cosine",
        save_strategy="no",
        logging_strategy="no",
        report_to=[],
        disable_tqdm=True,
    )
    Trainer(model=model, args=arguments, train_dataset=Sequences(given["steps"] * BATCH)).train()


def child(folder: Path) -> None:
    """One rank of a row: train, then leave what it took beside the job."""
    given: Row = json.loads((folder / "given.json").read_text())
    marks: list[tuple[float, float]] = []

    def mark(*_: object) -> None:
        if CUDA:
            torch.cuda.synchronize()
        marks.append((time.perf_counter(), time.process_time()))

    register_optimizer_step_post_hook(mark)
    torch.set_num_threads(1)
    {"ours": ours, "theirs": theirs}[given["side"]](folder, given)
    calls = len(marks) // given["steps"]  # ZeRO-3 steps on a part of the parameters at a time
    (wall, cpu), (end_wall, end_cpu) = marks[calls * WARM - 1], marks[-1]
    took = {
        "wall_s": end_wall - wall,
        "cpu_s": end_cpu - cpu,
        "rss": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        "device": torch.cuda.max_memory_allocated() if CUDA else 0,
    }
    (folder / f"rank-{os.environ['RANK']}.json").write_text(json.dumps(took))


def measure(world: Row, side: str, *, steps: int, ranks: int = 1, **given: Any) -> Row:
    """Run a row in fresh processes: tokens a second (a CPU second without a GPU), peak bytes; or `error`."""
    with tempfile.TemporaryDirectory() as work:
        folder = Path(work)
        (folder / "given.json").write_text(json.dumps({**world, **given, "side": side, "steps": steps}))
        words = [sys.executable, "-m", "tests.bench.bench_training", "--child", work]
        env = {**os.environ, **environment(ranks, cores=ranks), "PYTHONPATH": str(ROOT)}
        if ranks > 1:
            words[2:2] = ["torch.distributed.run", "--standalone", f"--nproc_per_node={ranks}", "-m"]
        else:
            env |= {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "LOCAL_WORLD_SIZE": "1"}
            env |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29533"}
        done = subprocess.run(words, cwd=ROOT, env=env, capture_output=True, text=True, check=False)
        if done.returncode:
            return {"error": (done.stderr.strip().splitlines() or ["it died"])[-1]}
        found = [json.loads(file.read_text()) for file in folder.glob("rank-*.json")]
        if side == "ours" and CUDA:  # each step's peak is taken and reset
            found[0]["device"] = json.loads((folder / "result.json").read_text())["peak_device_bytes"]
    assert len(found) == ranks
    seconds = max(one["wall_s"] for one in found) if CUDA else sum(one["cpu_s"] for one in found)
    peak = max(one["device" if CUDA else "rss"] for one in found)
    return {"speed": (steps - WARM) * BATCH * LENGTH / seconds, "peak": peak}


def told(name: str, row: Row, reference: Row | None = None) -> None:
    """Print a row."""
    if "error" in row:
        print(f"{name:<64} {row['error']}", flush=True)
        return
    ratio = f"{row['speed'] / reference['speed']:6.2f}x" if reference and "speed" in reference else ""
    print(f"{name:<64} {row['speed']:>10,.0f} {row['peak'] / 1e6:>10,.0f} MB {ratio}", flush=True)


def compare(world: Row, steps: int) -> None:
    """Ours and the Trainer's, and a second rank."""
    run = {"steps": steps, "chunked": True}
    best = measure(world, "theirs", steps=steps, paper=False, compile=False)
    told("Trainer: sdpa, fused AdamW" + (", bf16" if CUDA else ""), best, best)
    if CUDA:
        told(
            "Trainer: the same, torch_compile",
            measure(world, "theirs", steps=steps, paper=False, compile=True),
            best,
        )
    flags = measure(world, "theirs", steps=steps, paper=True, compile=False)
    told("Trainer: ZeRO-3, offload, gradient checkpointing", flags, best)
    fast = measure(world, "ours", fields=FAST, **run)
    told("ours, fast", fast, best)
    paper = measure(world, "ours", fields=PAPER, **run)
    told("ours, paper", paper, best)
    if "error" not in flags | fast | paper:
        print(f"ours, fast is {fast['speed'] / flags['speed']:.2f}x the Trainer with the paper's flags")
        print(f"ours, paper is {paper['speed'] / flags['speed']:.2f}x the Trainer with the same flags")
    if not CUDA or torch.cuda.device_count() > 1:
        told("ours, fast, two ranks", measure(world, "ours", fields=FAST, ranks=2, **run), fast)


def table(world: Row, steps: int) -> None:
    """Every setting that there is."""
    settings = itertools.product((0, 1, 2, 3), ("none", "optimizer", "all"), (False, True), (True, False))
    for stage, offload, checkpointing, chunked in settings:
        fields = {"zero_stage": stage, "offload": offload, "gradient_checkpointing": checkpointing}
        try:
            config_of(fields)
        except ValidationError:
            continue  # one that is refused
        name = f"ZeRO-{stage}, offload {offload}"
        name += ", gradient checkpointing" * checkpointing + ", chunked loss" * chunked
        told(name, measure(world, "ours", steps=steps, fields=fields, chunked=chunked))


def main() -> None:
    """Make the world, run the rows, print them."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--table", action="store_true", help="every setting, not the comparison")
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.child:
        child(given.child)
        return
    steps = 30 if CUDA else 6 if given.table else 13
    with tempfile.TemporaryDirectory() as work:
        store, corpus = make_world(Path(work), steps * BATCH)
        world = {"base": f"{work}/base", "store": store, "corpus": corpus}
        device = torch.cuda.get_device_name() if CUDA else "CPU, one thread a rank"
        print(f"{device}; torch {torch.__version__}; {BATCH} sequences of {LENGTH} tokens a step, {SHAPE}")
        print(f"{'':<64} {'tokens/s' if CUDA else 'tok/CPU s':>10} {'peak':>13}")
        (table if given.table else compare)(world, steps)


if __name__ == "__main__":
    main()
