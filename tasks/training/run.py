"""Make a milestone's model, or a base, in processes of their own.

The processes work in `<store>/work/training/<fingerprint>/` (for a remote store in the scratch folder, from
where checkpoints are sent to that place in the store): log, events, checkpoints, then the model. The model's
files are moved into the node; the checkpoints stay until the node stands, so that a death in between costs
nothing, and go when the next training begins.
"""

import getpass
import json
import logging
import os
import shutil
import tempfile
from pathlib import Path

from tasks.runtime.gpus import held_gpus
from tasks.runtime.launch import launch
from tasks.settings import Settings
from tasks.store.folders import local_folder
from tasks.store.json import JSON
from tasks.store.manifest import stands
from tasks.store.paths import Store
from tasks.store.shard import NodeWriter
from tasks.training.afar import Sending, fetch_newest, send
from tasks.training.card import model_card
from tasks.training.checkpoint import link, newest
from tasks.training.config import SPREAD_FIELDS, STAGE, BaseJob, TrainingConfig, config_of
from tasks.training.extension import STATE, extended
from tasks.training.inputs import copy_tokenizer, corpus_borders, replay_of
from tasks.training.nodes import job_for, meeting
from tasks.training.order import SequenceOrder, divide_batch
from tasks.training.schedule import Schedule
from tasks.training.steps import LEARNED, STEPS, Row, learned, steps_table
from tasks.training.zero import environment

logger = logging.getLogger(__name__)

_CURVE_POINTS = 500


def build_training(writer: NodeWriter) -> None:
    """Train a milestone, going on from its newest checkpoint where there is one.

    Raises:
        RecipeError: the batch does not divide by the ranks, a milestone is smaller than a batch, or
            sequences are
            longer than the model knows.
        SourceError: the base or the tokenizer is not what was planned.
        JobError: the processes failed; the next run goes on from the newest checkpoint.
    """
    store, node = writer.store, writer.node
    config, seed = config_of(node, writer.how)
    ranks, nodes = int(writer.how.get("ranks", 1)), int(writer.how.get("nodes", 1))
    borders, sequence_length = corpus_borders(store, node.reads["corpora"])
    order = SequenceOrder(
        seed=seed,
        borders=borders,
        global_batch=config.global_batch_sequences,
        window=config.shuffle_window_sequences,
        epochs=config.epochs,
        replay=replay_of(store, node.config.get("replay_fraction", 0.0), node.reads.get("replayed", [])),
    )
    divide_batch(config.global_batch_sequences, ranks, config.micro_batch)
    clear_finished_work(store)
    work, sent = work_folder(store, node.fingerprint), checkpoints_of(node.fingerprint)
    schedule = Schedule.of(config, borders, order.replay)
    keep = schedule.leave if config.continuation == "extend" else 0
    kept = schedule.kept(config.eval_at)
    if store.local is not None:
        checkpoint = newest(work, kept)
    else:
        checkpoint = fetch_newest(store, sent, work, keep=keep, kept=kept)
    if checkpoint is None and "previous" in node.reads:
        checkpoint = extended(store, node, work, schedule.begin)
    if checkpoint:
        logger.info("training goes on from step %d of %d", checkpoint.step, order.num_steps)
        if nodes > 1 and store.local is None:
            send(store, sent, checkpoint)  # the other machines go on from it too
    job = job_for(store, node, writer.how, work, checkpoint, leads=True)
    tokenizer = local_folder(
        store, node.reads["tokenizer"], node.inputs["tokenizer"], weights=False, into=work / "tokenizer"
    )
    with (
        held_gpus(ranks // nodes) as gpus,
        Sending(store, sent, work, keep=keep),
        meeting(store, node, writer.how, checkpoint, Settings().rendezvous) as rendezvous,
    ):
        result = launch(
            "tasks.training",
            job.model_dump(mode="json"),
            folder=work,
            processes=ranks // nodes,
            rendezvous=rendezvous,
            env={**_environment(ranks // nodes), **gpus},
            on_event=lambda event: writer.progress(event.pop("step"), event.pop("steps"), "step", **event),
        )
    copy_tokenizer(tokenizer, work / "model")
    card = model_card(node, config, schedule, sequence_length, result)
    (work / "model" / "README.md").write_text(card)
    if keep:
        link(work / f"step-{keep}", work / "model" / STATE / f"step-{keep}")
    _record(writer, config, order, schedule, sequence_length, result)
    writer.folder_of(work / "model")


def build_base(writer: NodeWriter) -> None:
    """Initialise a base from the seed and a config without weights.

    Raises:
        SourceError: the folder is not what was planned, or holds no model that can be made.
        JobError: the process failed.
    """
    store, node = writer.store, writer.node
    work = work_folder(store, node.fingerprint)
    model = local_folder(store, node.reads["model"], node.inputs["model"], weights=True, into=work / "given")
    tokenizer = local_folder(
        store, node.reads["tokenizer"], node.inputs["tokenizer"], weights=False, into=work / "tokenizer"
    )
    job = BaseJob(seed=node.config["seed"], model=str(model), tokenizer=str(tokenizer))
    result = launch("tasks.training.base", job.model_dump(), folder=work, env=_environment(1))
    copy_tokenizer(tokenizer, work / "model")
    writer.details = {"steps": 0, "initialised_from_seed": job.seed, **result}
    writer.folder_of(work / "model")


def _environment(ranks: int) -> dict[str, str]:
    return environment(ranks, cores=len(os.sched_getaffinity(0)))


def _record(
    writer: NodeWriter,
    config: TrainingConfig,
    order: SequenceOrder,
    schedule: Schedule,
    sequence_length: int,
    result: JSON,
) -> None:
    """What the manifest tells of a training; the whole curve goes into files, one with what was measured."""
    curve = learned(result["curve"])
    steps, a_step = order.num_steps, order.global_batch * sequence_length
    writer.tokens = (steps - schedule.begin) * a_step
    now = (steps - result["from_step"]) * a_step
    writer.details = {
        "steps": steps,
        "sequences_left_out": order.left_out,
        "schedule": config.schedule,
        "warmup_steps": schedule.warmup,
        "extends_from_step": schedule.begin,
        "first_loss": curve[0][2],
        "final_loss": curve[-1][2],
        "curve": {"columns": LEARNED, "rows": thinned(curve, _CURVE_POINTS)},
        "tokens_trained_now": now,
        "tokens_per_s": round(now / result["trained_s"], 1) if now else None,
        "ranks_peak_rss_bytes": result["peak_rss_bytes"],
        "ranks_peak_device_bytes": result["peak_device_bytes"],
    }
    if order.replay.fraction:
        seen, before = (order.replay.before(step * order.global_batch) for step in (steps, schedule.begin))
        writer.details["replay_sequences"] = seen - before
        writer.details["replay_tokens"] = (seen - before) * sequence_length
        writer.details["replay_repeats"] = order.replay.passes(seen)
    writer.how |= {
        "base": writer.node.reads["base"],
        "device": result["device"],
        "device_name": result["device_name"],
        "cores": len(os.sched_getaffinity(0)),
        **{name: result[name] for name in (*SPREAD_FIELDS, "micro_batch")},
        "resumed_from_step": result["from_step"],
    }
    writer.file("losses.json", json.dumps({"columns": LEARNED, "rows": curve}).encode())
    table = steps_table(result["curve"])
    with writer.parquet(table.schema, name=STEPS) as out:
        out.write_table(table)


def thinned(rows: list[Row], points: int) -> list[Row]:
    """At most so many rows, evenly spaced, the first and the last among them."""
    if len(rows) <= points:
        return rows
    return [rows[round(number * (len(rows) - 1) / (points - 1))] for number in range(points)]


def work_folder(store: Store, fingerprint: str) -> Path:
    """Where a training works: the same place at every try."""
    folder = work_root(store) / fingerprint
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def work_root(store: Store) -> Path:
    """Where this machine's trainings work."""
    return store.local_path(f"work/{STAGE}") if store.local is not None else scratch_root()


def scratch_root() -> Path:
    """Where they work when that is not in the store."""
    scratch = Settings().scratch or str(Path(tempfile.gettempdir()) / f"dapt-{getpass.getuser()}")
    return Path(scratch) / "work" / STAGE


def checkpoints_of(fingerprint: str) -> str:
    """Where the checkpoints of a training stand in the store."""
    return f"work/{STAGE}/{fingerprint}"


def clear_finished_work(store: Store) -> None:
    """Remove the work folders of trainings whose node stands: their checkpoints are of no more use."""
    root = work_root(store)
    for work in list(root.iterdir()) if root.exists() else []:
        if stands(store, f"{STAGE}/{work.name[:2]}/{work.name}"):
            shutil.rmtree(work, ignore_errors=True)
    for name in store.names(f"work/{STAGE}") if store.local is None else []:
        if stands(store, f"{STAGE}/{name[:2]}/{name}"):
            store.remove(checkpoints_of(name))
