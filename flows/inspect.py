"""Looking at what stands: `dapt status`, `show` and `verify`, and the outcome of a run for a person."""

import json
import shlex
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pyarrow.compute as pc
from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text
from tokenizers import Tokenizer

from flows.chain import DOMAIN, Chain
from flows.forgetting import losses_of
from flows.milestones import tokenizer_node
from flows.outcome import nodes_of, walks_of
from flows.record import read_records
from flows.resolve import Resolved
from tasks.report.forgetting import beyond, sentence
from tasks.report.scored import Loss
from tasks.store.errors import DaptError
from tasks.store.failure import failure_path, read_failure
from tasks.store.json import JSON
from tasks.store.manifest import NAME, set_aside, stands, why_damaged
from tasks.store.node import Node
from tasks.store.paths import Store
from tasks.store.shard import open_node_file, read_table
from tasks.store.tokens import format_tokens

_VERDICT_STAGES = ("filtering", "dedup", "tokenization")
_BY_MILESTONE = ("corpus", "training")
_EXCERPT = 300


def status(resolved: Resolved, *, on_server: bool) -> JSON:
    """What exists, what is missing, and what failed with its cause: the `status --json` object.

    Args:
        resolved: the recipe on its store.
        on_server: runs are on a server of the user's, which has their logs; else the store's own had them.
    """
    walks = walks_of(resolved)
    nodes = nodes_of(resolved, walks)
    failed: list[JSON] = []
    missing: list[JSON] = []
    blocked: list[JSON] = []
    stages: JSON = {}
    labels = [format_tokens(budget) for budget in resolved.recipe.budget.milestones]
    for stage, of_stage in nodes.items():
        standing, by_milestone = 0, stage.rpartition(":")[2] in _BY_MILESTONE
        for position, node in enumerate(of_stage):
            if stands(resolved.store, node.path):
                standing += 1
                continue
            name = labels[position] if by_milestone else f"{position:05d}"
            entry = {"stage": stage, "shard": name}
            failure = read_failure(resolved.store, node)
            if failure is not None:
                path = resolved.store.address(failure_path(node))
                failed.append({**entry, **_failure(failure, on_server=on_server), "path": path})
            elif _waits(nodes, stage, position, failed):
                blocked.append(entry)
            else:
                missing.append(entry)
        if by_milestone:  # those without a corpus to stand on have no node yet
            later = [{"stage": stage, "shard": label} for label in labels[len(of_stage) :]]
            (blocked if failed else missing).extend(later)
        expected = max(len(of_stage), len(labels) if by_milestone else 0)
        stages[stage] = {"stand": standing, "expected": expected}
    return {
        "recipe": resolved.recipe.name,
        "failed": failed,
        "waiting": blocked,
        "missing": missing,
        "stages": stages,
        "forgetting": [loss.model_dump(mode="json") for loss in beyond(losses_of(resolved, walks=walks))],
    }


def status_of_store(store: Store, *, on_server: bool) -> JSON:
    """Every recipe run on a store, and every failure that stands: `status --json` without a recipe."""
    recipes: list[JSON] = []
    for name in store.names("recipes"):
        newest = next(iter(read_records(store, name)), None)
        if newest is None:
            continue
        paths = [path for of_stage in newest.nodes.values() for path in of_stage]
        standing = sum(stands(store, path) is not None for path in paths)
        recipes.append({"recipe": name, "at": newest.at, "stand": standing, "expected": len(paths)})
    failed: list[JSON] = []
    for stage in store.names("failures"):
        for file in store.names(f"failures/{stage}"):
            path = f"failures/{stage}/{file}"
            failure = json.loads(store.read(path))
            told = {"stage": failure["stage"], **_failure(failure, on_server=on_server)}
            failed.append({**told, "path": store.address(path)})
    return {"recipes": recipes, "failed": failed}


def _failure(failure: JSON, *, on_server: bool) -> JSON:
    """What is told of a failure, with the command that shows its log."""
    log, run = failure.get("log"), failure.get("run")
    if log:
        command = f"less {shlex.quote(log)}"
    elif run and on_server:
        command = f"prefect flow-run logs {run}"
    else:
        command = f"dapt ui, then its page /runs/flow-run/{run}" if run else ""
    return {"shard": failure["shard"], "error": failure["error"], "log": command}


def print_status_of_store(told: JSON, console: Console) -> None:
    """Failures first, then the recipes."""
    _print_failures(told["failed"], console)
    for entry in told["recipes"]:
        at = entry["at"].partition(".")[0].replace("T", " ")
        counts = f"{entry['stand']} of {entry['expected']} nodes stand"
        console.print(f"{entry['recipe']}: {counts}, last run {at} UTC", highlight=False)
    if not told["recipes"]:
        console.print("no recipe was run on this store yet")


def _waits(nodes: dict[str, list[Node]], stage: str, position: int, failed: list[JSON]) -> bool:
    """Whether a failed shard before it holds this node up: dedup and all behind it go in order."""
    in_order = ("dedup", "tokenization", "packing", "corpus", "training", "evaluation", "report")
    corpus = stage.rpartition(":")[0]
    return stage.rpartition(":")[2] in in_order and any(
        f["stage"].rpartition(":")[0] == corpus and f["stage"] not in ("training", "evaluation")
        for f in failed
    )


def _print_failures(failed: list[JSON], console: Console) -> None:
    for failure in failed:
        console.print(
            f"[red]failed[/red] {failure['stage']} shard {failure['shard']}: {escape(failure['error'])}",
            soft_wrap=True,
        )
        if failure["log"]:
            console.print(f"       log: {escape(failure['log'])}", soft_wrap=True, highlight=False)
        console.print(f"       {escape(failure['path'])}", soft_wrap=True, highlight=False)


def print_status(told: JSON, console: Console) -> None:
    """Failures first, what was forgotten, then what stands."""
    _print_failures(told["failed"], console)
    for loss in told["forgetting"]:
        text = escape(sentence(Loss.model_validate(loss)))
        console.print(f"[red]forgot[/red] {text}", soft_wrap=True, highlight=False)
    if told["failed"]:
        console.print(f"{len(told['waiting'])} nodes wait for them; run the recipe again to redo just these")
    table = Table(title=told["recipe"], title_justify="left")
    for column in ("stage", "stand", "expected"):
        table.add_column(column, justify="left" if column == "stage" else "right")
    for stage, counts in told["stages"].items():
        table.add_row(stage, str(counts["stand"]), str(counts["expected"]))
    console.print(table)


def verify(resolved: Resolved) -> JSON:
    """Re-hash everything the recipe stands on; what is damaged is set aside: the `verify --json` object."""
    nodes = [node for of_stage in nodes_of(resolved, walks_of(resolved)).values() for node in of_stage]
    recorded = [path for record in resolved.records[:1] for paths in record.nodes.values() for path in paths]
    paths = list(dict.fromkeys([node.path for node in nodes] + recorded))
    made = [path for path in paths if resolved.store.names(path)]
    with ThreadPoolExecutor(max_workers=resolved.settings.workers) as pool:  # hashing releases the GIL
        reasons = list(pool.map(lambda path: why_damaged(resolved.store, path), made))
    damaged: list[JSON] = []
    for path, why in zip(made, reasons, strict=True):
        if why is None or resolved.store.size(f"{path}/{NAME}") is None:
            continue  # without a manifest it is no node: a maker was killed, the next one cleans up
        damaged.append({"path": resolved.store.address(path), "why": why})
        set_aside(resolved.store, path)
    return {"checked": len(made), "damaged": damaged}


def print_verified(told: JSON, console: Console) -> None:
    """What was found."""
    for entry in told["damaged"]:
        console.print(f"[red]damaged[/red] {escape(entry['path'])}: {escape(entry['why'])}", soft_wrap=True)
    ending = "; run the recipe again to rebuild just these" if told["damaged"] else ""
    console.print(f"{told['checked']} nodes checked, {len(told['damaged'])} damaged{ending}")


def dropped(resolved: Resolved, reason: str, count: int) -> list[JSON]:
    """The first documents that went: where, why, how they begin, and what they duplicate."""
    if not resolved.chains[DOMAIN].has_text:
        raise DaptError(
            f"{resolved.recipe.name} trains on adopted tokens: their text, and what was dropped of it, is "
            "not here; `dapt show RECIPE packed` shows them decoded"
        )
    found: list[JSON] = []
    seen: set[str] = set()
    for document in _dropped(resolved, resolved.chains[DOMAIN]):
        seen.add(document["reason"])
        if reason in ("", document["reason"]):
            found.append(document)
        if len(found) == count:
            break
    if not found and reason:
        told = f"; reasons here: {', '.join(sorted(seen))}" if seen else ""
        raise DaptError(f"no document of {resolved.recipe.name} was dropped for {reason!r}{told}")
    return found


def _dropped(resolved: Resolved, chain: Chain) -> Iterator[JSON]:
    for shard in chain.shards:
        for stage in _VERDICT_STAGES:
            node = shard.nodes[stage]
            if stands(resolved.store, node.path) is None or not stands(
                resolved.store, shard.nodes["download"].path
            ):
                return
            columns = ["id", "reason"]
            if stage == "dedup":
                columns += ["duplicate_of"] + ["contaminated_by"] * ("contamination" in shard.nodes)
            table = read_table(resolved.store, node.path, columns=["kept", *columns])
            gone = table.filter(pc.invert(table["kept"])).select(columns).to_pylist()
            if not gone:
                continue
            texts = read_table(resolved.store, shard.nodes["download"].path, columns=["id", "text"])
            for document in gone:
                place = pc.index(texts["id"], document["id"]).as_py()
                yield {
                    "stage": stage,
                    "shard": shard.name,
                    **document,
                    "text": texts["text"][place].as_py()[:_EXCERPT],
                }


def packed(resolved: Resolved, count: int) -> list[JSON]:
    """The first packed rows, decoded: their documents and their text."""
    found: list[JSON] = []
    if stands(resolved.store, tokenizer_node(resolved).path) is None:
        return found
    tokenizer = _tokenizer(resolved)
    for shard in resolved.chains[DOMAIN].shards:
        node = shard.nodes["packing"]
        if stands(resolved.store, node.path) is None:
            break
        for row in read_table(resolved.store, node.path).slice(0, count - len(found)).to_pylist():
            text = tokenizer.decode(row["input_ids"], skip_special_tokens=False)
            found.append(
                {
                    "shard": shard.name,
                    "doc_ids": row["doc_ids"],
                    "doc_starts": row["doc_starts"],
                    "text": text,
                }
            )
        if len(found) >= count:
            break
    return found


def _tokenizer(resolved: Resolved) -> Tokenizer:
    with open_node_file(resolved.store, tokenizer_node(resolved).path, "tokenizer.json") as file:
        return Tokenizer.from_file(str(file))


def print_found(found: list[JSON], console: Console) -> None:
    """Documents or rows, one after another."""
    for entry in found:
        head = {key: value for key, value in entry.items() if key != "text" and value is not None}
        told = ", ".join(f"{key} {value}" for key, value in head.items())
        console.rule()
        console.print(Text(told), soft_wrap=True, highlight=False, markup=False)
        console.print(entry["text"], markup=False, highlight=False, emoji=False)
    if not found:
        console.print("nothing to show: run the recipe first")


def print_outcome(done: JSON, console: Console) -> None:
    """A run's end for a person: what was made, the scores, where the report is."""
    padding = (0, 1, 0, 0)  # 80 columns hold it
    table = Table(title=done["recipe"], title_justify="left", box=box.SIMPLE_HEAD, padding=padding)
    for column in ("stage", "stood", "made", "seconds", "peak MB", "documents", "tokens"):
        table.add_column(column, justify="left" if column == "stage" else "right")
    for stage, tally in done["stages"].items():
        documents = f"{tally['documents_in']:,} → {tally['documents_out']:,}" if tally["documents_in"] else ""
        tokens = f"{tally['tokens']:,}" if tally["tokens"] else ""
        peak = f"{tally['peak_rss_bytes'] / 1e6:,.0f}" if tally["peak_rss_bytes"] else ""
        counts = (str(tally["hit"]), str(tally["computed"]), f"{tally['seconds']:,.1f}")
        table.add_row(stage, *counts, peak, documents, tokens)
    console.print(table)
    for name, scores in [("base", done["base"])] + [
        (f"{m['budget']:,} tokens", m["scores"]) for m in done["milestones"]
    ]:
        if scores:
            console.print(f"{name}: {_told(scores)}", highlight=False)
    if done["report"]:
        console.print(f"report: {done['report']}", highlight=False, soft_wrap=True)


def _told(scores: JSON) -> str:
    bits = [
        f"{corpus} {value:.3f} bits per byte"
        for corpus, value in scores["bits_per_byte"].items()
        if value is not None
    ]
    benchmarks = [f"{name} {s['score']:.3f}" for name, s in scores.items() if name != "bits_per_byte"]
    return ", ".join(bits + benchmarks) or "nothing was measured"
