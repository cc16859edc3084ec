"""`dapt lineage`: from anything in a store back to the files it was made of, and what a training step saw.

All is read from manifests, whose inputs name the nodes before them: no recipe, no source and no network is
asked. What a manifest does not know (of a store older than the field) is left out.
"""

import json
import re
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rich.console import Console

from flows.gc import STAGES
from tasks.download.addresses import id_prefix
from tasks.report.forgetting import sentence
from tasks.report.scored import Loss
from tasks.store.errors import RecipeError, StoreDamaged
from tasks.store.json import JSON
from tasks.store.manifest import NAME, Manifest, read_manifest
from tasks.store.packed import PackedCorpus
from tasks.store.paths import Store
from tasks.training.config import BESIDE_CONFIG, TrainingConfig
from tasks.training.inputs import corpus_borders, replay_of
from tasks.training.order import SequenceOrder

_STAGE_OF = {
    "model": "training",
    "base": "training",
    "predecessor": "dedup",
    "replay": "corpus",
    "reference": "reference_loss",
}
"""Of inputs that are not called by their stage."""
_GIVEN = frozenset({"training", "tokenizer"})
"""What may be given as files instead of made here: where no such node stands, the input is their digest."""
_CONTENTS = frozenset({"file", "eos"})
_COMMIT = re.compile(r"@([0-9a-f]{40})/")
_FINGERPRINT = re.compile(r"[0-9a-f]{64}")
_TOLD = 5


@dataclass(frozen=True, slots=True)
class _Place:
    """A node of a store."""

    store: Store
    path: str
    manifest: Manifest


def _place(given: str) -> _Place:
    """The node that a path lies in, whatever store that is."""
    address = given if "://" in given else str(Path(given).expanduser().absolute())
    parts = address.rstrip("/").split("/")
    for number in range(len(parts) - 2):
        stage, head, fingerprint = parts[number : number + 3]
        if stage in STAGES and _FINGERPRINT.fullmatch(fingerprint) and head == fingerprint[:2]:
            store, path = Store("/".join(parts[:number]) or "/"), f"{stage}/{head}/{fingerprint}"
            manifest = read_manifest(store, path)
            if manifest is None:
                raise StoreDamaged(store.address(path), "it has no whole manifest")
            return _Place(store, path, manifest)
    raise RecipeError(
        f"{given} lies in no node of a store; expected a path such as STORE/training/ab/ab12..., of one of "
        + ", ".join(STAGES)
    )


def lineage(given: str) -> JSON:
    """Everything that a node stands on.

    Args:
        given: a node's folder, or a file in it.

    Returns:
        The `lineage --json` object: the node's path, `nodes` from it back (each with its stage, version,
        config, inputs by name, and the code that made it), `sources` (files with digest, part and revision),
        `missing` (nodes that were removed since) and `forgetting`: of a model, what reports that stand say it
        lost beyond its recipe's tolerance.

    Raises:
        RecipeError: the path lies in no node.
        StoreDamaged: the node does not stand.
    """
    place = _place(given)
    missing: list[str] = []
    found = list(_walk(place.store, [place.path], missing))
    address = place.store.address
    sources = {tuple(source.values()): source for _, manifest, _ in found for source in _sources(manifest)}
    return {
        "path": address(place.path),
        "nodes": [_node(place.store, path, manifest, nodes) for path, manifest, nodes in found],
        "sources": list(sources.values()),
        "missing": [address(path) for path in missing],
        "forgetting": list(_forgotten(place)),
    }


def _forgotten(place: _Place) -> Iterator[JSON]:
    """What a model lost beyond a tolerance; a loss that several reports tell of stands once."""
    heads = place.store.names("report") if place.manifest.stage == "training" else []
    found: list[JSON] = []
    for path in [f"report/{head}/{name}" for head in heads for name in place.store.names(f"report/{head}")]:
        report = read_manifest(place.store, path)
        for loss in report.details.get("forgetting", []) if report else []:
            of = report.inputs.get(f"model {loss['milestone']}") if report else None
            if of == place.manifest.fingerprint and loss not in found:
                found.append(loss)
    yield from found


def _walk(
    store: Store, start: Iterable[str], missing: list[str], *, within_shards: bool = False
) -> Iterator[tuple[str, Manifest, dict[str, str]]]:
    """Nodes from some on back, nearest first: path, manifest, the inputs that are nodes.

    Args:
        store: where.
        start: paths.
        missing: nodes that do not stand any more are added.
        within_shards: leave out the shards before one that its verdicts follow.
    """
    waiting = deque(dict.fromkeys(start))
    seen = set(waiting)
    while waiting:
        path = waiting.popleft()
        manifest = read_manifest(store, path)
        if manifest is None:
            if path.split("/")[0] not in _GIVEN:
                missing.append(path)
            continue
        nodes = {name: node for name, value in manifest.inputs.items() if (node := _node_of(name, value))}
        yield path, manifest, nodes
        for name, node in nodes.items():
            if node not in seen and not (within_shards and name == "predecessor"):
                seen.add(node)
                waiting.append(node)


def _node_of(name: str, value: str) -> str | None:
    """Where the node of an input stands, if it may be one."""
    role = re.split(r"[-_ ]", name)[0]
    if role in _CONTENTS or not _FINGERPRINT.fullmatch(value):
        return None
    if " " in name and role not in ("corpus", "model"):  # of a report: "base bits_per_byte.domain"
        role = "evaluation"
    stage = _STAGE_OF.get(role, role)
    return f"{stage}/{value[:2]}/{value}"


def _node(store: Store, path: str, manifest: Manifest, nodes: dict[str, str]) -> JSON:
    """A node as it is told."""
    inputs = {
        name: store.address(nodes[name]) if name in nodes and store.size(f"{nodes[name]}/{NAME}") else value
        for name, value in manifest.inputs.items()
    }
    told: JSON = {"path": store.address(path), "stage": manifest.stage, "version": manifest.version}
    told |= {"fingerprint": manifest.fingerprint, "config": manifest.config, "inputs": inputs}
    told |= {"started": manifest.started}
    told["code"] = {"package": manifest.package, "commit": manifest.commit, "drift": manifest.drift}
    given: JSON = {key: manifest.how[key] for key in ("base", "tokenizer") if key in manifest.how}
    given |= {"adopted": manifest.details["adopted"]} if "adopted" in manifest.details else {}
    return {**told, "given": given, "sources": _sources(manifest)}


def _sources(manifest: Manifest) -> list[JSON]:
    """The files that a node read: address, digest, the part that was read, the commit of a data set's."""
    contents = [value for name, value in manifest.inputs.items() if name.startswith("file-")]
    addresses = manifest.details.get("sources", [""] * len(contents))
    found: list[JSON] = []
    for address, content in zip(addresses, contents, strict=True):
        digest, _, part = content.partition(" ")
        commit = _COMMIT.search(address)
        revision = commit[1] if commit else ""
        found.append({"address": address, "digest": digest, "part": part, "revision": revision})
    return found


def documents_of_step(given: str, step: int) -> JSON:
    """The documents that a training saw in one step.

    Args:
        given: a training's folder.
        step: from 1 to its last.

    Returns:
        The `lineage --step --json` object: `sequences`, in the order of the step, each with its corpus
        (domain, or general of what is replayed), its row there and its documents: id, and the file and the
        row (of jsonl the byte) it came from.

    Raises:
        RecipeError: the path is no training, or it has no such step.
        StoreDamaged: the training, its corpora or their shards do not stand.
    """
    place = _place(given)
    corpora, general = (_of_milestones(place.manifest, role) for role in ("corpus", "replay"))
    if place.manifest.stage != "training" or not corpora:
        what = "a base that no step trained" if place.manifest.stage == "training" else place.manifest.stage
        raise RecipeError(f"--step is of a training, {given} is {what}")
    borders, _ = corpus_borders(place.store, corpora)
    fields = {name: value for name, value in place.manifest.config.items() if name not in BESIDE_CONFIG}
    config = TrainingConfig.model_validate({"base_model": "-", **fields})
    order = SequenceOrder(
        seed=place.manifest.config["seed"],
        borders=borders,
        global_batch=config.global_batch_sequences,
        window=config.shuffle_window_sequences,
        epochs=config.epochs,
        replay=replay_of(place.store, place.manifest.config.get("replay_fraction", 0.0), general),
    )
    if not 1 <= step <= order.num_steps:
        raise RecipeError(f"--step {step}: this training has the steps 1 to {order.num_steps}")
    rows = order.batch_rows(step - 1)
    read = [corpora[-1], *general[-1:]]
    with PackedCorpus(place.store, *read) as packed:
        documents = packed.doc_ids(rows)
    manifests = [read_manifest(place.store, path) for path in read]
    shards = [shard for corpus in manifests if corpus for shard in corpus.shards or []]
    ends = np.cumsum([shard["rows"] for shard in shards])
    origins = _Origins(place.store, [str(shard["path"]) for shard in shards])
    sequences = []
    for row, ids in zip(rows.tolist(), documents, strict=True):
        shard = int(np.searchsorted(ends, row, side="right"))
        told = [origins.of(shard, document) for document in ids]
        name, first = ("domain", 0) if row < borders[-1] else ("general", borders[-1])
        sequences.append({"corpus": name, "row": row - first, "documents": told})
    return {"path": place.store.address(place.path), "step": step, "sequences": sequences}


def _of_milestones(training: Manifest, role: str) -> list[str]:
    """The corpora of one kind that a training stands on, smallest first."""
    inputs = training.inputs.items()
    return [str(_node_of(name, value)) for name, value in inputs if name.startswith(f"{role}-")]


class _Origins:
    """Where the documents of packed shards came from, looked up a shard at a time."""

    def __init__(self, store: Store, shards: list[str]) -> None:
        self._store, self._shards = store, shards
        self._files: dict[int, dict[str, tuple[str, str]]] = {}

    def of(self, shard: int, document: str) -> JSON:
        """A document's id, the file it lies in, and its row there or the byte its line begins at."""
        prefix, _, place = document.partition("-")
        if shard not in self._files:
            self._files[shard] = dict(self._prefixes(self._shards[shard]))
        address, unit = self._files[shard].get(prefix, ("", "row"))
        number, _, token = place.partition(".")
        told: JSON = {"id": document, "file": address, unit: int(number)}
        return {**told, "token": int(token)} if token else told

    def _prefixes(self, packed: str) -> Iterator[tuple[str, tuple[str, str]]]:
        """Of ids, each with its file and what a number behind it counts."""
        for _, manifest, _ in _walk(self._store, [packed], [], within_shards=True):
            for source in _sources(manifest):
                unit = "byte" if str(manifest.config.get("format", "")).startswith("jsonl") else "row"
                yield id_prefix(source["digest"]), (source["address"], unit)


def print_lineage(told: JSON, console: Console) -> None:
    """A tree for a person: nodes of one stage together, from the one asked for back to the files."""
    by_path = {node["path"]: node for node in told["nodes"]}
    lines = [f"forgot: {sentence(Loss.model_validate(loss))}" for loss in told["forgetting"]]
    lines += _lines([told["path"]], by_path, set(), "")
    lines += [f"removed since: {path}" for path in told["missing"][:_TOLD]]
    console.print("\n".join(lines), highlight=False, markup=False, soft_wrap=True)


def _lines(paths: list[str], by_path: dict[str, JSON], seen: set[str], indent: str) -> Iterator[str]:
    """The nodes of one stage, and further in what they were made of; each node once."""
    seen.update(paths)
    nodes = [by_path[path] for path in paths]
    first = nodes[0]
    yield f"{indent}{first['stage']}  {first['path'] if len(nodes) == 1 else f'{len(nodes)} nodes'}"
    yield f"{indent}    {_code(nodes)}"
    facts = [("config", node["config"]) for node in nodes if node["config"]]
    facts += [fact for node in nodes for fact in node["given"].items()]
    for line in list(dict.fromkeys(f"{name} {json.dumps(value)}" for name, value in facts))[:_TOLD]:
        yield f"{indent}    {line}"
    sources = [source for node in nodes for source in node["sources"]]
    files = dict.fromkeys(f"{source['address'] or 'a file'} {source['digest'][:16]}" for source in sources)
    yield from (f"{indent}    file {file}" for file in list(files)[:_TOLD])
    if len(files) > _TOLD:
        yield f"{indent}    and {len(files) - _TOLD} more files; --json names all"
    before = [value for node in nodes for name, value in node["inputs"].items() if name != "predecessor"]
    stages: dict[str, list[str]] = {}
    for value in dict.fromkeys(before):
        if value in by_path and value not in seen:
            stages.setdefault(by_path[value]["stage"], []).append(value)
    for group in stages.values():
        if unseen := [path for path in group if path not in seen]:
            yield from _lines(unseen, by_path, seen, indent + "  ")


def _code(nodes: list[JSON]) -> str:
    """What made them: the stage's VERSION, the package, commits, the room's source, the days."""
    versions = sorted({f"VERSION {node['version']}" for node in nodes})
    packages = sorted({f"daptflow {node['code']['package']}" for node in nodes if node["code"]["package"]})
    commits = sorted({f"commit {node['code']['commit']}" for node in nodes if node["code"]["commit"]})
    drift = sorted({f"source {node['code']['drift'][:12]}" for node in nodes})
    days = sorted({str(node["started"])[:10] for node in nodes})
    when = days[0] if len(days) == 1 else f"{days[0]} to {days[-1]}"
    return ", ".join([*versions, *packages, *commits[:_TOLD], *drift[:_TOLD], when])


def print_documents(told: JSON, console: Console) -> None:
    """A line a document, under its sequence."""
    for sequence in told["sequences"]:
        of = "general " if sequence["corpus"] == "general" else ""
        console.print(f"{of}corpus row {sequence['row']}", highlight=False)
        for document in sequence["documents"]:
            place = f"byte {document['byte']}" if "byte" in document else f"row {document['row']}"
            token = f", token {document['token']}" if "token" in document else ""
            file = document["file"] or "a file"
            line = f"  {document['id']}  {file} {place}{token}"
            console.print(line, highlight=False, markup=False, soft_wrap=True)
