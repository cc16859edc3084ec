"""The training loop: one process a rank under DeepSpeed, from a base or a checkpoint to a saved model.

Position is one integer, the step: the order of sequences, the learning rate and the random numbers
(dropout) of a step are functions of it, so a checkpoint holds weights, moments and the loss curve and
nothing else. The model is saved from the last checkpoint: killed between the two, the next run finds all
steps done and only saves.
"""

import logging
import math
import os
import resource
import time
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import deepspeed
import numpy as np
import torch
import torch.distributed as dist
from transformers import PreTrainedModel

from tasks.runtime.job import Job
from tasks.runtime.memory import available_memory
from tasks.store.errors import DaptError, ResourceError
from tasks.store.json import JSON
from tasks.store.packed import PackedCorpus
from tasks.store.paths import Store
from tasks.training.checkpoint import (
    PARTS,
    Checkpoint,
    begin,
    commit,
    keep_weights,
    weights_kept,
    write_curve,
)
from tasks.training.config import SPREAD_FIELDS, TrainingConfig, TrainingJob, at_folder
from tasks.training.data import Batches
from tasks.training.document import keep_documents_apart, share_targets
from tasks.training.events import FOLDER as EVENTS
from tasks.training.events import add_events, begin_events
from tasks.training.loss import chunk_loss
from tasks.training.measure import Meter, Queued, Teller
from tasks.training.memory import sequence_bytes
from tasks.training.model import compile_layers, load_model, load_weights, save_model
from tasks.training.order import SequenceOrder, divide_batch, largest_divisor
from tasks.training.schedule import Schedule
from tasks.training.selective import select_targets
from tasks.training.state import restore_state, save_state
from tasks.training.steps import LEARNED, MEASURED, Row
from tasks.training.strategy import settle
from tasks.training.zero import deepspeed_config

logger = logging.getLogger(__name__)

_GROUP_ROWS = 200
_CPU_BYTES = 256 << 20
"""What a micro-batch may take on a CPU, where larger ones gain nothing."""
_GPU_SHARE = 0.6
"""Of a GPU's memory, for a micro-batch; the rest is for model states, buffers and fragmentation."""


@dataclass(slots=True)
class Rank:
    """This process among the others."""

    number: int
    count: int
    device: torch.device
    leads: bool
    """Whether this is the one that writes."""
    engine: Any = None
    micro_batch: int = 1
    chunked: bool = False
    """Whether the model's loss is `linear_cross_entropy`."""
    curve: list[Row] = field(default_factory=list)

    @property
    def is_first_here(self) -> bool:
        """Whether this is the first rank of its machine."""
        return os.environ["LOCAL_RANK"] == "0"


def train(job: Job) -> None:
    """Do what the job says; one rank writes the model, the curve and the result."""
    spec = TrainingJob.model_validate(job.spec)
    config = spec.config
    rank = _join(leads=spec.leads)
    checkpoint = Checkpoint.at(Path(spec.checkpoint)) if spec.checkpoint else None
    window = config.shuffle_window_sequences + min(config.shuffle_window_sequences, spec.replay.rows)
    store, groups = Store(spec.store), 3 * window // (2 * _GROUP_ROWS) + 8
    columns = 1 + config.document_mask
    with (
        PackedCorpus(store, *spec.corpora, cached_groups=columns * groups) as corpus,
        PackedCorpus(store, spec.corpora[0], cached_groups=groups, beside=spec.references) as references,
    ):
        order = SequenceOrder(
            seed=spec.seed,
            borders=spec.borders,
            global_batch=config.global_batch_sequences,
            window=config.shuffle_window_sequences,
            epochs=config.epochs,
            replay=spec.replay,
        )
        schedule = Schedule.of(config, spec.borders, spec.replay)
        start = checkpoint.step if checkpoint else 0
        model = load_model(Path(spec.base))
        config = _settled(spec, model, corpus.sequence_length, rank)
        spec = spec.model_copy(update={"config": config})
        rank.micro_batch = _micro_batch(spec, model, corpus.sequence_length, rank)
        if checkpoint:
            load_weights(model, checkpoint.part("weights"))
            rank.curve = checkpoint.curve()
        result: JSON = {"from_step": start, "trained_s": 0.0}
        if start < order.num_steps:
            meter = Meter(
                model,
                sequence_length=corpus.sequence_length,
                tokens=config.global_batch_sequences * corpus.sequence_length,
                device=rank.device,
                ranks=rank.count,
            )
            batches = Batches(
                corpus,
                order,
                rank=rank.number,
                ranks=rank.count,
                micro_batch=rank.micro_batch,
                vocab_size=model.get_input_embeddings().weight.shape[0],
                device=rank.device,
                document_mask=config.document_mask,
                references=references if spec.references else None,
            )
            rank.engine = _engine(config, model, rank)
            if checkpoint:
                restore_state(rank.engine, checkpoint)
            with batches:
                result["trained_s"] = _run(job, spec, rank, schedule, batches, meter, start)
        result |= _usage(rank, start)
    if rank.leads:
        result |= spec.config.model_dump(include=set(SPREAD_FIELDS))
        _finish(job, spec, rank, schedule, result)
    elif not spec.leads and rank.is_first_here:
        job.write_result({"ranks": rank.count})
    dist.barrier()
    dist.destroy_process_group()


def _join(*, leads: bool) -> Rank:
    """Join the process group: torchrun's, or one of this process alone, which needs no port."""
    cuda = torch.cuda.is_available()
    if not cuda:
        # the shared-memory collective is compiled at run time (a minute, or an error); gloo does without
        deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    local = int(os.environ.get("LOCAL_RANK", "0"))
    if cuda and local >= torch.cuda.device_count():
        raise ResourceError(
            f"rank {local} has no GPU, this machine has {torch.cuda.device_count()}; set DAPT_RANKS to that "
            "or less"
        )
    device = torch.device("cuda", local) if cuda else torch.device("cpu")
    backend = "nccl" if cuda else "gloo"
    if cuda:
        torch.cuda.set_device(device)
    if "RANK" not in os.environ:
        os.environ |= {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "LOCAL_WORLD_SIZE": "1"}
        alone = dist.HashStore()  # type: ignore[attr-defined]
        dist.init_process_group(backend, store=alone, rank=0, world_size=1)
    deepspeed.init_distributed(backend)
    return Rank(dist.get_rank(), dist.get_world_size(), device, leads=leads and local == 0)


def _settled(spec: TrainingJob, model: PreTrainedModel, length: int, rank: Rank) -> TrainingConfig:
    """The config with what "auto" comes to, the same on all ranks."""
    least = torch.tensor(_device_bytes(rank), device=rank.device)
    dist.all_reduce(least, op=dist.ReduceOp.MIN)
    config, why = settle(model.config.to_dict(), spec.config, length, rank.count, int(least.item()))
    if rank.leads:
        logger.info("%s", why)
    return config


def _device_bytes(rank: Rank) -> int:
    """Memory of this rank's device: of a CPU, its share of what the machine has left."""
    if rank.device.type == "cuda":
        return int(torch.cuda.get_device_properties(rank.device).total_memory)
    return available_memory() // int(os.environ["LOCAL_WORLD_SIZE"])


def _micro_batch(spec: TrainingJob, model: PreTrainedModel, sequence_length: int, rank: Rank) -> int:
    """Sequences at once: the recipe's, or the most that divide the batch and fit by the estimate."""
    config = spec.config
    share = divide_batch(config.global_batch_sequences, rank.count, spec.micro_batch)
    if spec.micro_batch:
        return spec.micro_batch
    room = _CPU_BYTES
    if rank.device.type == "cuda":
        room = int(torch.cuda.get_device_properties(rank.device).total_memory * _GPU_SHARE)
    fitting = room // sum(sequence_bytes(model.config.to_dict(), config, sequence_length))
    chosen = torch.tensor(largest_divisor(share, max(1, fitting)), device=rank.device)
    dist.all_reduce(chosen, op=dist.ReduceOp.MIN)  # all the same, on machines that differ too
    return int(chosen.item())


def _engine(config: TrainingConfig, model: PreTrainedModel, rank: Rank) -> Any:
    if config.gradient_checkpointing:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    model.config.use_cache = False
    if config.document_mask:
        keep_documents_apart(model)
    rank.chunked = chunk_loss(model)
    if config.compile:
        compile_layers(model)
    model.train()
    parameters = list(model.parameters())
    # the fused kernel wants its tensors on the GPU
    fused = rank.device.type == "cuda" and config.offload == "none"
    optimizer = torch.optim.AdamW(
        [
            {"params": [p for p in parameters if p.ndim > 1], "weight_decay": config.weight_decay},
            {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
        ],
        lr=config.learning_rate,
        betas=config.betas,
        fused=fused,
    )
    share = config.global_batch_sequences // rank.count
    engine, *_ = deepspeed.initialize(
        model=model,
        optimizer=optimizer,
        config=deepspeed_config(
            config, micro_batch=rank.micro_batch, grad_accumulation_steps=share // rank.micro_batch
        ),
    )
    return engine


def _run(
    job: Job,
    spec: TrainingJob,
    rank: Rank,
    schedule: Schedule,
    batches: Batches,
    meter: Meter,
    start: int,
) -> float:
    """All steps from `start`; returns the seconds they took."""
    config, steps = spec.config, schedule.end
    keep = schedule.leave if config.continuation == "extend" else 0
    teller = Teller(job, meter, start=start, steps=steps)
    events = job.folder / EVENTS
    if rank.leads:
        events = begin_events(events, rank.curve, f"{time.time():.0f}.dapt")
    queue: deque[Queued] = deque()
    kept = schedule.kept(config.eval_at)
    began = time.perf_counter()
    if start in kept:  # what a smaller milestone left
        _keep(job.folder, rank, start)
    for step in range(start, steps):
        rate = config.learning_rate * schedule.fraction(step)
        queue.append(_step(spec, rank, batches, meter, step, rate))
        due = step + 1 in (steps, keep) or (step + 1) % config.checkpoint_every == 0
        while len(queue) > (0 if due else 1):  # the last one goes on while the one before is read
            row = meter.row(queue.popleft())
            _require_finite(row, steps, config)
            rank.curve.append(row)
            if rank.leads:
                teller.tell(row)
                add_events(events, [row])
        if step + 1 in kept:
            _keep(job.folder, rank, step + 1)
        if due:
            _checkpoint(job.folder, rank, step + 1, keep)
    return time.perf_counter() - began


def _require_finite(row: Row, steps: int, config: TrainingConfig) -> None:
    step, _, loss, *_ = row
    if loss is None or not math.isfinite(loss):
        raise DaptError(
            f"the loss is {loss} at step {step} of {steps}; lower training.learning_rate "
            f"({config.learning_rate}), or lengthen training.warmup_fraction ({config.warmup_fraction})"
        )


def _step(
    spec: TrainingJob, rank: Rank, batches: Batches, meter: Meter, step: int, learning_rate: float
) -> Queued:
    """Queue one optimizer step: the mean loss over all ranks before it, and the gradient's norm."""
    began = meter.mark()
    torch.manual_seed(int(np.random.SeedSequence((spec.seed, step, rank.number)).generate_state(1)[0]))
    for group in rank.engine.optimizer.param_groups:
        group["lr"] = learning_rate
    total = torch.zeros((), device=rank.device)
    micro_steps = 0
    given = list(batches.of_step(step))
    if spec.config.selective:
        select_targets(rank.engine, given, spec.config.selective.fraction, chunked=rank.chunked)
    if spec.config.selective or spec.config.document_mask:
        share_targets(given)
    for one in given:
        loss = rank.engine(**one).loss
        rank.engine.backward(loss)
        rank.engine.step()
        total += loss.detach().float()
        micro_steps += 1
    dist.all_reduce(total)
    mean = total.double() / (micro_steps * rank.count)
    return meter.queued(
        step + 1, learning_rate, loss=mean, norm=rank.engine.get_global_grad_norm(), began=began
    )


def _checkpoint(work: Path, rank: Rank, step: int, keep: int) -> None:
    writing = begin(work, step) if rank.leads else None
    save_state(rank.engine, writing)
    if writing is not None:
        write_curve(writing, rank.curve)
        commit(writing, step, {"ranks": rank.count, "micro_batch": rank.micro_batch}, keep=keep)
        logger.info("checkpoint at step %d", step)
    dist.barrier()


def _keep(work: Path, rank: Rank, step: int) -> None:
    writing = begin(work, step) if rank.leads else None
    save_state(rank.engine, writing, PARTS[:1])
    if writing is not None:
        keep_weights(writing, step)
        logger.info("weights of step %d are kept", step)


def _usage(rank: Rank, start: int) -> JSON:
    """Peak memory: of the process over all ranks, of the device in this one, where each row has its own."""
    peak = torch.tensor([resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024], dtype=torch.int64)
    peak = peak.to(rank.device)
    dist.all_reduce(peak, op=dist.ReduceOp.MAX)
    device, name = 0, ""
    if rank.device.type == "cuda":
        name = torch.cuda.get_device_name(rank.device)
        at = len(LEARNED) + MEASURED.index("allocated_bytes")
        rows = (int(row[at] or 0) for row in rank.curve[start:])
        device = max(torch.cuda.max_memory_allocated(), *rows, 0)
    told = {"device": rank.device.type, "device_name": name}
    return {"peak_rss_bytes": int(peak.item()), "peak_device_bytes": device, **told}


def _finish(job: Job, spec: TrainingJob, rank: Rank, schedule: Schedule, result: JSON) -> None:
    """Save the model from the last checkpoint, and those of the steps whose weights were kept."""
    final = Checkpoint.at(job.folder / f"step-{schedule.end}")
    folders = {job.folder / "model": final.part("weights")}
    for step in schedule.kept(spec.config.eval_at):
        folders[job.folder / "model" / at_folder(step)] = weights_kept(job.folder, step)
    model = load_model(Path(spec.base))
    dtype = torch.bfloat16 if spec.config.precision == "bf16" else torch.float32
    for folder, weights in folders.items():
        load_weights(model.float(), weights)
        save_model(model.to(dtype), Path(spec.base), folder)
    curve = final.curve()
    begin_events(job.folder / "model" / EVENTS, curve, "dapt")
    job.write_result({**result, "curve": curve, "micro_batch": rank.micro_batch})
