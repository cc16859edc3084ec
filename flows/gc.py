"""`dapt gc`: remove from a store what no kept recipe reaches.

A recipe reaches the nodes of its source shards that stand, within its budget or beyond, its corpora,
models, evaluations and report, the model it starts from, what it adopts, and all that its records name.
Where it cannot be resolved any more (its source is gone), its records alone speak for it.

Beside a live run everything stays that any record reaches, and all that was made since the oldest one
began; no run begins while something is removed (`tasks/store/use.py`). A node goes with its manifest first,
and what stands on others goes before them: killed at any moment it leaves no node that looks whole and is
not.
"""

import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import ValidationError
from rich.console import Console
from rich.table import Table

from flows.adopted import folder_of, read_adopted
from flows.outcome import nodes_of, walks_of
from flows.recipe import Recipe, load_recipe
from flows.record import read_records
from flows.resolve import resolve
from tasks.settings import Settings
from tasks.store.errors import DaptError
from tasks.store.json import JSON
from tasks.store.lock import is_locked
from tasks.store.manifest import NAME, read_manifest
from tasks.store.paths import TEMPORARY, Store
from tasks.store.tokens import size_told
from tasks.store.use import USERS, live, removing

STAGES = (
    "report",
    "evaluation",
    "training",
    "reference_loss",
    "corpus",
    "packing",
    "tokenization",
    "tokenizer",
    "dedup",
    "contamination",
    "benchmarks",
    "signatures",
    "filtering",
    "download",
)
"""What stands on others before them."""
_ABANDONED_S = 3600
"""A temporary file outside a node this old belongs to nobody: it is written in milliseconds."""


@dataclass(slots=True)
class _Kept:
    """What stays, and why something stays that was not asked for."""

    names: set[str] = field(default_factory=set)
    paths: set[str] = field(default_factory=set)
    notes: list[str] = field(default_factory=list)
    since: str | None = None
    """Of a live run: what was made from then on stays."""


@dataclass(frozen=True, slots=True)
class _Removal:
    """A file or folder that goes."""

    path: str
    bytes: int
    kind: str
    """A stage, or what else it is, as it is told."""


def collect(keep: Sequence[Path], settings: Settings, *, dry_run: bool, console: Console) -> JSON:
    """Find what no kept recipe reaches, tell it, and remove it.

    Args:
        keep: recipes to keep; none: every recipe that was ever run on this store.
        settings: which store.
        dry_run: tell it alone.
        console: where it is told, before anything is removed.

    Returns:
        The `gc --json` object.

    Raises:
        DaptError: a recipe to keep cannot be read, or is neither resolved nor recorded.
    """
    store = Store(settings.store)
    if dry_run:
        return _collect(store, keep, settings, live(store), dry_run=True, console=console)
    with removing(store) as runs:
        return _collect(store, keep, settings, runs, dry_run=False, console=console)


def _collect(
    store: Store,
    keep: Sequence[Path],
    settings: Settings,
    runs: list[JSON],
    *,
    dry_run: bool,
    console: Console,
) -> JSON:
    kept = _kept(store, keep, settings, runs)
    folders = dict(_node_folders(store))
    strangers = [path for path in folders if path not in kept.paths and _is_made(store, path, folders[path])]
    if strangers and kept.since is None:
        kept.since = ""
        kept.notes.append(
            f"somebody makes {store.address(strangers[0])}: no node is removed before that ends"
        )
    for note in kept.notes:
        console.print(note, markup=False, highlight=False, soft_wrap=True)
    removals = [*_nodes(store, folders, kept), *_lists(store, kept), *_leftovers(store, kept)]
    _print(removals, sorted(kept.names), console)
    if not dry_run:
        for removal in removals:
            if removal.kind in STAGES:
                store.remove(f"{removal.path}/{NAME}")
            store.remove(removal.path)
    return {
        "kept": sorted(kept.names),
        "removed": [{"path": store.address(removal.path), "bytes": removal.bytes} for removal in removals],
        "bytes": sum(removal.bytes for removal in removals),
        "dry_run": dry_run,
    }


def _kept(store: Store, keep: Sequence[Path], settings: Settings, runs: list[JSON]) -> _Kept:
    """Everything that stays."""
    kept = _Kept()
    recorded = store.names("recipes")
    given = [load_recipe(file) for file in keep]
    for recipe in given:
        kept.names.add(recipe.name)
        error = _keep_resolved(kept, recipe, settings)
        if error is not None and recipe.name not in recorded:
            raise error
    if runs:
        told = ", ".join(sorted({str(run["recipe"]) for run in runs}))
        kept.notes.append(
            f"at work on this store: {told}; what any recorded recipe reaches stays, and what was made since"
        )
        kept.since = min(str(run["started"]) for run in runs)
    if runs or not given:
        kept.names.update(recorded)
        kept.paths.update(map(folder_of, store.names("adopted")))
    for name in sorted(kept.names & set(recorded)):
        _keep_recorded(kept, store, name, settings)
    for folder in [path for path in kept.paths if path.startswith("adopted/")]:
        adopted = read_adopted(store, folder.removeprefix("adopted/"))
        if adopted is not None:
            kept.paths.update(shard.node.path for shard in adopted.shards)
    return kept


def _keep_recorded(kept: _Kept, store: Store, name: str, settings: Settings) -> None:
    """Keep what every record of a name reaches."""
    records = read_records(store, name)
    files = [file for file in store.names(f"recipes/{name}") if file.endswith(".json")]
    if len(records) < len(files):
        raise DaptError(
            f"a record in {store.address(f'recipes/{name}')} cannot be read: what it reaches is not known, "
            "so nothing is removed. Mend it, remove it, or name the recipes to keep with --keep"
        )
    for record in records:
        kept.paths.update(path for of_stage in record.nodes.values() for path in of_stage)
        try:
            error = _keep_resolved(kept, Recipe.model_validate(record.recipe), settings)
        except ValidationError:
            error = DaptError("it is of another version of daptflow")
        if error is not None:
            told = f"{name}, run on {record.at[:10]}, is kept by its record alone: {_first_line(error)}"
            kept.notes.append(told)


def _first_line(error: DaptError) -> str:
    return (str(error).splitlines() or ["it cannot be resolved"])[0]


def _keep_resolved(kept: _Kept, recipe: Recipe, settings: Settings) -> DaptError | None:
    """Keep what a recipe reaches today; why it cannot be said, if so."""
    if recipe.download.adopted:
        kept.paths.add(folder_of(recipe.download.adopted))
    try:
        resolved = resolve(recipe, settings)
        nodes = nodes_of(resolved, walks_of(resolved))
    except DaptError as err:
        return err
    kept.paths.update(node.path for of_stage in nodes.values() for node in of_stage)
    for chain in resolved.chains.values():
        kept.paths.update(node.path for shard in chain.shards for node in shard.nodes.values())
    if resolved.base_path is not None:
        kept.paths.add(resolved.base_path)
    if resolved.reference is not None and resolved.reference[1] is not None:
        kept.paths.add(resolved.reference[1])
    return None


def _files(store: Store, folder: str) -> dict[str, int]:
    """Bytes of every file below a folder, by path relative to the store's root."""
    try:
        found = store.fs.find(store.inside(folder), detail=True)
    except (FileNotFoundError, NotADirectoryError):
        return {}
    start = len(store.base) + 1
    return {str(path)[start:]: int(facts.get("size") or 0) for path, facts in sorted(found.items())}


def _node_folders(store: Store) -> Iterator[tuple[str, dict[str, int]]]:
    """Every node's folder with its files, what stands on others first."""
    for stage in STAGES:
        folders: dict[str, dict[str, int]] = {}
        for path, size in _files(store, stage).items():
            parts = path.split("/")
            if len(parts) > 3:
                folders.setdefault("/".join(parts[:3]), {})[path] = size
        yield from folders.items()


def _nodes(store: Store, folders: dict[str, dict[str, int]], kept: _Kept) -> Iterator[_Removal]:
    """Nodes that nobody reaches, half-made ones, and what a maker left in those that stay.

    Beside a live run the listing may be older than what a maker has finished since: what looks half-made
    stays, and so does what looks like a leftover.
    """
    alone = kept.since is None
    for folder, files in folders.items():
        whole = f"{folder}/{NAME}" in files
        if _is_made(store, folder, files):
            continue
        if whole and folder not in kept.paths and not _is_recent(store, folder, kept):
            yield _Removal(folder, sum(files.values()), folder.split("/")[0])
        elif alone and not whole:
            yield _Removal(folder, sum(files.values()), "half-made")
        elif alone:
            marked = {path: size for path, size in files.items() if TEMPORARY in path}
            yield from (_Removal(path, size, "temporary") for path, size in marked.items())


def _is_made(store: Store, folder: str, files: Iterable[str]) -> bool:
    """Whether somebody makes a node; where there is no lock at all nothing is asked for, it may be far."""
    return any(f"{folder}/{name}" in files for name in (".lock", ".lease")) and is_locked(store, folder)


def _is_recent(store: Store, folder: str, kept: _Kept) -> bool:
    """Whether a node may be of a live run, or of an adoption that has no list yet."""
    if kept.since is None:
        return False
    manifest = read_manifest(store, folder)
    return manifest is None or manifest.started >= kept.since or "adopted" in manifest.config


def _lists(store: Store, kept: _Kept) -> Iterator[_Removal]:
    """Adopted lists that no kept recipe names."""
    for name in store.names("adopted"):
        if folder_of(name) not in kept.paths and not is_locked(store, folder_of(name)):
            yield _Removal(folder_of(name), sum(_files(store, folder_of(name)).values()), "adopted")


def _leftovers(store: Store, kept: _Kept) -> Iterator[_Removal]:
    """Work of what stands or nobody reaches, failures that nobody reaches, entries of dead runs."""
    for stage in ("download", "reference_loss", "training", "evaluation", "report"):
        for name in store.names(f"work/{stage}"):
            fingerprint = name.removesuffix(".json")
            node, work = f"{stage}/{fingerprint[:2]}/{fingerprint}", f"work/{stage}/{name}"
            unfinished = store.size(f"{node}/{NAME}") is None
            if is_locked(store, node) or (unfinished and (node in kept.paths or kept.since is not None)):
                continue
            yield _Removal(work, sum(_files(store, work).values()), "work")
    for path, size in _files(store, "failures").items():
        _, stage, name = path.split("/", 2)
        fingerprint = name.removesuffix(".json")
        if f"{stage}/{fingerprint[:2]}/{fingerprint}" not in kept.paths and kept.since is None:
            yield _Removal(path, size, "failures")
    if kept.since is None:
        yield from (_Removal(path, size, "dead runs") for path, size in _files(store, USERS).items())
    yield from _abandoned(store)


def _abandoned(store: Store) -> Iterator[_Removal]:
    """Temporary files outside nodes, on a local store: what a writer that was killed left."""
    if store.local is None:
        return
    folders = [store.local, *(store.local_path(name) for name in ("recipes", "failures", "adopted"))]
    for folder in filter(Path.is_dir, folders):
        for file in sorted(folder.glob("*") if folder == store.local else folder.rglob("*")):
            if TEMPORARY in file.name and time.time() - file.stat().st_mtime > _ABANDONED_S:
                yield _Removal(str(file.relative_to(store.local)), file.stat().st_size, "temporary")


def _print(removals: Sequence[_Removal], names: Sequence[str], console: Console) -> None:
    """What goes, by stage: counts and bytes."""
    console.print(f"kept: {', '.join(names) or 'no recipe'}", highlight=False, markup=False, soft_wrap=True)
    if not removals:
        console.print("nothing to remove", highlight=False)
        return
    counts: Counter[str] = Counter()
    sizes: Counter[str] = Counter()
    for removal in removals:
        counts[removal.kind] += 1
        sizes[removal.kind] += removal.bytes
    table = Table()
    for column in ("to remove", "number", "size"):
        table.add_column(column, justify="left" if column == "to remove" else "right")
    for kind, count in counts.items():
        table.add_row(kind, str(count), size_told(sizes[kind]))
    table.add_row("in all", str(len(removals)), size_told(sum(sizes.values())), style="bold")
    console.print(table)
