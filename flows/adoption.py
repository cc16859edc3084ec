"""`dapt adopt`: token ids that somebody else made become packed shards of this store, with their provenance.

One node a source shard, known by its files' digests, the tokenizer's and how they are read: what stands is
not made again, so a run that was killed goes on, and a folder that has more files appends. The list of a name
is written last, when all its shards stand; a recipe trains on it with `download.adopted`.
"""

import re
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from glob import has_magic
from pathlib import Path

import msgspec
from rich.console import Console

from flows.adopted import Adopted, AdoptedShard, folder_of, read_adopted, write_adopted
from tasks.download.config import SourceFile, SourceShard
from tasks.download.digests import DigestMemory
from tasks.download.tokens import (
    TokenFiles,
    TokenSource,
    common_length,
    grouped,
    iter_tokens,
    list_tokens,
    require_unpadded,
)
from tasks.packing.adopted import pack_adopted
from tasks.packing.config import AdoptedConfig, PackingConfig, adopted_node
from tasks.runtime.progress import Progress, tell
from tasks.settings import Settings
from tasks.store.errors import DaptError, RecipeError, ShardsFailed, SourceError
from tasks.store.json import JSON
from tasks.store.lock import locked
from tasks.store.manifest import Manifest
from tasks.store.masking import SECRETS, credential_in
from tasks.store.models import resolve_model
from tasks.store.node import Node
from tasks.store.paths import Store
from tasks.store.shard import NodeWriter, build_node, require_disk
from tasks.store.use import using
from tasks.tokenization.config import TokenizerRef, tokenizer_of

_NAME = re.compile(r"[a-z0-9][a-z0-9-]*")
_COMMIT = re.compile(r"@[0-9a-f]{40}/")
_PACKED_BYTES = 0.5
"""Of a byte of ids as their file stores them uncompressed: 1.15 bytes a token, of 2 to 4."""
_COUNTED = ("rows_in", "tokens_in", "eos_added", "surplus_eos", "leftover_tokens", "sequences")


def adopt(
    source: TokenSource, *, name: str, tokenizer: str, sequence_length: int, settings: Settings
) -> JSON:
    """Take token shards into a store.

    Args:
        source: where they are.
        name: what recipes will call them; empty: made of the path.
        tokenizer: a Hub id or folder: what made the ids.
        sequence_length: of the packed rows; source rows that all have it are taken as they are.
        settings: which store, and how many shards at once.

    Returns:
        The `adopt --json` object.

    Raises:
        RecipeError: an argument is wrong, or what was adopted under this name does not go with it.
        SourceError: the source cannot be listed or read; names the file.
        ShardsFailed: shards failed and are told; the others stand, the list is as it was.
    """
    name = name or _name_of(source.path)
    if not _NAME.fullmatch(name):
        raise RecipeError(f"--name {name!r}: expected lower-case letters, digits and hyphens")
    if sequence_length < 2:
        raise RecipeError(f"--sequence-length {sequence_length}: expected at least 2")
    if found := credential_in(source.path):
        raise RecipeError(
            f"the URL carries {found}, which manifests would keep; leave it out and set "
            f"{', '.join(SECRETS)} in the environment"
        )
    store, here = Store(settings.store), Path.cwd()
    made_by = tokenizer_of(resolve_model(tokenizer, folder=here, weights=False))
    with using(store, f"adopt {name}"), locked(store, folder_of(name)):
        listed = list_tokens(source, folder=here, digests=DigestMemory(store))
        before = read_adopted(store, name)
        if before is not None:
            _require_same(before, source.column, sequence_length, made_by)
        parts = _new_parts(before, listed)
        layout, notes = _layout(before, parts, source.column, sequence_length)
        config = AdoptedConfig.model_validate({"column": source.column, "layout": layout})
        shards = grouped(parts)
        nodes = [shard.node for shard in before.shards] if before else []
        path, reference = _absolute(source.path), _absolute(tokenizer)
        reads = {"path": path, "revision": listed.revision, "tokenizer": reference}
        nodes += [_node(shard, config, sequence_length, made_by, reads) for shard in shards]
        require_disk(store, int(sum(shard.text_bytes for shard in shards) * _PACKED_BYTES))
        built = _build(store, nodes, settings)
        write_adopted(
            store,
            Adopted(
                name=name,
                path=path,
                revision=listed.revision,
                column=source.column,
                layout=layout,
                sequence_length=sequence_length,
                tokenizer=reference,
                tokenizer_digest=made_by.digest,
                eos_id=made_by.eos_id,
                shards=[_entry(node, manifest) for node, (manifest, _) in zip(nodes, built, strict=True)],
            ),
        )
    told = _told(name, listed, [manifest for manifest, _ in built], sum(made for _, made in built))
    lines = _recipe_lines(name, reference, sequence_length)
    return {**told, "layout": layout, "notes": [*listed.notes, *notes], "recipe": lines}


def build_adopted(writer: NodeWriter) -> None:
    """Make one packed shard of its source files.

    Raises:
        SourceError: a file is broken or changed, or a row is not what it has to be; names file and row.
        TransientError: the network failed.
    """
    reads, config = writer.node.reads, dict(writer.node.config)
    shard = msgspec.convert(reads["shard"], SourceShard)
    adopted = AdoptedConfig.model_validate(config.pop("adopted"))
    length = PackingConfig.model_validate(config).sequence_length if adopted.layout == "rows" else None
    rows = iter_tokens(shard, adopted.column, vocab_size=reads["vocab_size"], row_length=length)
    pack_adopted(writer, rows)
    origin = {key: reads[key] for key in ("path", "revision", "tokenizer")}
    writer.details |= {"adopted": {**origin, "column": adopted.column}, "sources": shard.addresses}


def _name_of(path: str) -> str:
    words = "".join(c if c.isalnum() and c.isascii() else "-" for c in Path(path.rstrip("/*.")).stem.lower())
    return re.sub("-+", "-", words).strip("-") or "adopted"


def _absolute(reference: str) -> str:
    """A path means the same wherever it is read again; Hub ids and URLs stay."""
    place = Path(reference).expanduser()
    local = "://" not in reference and (place.exists() or has_magic(reference))
    return str(place.absolute()) if local else reference


def _require_same(before: Adopted, column: str, sequence_length: int, tokenizer: TokenizerRef) -> None:
    """What a name was adopted with does not change: rows made otherwise are another corpus."""
    given = {
        "--column": (before.column, column),
        "--sequence-length": (before.sequence_length, sequence_length),
        "--tokenizer": (before.tokenizer_digest[:12], tokenizer.digest[:12]),
        "the tokenizer's EOS": (before.eos_id, tokenizer.eos_id),
    }
    for what, (was, now) in given.items():
        if was != now:
            raise RecipeError(
                f"{before.name} was adopted with {what} {was}, found {now}; give that, or another --name"
            )


def _new_parts(before: Adopted | None, listed: TokenFiles) -> list[SourceFile]:
    """What is not adopted yet, in order; an adopted file that changed is a mistake to tell."""
    adopted = [
        file
        for shard in (before.shards if before else [])
        for file in msgspec.convert(shard.node.reads["shard"], SourceShard).files
    ]
    known = {file.digest for file in adopted}
    places = {_COMMIT.sub("/", file.address) for file in adopted}
    new = [part for part in listed.parts if part.digest not in known]
    changed = next((part.address for part in new if _COMMIT.sub("/", part.address) in places), None)
    if changed is not None and before is not None:
        raise RecipeError(
            f"{changed} changed since it was adopted as {before.name}; what is adopted stays as it was: give "
            "the new contents another --name, or the file another name"
        )
    return new


def _layout(
    before: Adopted | None, parts: Sequence[SourceFile], column: str, sequence_length: int
) -> tuple[str, list[str]]:
    """How the rows lie, by the first of them; and what the user should know."""
    if before is not None:
        return before.layout, []
    if not parts:
        raise SourceError("the source holds no files")
    require_unpadded(parts[0])
    length = common_length(parts[0], column)
    if length == sequence_length:
        return "rows", []
    if length is None:
        return "documents", []
    note = (
        f"the first rows of {parts[0].address} have {length} tokens each: each is taken for a document and "
        f"closed with EOS; if they are packed already, adopt them with --sequence-length {length}"
    )
    return "documents", [note]


def _node(
    shard: SourceShard, config: AdoptedConfig, sequence_length: int, tokenizer: TokenizerRef, reads: JSON
) -> Node:
    return adopted_node(
        PackingConfig(sequence_length=sequence_length),
        config,
        [file.identity for file in shard.files],
        tokenizer_digest=tokenizer.digest,
        eos_id=tokenizer.eos_id,
        reads={
            **reads,
            "shard": msgspec.to_builtins(shard),
            "eos_id": tokenizer.eos_id,
            "vocab_size": tokenizer.vocab_size,
        },
    )


def _build(store: Store, nodes: Sequence[Node], settings: Settings) -> list[tuple[Manifest, bool]]:
    """Make what does not stand; every shard that fails is told."""
    failed: list[str] = []
    with ThreadPoolExecutor(max_workers=settings.workers) as pool:
        futures = {
            pool.submit(
                build_node,
                store,
                node,
                build_adopted,
                room="tasks.packing",
                shard=f"{position:05d}",
                scratch=settings.scratch,
            ): position
            for position, node in enumerate(nodes)
        }
        for done, future in enumerate(as_completed(futures), start=1):
            shard = f"{futures[future]:05d}"
            try:
                manifest, _ = future.result()
            except DaptError as err:
                failed.append(f"shard {shard}: {err}")
                continue
            fields: dict[str, float | str] = {
                "documents": manifest.documents_out,
                "bytes": sum(file.bytes for file in manifest.files),
                "seconds": manifest.seconds,
            }
            tell(Progress("adopt", shard, done, len(nodes), "shards", fields))
    if failed:
        count = f"{len(failed)} of {len(nodes)} shards failed; adopt again to redo just these"
        raise ShardsFailed("\n".join([*sorted(failed), count]))
    return [future.result() for future in futures]


def _entry(node: Node, manifest: Manifest) -> AdoptedShard:
    read = msgspec.convert(node.reads["shard"], SourceShard).read_bytes
    return AdoptedShard(node=node, sequences=int(manifest.details["sequences"]), read_bytes=read)


def _told(name: str, listed: TokenFiles, manifests: Sequence[Manifest], made: int) -> JSON:
    counts: Counter[str] = Counter()
    dropped: Counter[str] = Counter()
    for manifest in manifests:
        counts.update({key: manifest.details[key] for key in _COUNTED})
        dropped.update(manifest.dropped)
    return {
        "name": name,
        "revision": listed.revision,
        "shards": len(manifests),
        "made": made,
        "documents_in": sum(m.documents_in for m in manifests),
        "documents_out": sum(m.documents_out for m in manifests),
        "dropped": {reason: count for reason, count in sorted(dropped.items()) if count},
        **{key: counts[key] for key in _COUNTED},
        "tokens": sum(m.tokens for m in manifests),
    }


def _recipe_lines(name: str, tokenizer: str, sequence_length: int) -> str:
    return (
        f'[download]\nadopted = "{name}"\n\n[packing]\nsequence_length = {sequence_length}\n\n'
        f'[tokenization]\ntokenizer = "{tokenizer}"  # or leave it out, where it is the base model\'s'
    )


def print_adopted(told: JSON, console: Console) -> None:
    """What was taken in, that nothing was lost, and how a recipe names it."""
    dropped = ", ".join(f"{reason} {count:,}" for reason, count in told["dropped"].items())
    taken = "taken as they are" if told["layout"] == "rows" else "packed"
    lines = [
        f"{told['name']}: {told['shards']} shards stand, {told['made']} of them made now",
        f"{told['documents_in']:,} {told['layout']} → {told['documents_out']:,} in {told['sequences']:,} "
        + f"sequences, {taken}"
        + (f"; dropped: {dropped}" if dropped else ""),
        f"tokens: {told['tokens_in']:,} read + {told['eos_added']:,} EOS added = {told['tokens']:,} packed + "
        f"{told['leftover_tokens']:,} left over + {told['surplus_eos']:,} surplus EOS",
        "a recipe trains on them with:\n",
        told["recipe"],
    ]
    console.print("\n".join(lines), markup=False, highlight=False, soft_wrap=True)
