"""The ordered list of source shards: what a recipe's source is, before a byte of text is read.

The order is the recipe's (globs sorted; a data set's as `datasets` gives it; modules by path), and everything
follows from it and from contents: a large Parquet file is cut by row groups at `shard_bytes` of text, a large
plain jsonl file between lines, a compressed file is one shard, and runs of whole small files of one format go
together up to `shard_bytes`. Files added at the end leave all shards as they are but the last group. A file
whose content stood before is left out, and told.

Listing reads footers and a block at each cut. A Parquet file whose footer cannot be read does not stop it: it
is a shard, and its download fails and names it.
"""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from tasks.download.addresses import expand, matches
from tasks.download.config import Format, SourceConfig, SourceFile, SourceShard
from tasks.download.cutting import Cut, cut
from tasks.download.digests import DigestMemory
from tasks.download.docstrings import module_files
from tasks.download.where import parse
from tasks.runtime.imports import Late
from tasks.store.errors import SourceError

if TYPE_CHECKING:
    from tasks.download import hub
else:
    hub = Late("tasks.download.hub")  # `datasets` takes as long to import as the rest of a plan

MAX_GROUP_FILES = 1000
"""Files in a group: bounds what a node's identity and record hold."""

LISTING_THREADS = 16
_TURNS = 20
"""Of each thread at least, so that one slow part does not hold up the rest."""
_TOLD = 1
_Given = TypeVar("_Given")
_Found = TypeVar("_Found")
_SUFFIXES: dict[str, Format] = {
    ".parquet": "parquet",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "jsonl",
    ".jsonl.gz": "jsonl.gz",
    ".json.gz": "jsonl.gz",
    ".jsonl.zst": "jsonl.zst",
    ".json.zst": "jsonl.zst",
    ".txt": "txt",
}


@dataclass(frozen=True, slots=True)
class Source:
    """A source, listed."""

    shards: list[SourceShard]
    revision: str
    """The data set's commit; "" for other sources."""
    notes: list[str]
    """What a user should know: files left out, and why."""
    num_files: int
    """Files that the shards read."""


def list_source(config: SourceConfig, *, folder: Path, digests: DigestMemory) -> Source:
    """List the shards of a source, in order.

    Args:
        config: the recipe's.
        folder: what its relative paths are relative to.
        digests: remembers what was learnt; saved once, at the end.

    Returns:
        The shards, the commit of a data set, and notes.

    Raises:
        SourceError: nothing matches, a format is unknown, there is no such data set, column or package.
        TransientError: the network failed.
    """
    try:
        files, revision, notes = _found(config, folder, digests)
        files, repeated = _without_repeated(files)
        _require_tabular(files, config)
        cut_files = _in_threads(lambda file: cut(file, config, digests), files)
    finally:
        digests.save()  # what was hashed is not hashed again, whatever came after
    _require_text_column(cut_files, config)
    shards = list(_grouped(cut_files, config.shard_bytes))
    return Source(shards, revision, [*notes, *repeated], len(files))


def _found(
    config: SourceConfig, folder: Path, digests: DigestMemory
) -> tuple[list[SourceFile], str, list[str]]:
    """All files of a source, in order; the commit; and what was left out."""
    if config.dataset:
        listed, revision = hub.list_dataset(config, digests)
        facts = {address: (digest, size) for address, digest, size in listed}
        kept, notes = _without_excluded(list(facts), config, folder)
        return [_file(address, *facts[address]) for address in kept], revision, notes
    if config.source:
        kept, notes = _without_excluded(module_files(config), config, folder)
        return [_file(path, *digests.of(path), kind="docstrings") for path in kept], "", notes
    addresses = [address for entry in config.files for address in expand(entry, folder)]
    kept, notes = _without_excluded(addresses, config, folder)
    for address in kept:
        _format(address)
    known = [digests.remembered(address) for address in kept]
    new = iter(_in_threads(digests.of, [a for a, facts in zip(kept, known, strict=True) if not facts]))
    found = [_file(a, *(facts or next(new))) for a, facts in zip(kept, known, strict=True)]
    return found, "", notes


def _in_threads(find: Callable[[_Given], _Found], given: list[_Given]) -> list[_Found]:
    """Ask for each, many at once.

    Of thousands a thread takes some at a time: what is remembered is told sooner than a thread gets its turn.
    """
    some = max(1, len(given) // (_TURNS * LISTING_THREADS))
    parts = [given[at : at + some] for at in range(0, len(given), some)]
    with ThreadPoolExecutor(LISTING_THREADS) as pool:
        found = pool.map(lambda part: [find(one) for one in part], parts)
        return [one for part in found for one in part]


def _file(address: str, digest: str, size: int, *, kind: Format | None = None) -> SourceFile:
    return SourceFile(address=address, format=kind or _format(address), digest=digest, bytes=size)


def _format(address: str) -> Format:
    name = address.rsplit("/", 1)[-1].lower()
    for suffix, kind in _SUFFIXES.items():
        if name.endswith(suffix):
            return kind
    raise SourceError(
        f"{address}: its format is not known by its name; expected {', '.join(_SUFFIXES)}. "
        "Convert it, or leave it out with exclude"
    )


def _without_excluded(
    addresses: list[str], config: SourceConfig, folder: Path
) -> tuple[list[str], list[str]]:
    notes = []
    for pattern in config.exclude:
        kept = [address for address in addresses if not matches(address, pattern, folder)]
        out = len(addresses) - len(kept)
        notes.append(f"exclude {pattern!r} " + (f"leaves out {out} file(s)" if out else "matches no file"))
        addresses = kept
    if not addresses:
        raise SourceError(
            "the source holds no files" + ("; exclude leaves out all of them" if config.exclude else "")
        )
    return addresses, notes


def _without_repeated(files: list[SourceFile]) -> tuple[list[SourceFile], list[str]]:
    first: dict[str, str] = {}
    kept, repeated = [], []
    for file in files:
        if file.digest in first:
            repeated.append(f"{file.address} (as {first[file.digest]})")
        else:
            first[file.digest] = file.address
            kept.append(file)
    if not repeated:
        return kept, []
    more = f", and {len(repeated) - _TOLD} more" if len(repeated) > _TOLD else ""
    told = f"{len(repeated)} file(s) left out, whose content stands earlier in the list: "
    return kept, [told + ", ".join(repeated[:_TOLD]) + more]


def _require_tabular(files: list[SourceFile], config: SourceConfig) -> None:
    """A text file has no columns to keep."""
    text = next((file for file in files if file.format == "txt"), None)
    for setting in ("metadata_columns", "where"):
        if text and getattr(config, setting):
            raise SourceError(f"{text.address} is plain text and has no columns; leave {setting} out")


def _require_text_column(cut_files: list[Cut], config: SourceConfig) -> None:
    """Where no Parquet file has the text column and those of `where`, the recipe is wrong, not a file."""
    lacking = [(found.parts[0].address, found.columns) for found in cut_files if found.columns]
    if lacking and len(lacking) == len(cut_files):
        address, names = lacking[0]
        setting = "text_column" if config.text_column not in names else "where"
        asked = parse(config.where).columns if config.where else frozenset()
        missing = next(name for name in (config.text_column, *sorted(asked)) if name not in names)
        raise SourceError(
            f"{address} has no column {missing!r}; its columns are {', '.join(names)}: set {setting}"
        )


def _grouped(cut_files: list[Cut], shard_bytes: int) -> Iterator[SourceShard]:
    """Shards in order: parts of large files and compressed files alone, small whole files in groups."""
    group: list[SourceFile] = []
    size = 0
    for found in cut_files:
        part = found.parts[0]
        fits = (
            not found.alone
            and size + part.text_bytes <= shard_bytes
            and len(group) < MAX_GROUP_FILES
            and (not group or group[0].format == part.format)
        )
        if group and not fits:
            yield SourceShard(files=group)
            group, size = [], 0
        if found.alone:
            yield from (SourceShard(files=[piece]) for piece in found.parts)
        else:
            group.append(part)
            size += part.text_bytes
    if group:
        yield SourceShard(files=group)
