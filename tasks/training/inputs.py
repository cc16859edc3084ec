"""The folders that a training reads, on this machine's disk and checked to be what was planned."""

import shutil
from itertools import pairwise
from pathlib import Path

from tasks.store.config import JSON
from tasks.store.errors import RecipeError, SourceError, StoreDamaged
from tasks.store.manifest import Manifest, read_manifest
from tasks.store.models import TOKENIZER_FILES, resolve_model
from tasks.store.paths import Store
from tasks.store.shard import open_node_file

_TOKENIZER_EXTRAS = ("chat_template.jinja", "spiece.model")


def local_folder(store: Store, address: JSON, digest: str, *, weights: bool, into: Path) -> Path:
    """A model's or tokenizer's folder.

    Args:
        store: where nodes are.
        address: {"node": path}, or {"folder", "reference", "revision"}.
        digest: what its files are known by; a node's are checked against its manifest.
        weights: it is a model; else a tokenizer.
        into: where a node's files are copied.

    Raises:
        SourceError: the folder is gone, or its files changed since this was planned.
        StoreDamaged: the node is not whole.
    """
    if "node" in address:
        return _fetched(store, address["node"], into)
    place = Path(address["folder"])
    # on another machine of a pool the Hub's copy may not be there yet
    reference = address["folder"] if place.is_dir() or not address.get("revision") else address["reference"]
    found = resolve_model(
        reference, folder=place.parent, revision=address.get("revision", ""), weights=weights
    )
    has = found.model_digest if weights else found.tokenizer_digest
    if has != digest:
        kind = "model" if weights else "tokenizer"
        raise SourceError(
            f"the {kind} files in {found.folder} changed since this was planned (digest {has[:12]}, planned "
            f"{digest[:12]}); plan again"
        )
    return found.folder


def _fetched(store: Store, path: str, into: Path) -> Path:
    """A node's files, digests checked: where they stand, or copied from a remote store."""
    manifest = _stands(store, path)
    if store.local is None:
        shutil.rmtree(into, ignore_errors=True)
    for entry in manifest.files:
        with open_node_file(store, path, entry.name) as file:
            if store.local is None:
                target = into / entry.name
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(file, target)
    return into if store.local is None else store.local_path(path)


def copy_tokenizer(source: Path, model: Path) -> None:
    """Save a tokenizer's files with a model."""
    for name in sorted({*TOKENIZER_FILES, *_TOKENIZER_EXTRAS}):
        if (source / name).is_file():
            shutil.copyfile(source / name, model / name)


def corpus_borders(store: Store, corpora: list[str]) -> tuple[tuple[int, ...], int]:
    """Sequences of each milestone's corpus, and the tokens of a sequence.

    Raises:
        StoreDamaged: a corpus does not stand.
    """
    manifests = [_stands(store, path) for path in corpora]
    borders = tuple(int(manifest.sequences or 0) for manifest in manifests)
    for smaller, larger in pairwise(manifest.shards or [] for manifest in manifests):
        assert smaller[:-1] == larger[: len(smaller) - 1], "a corpus does not begin with the one before it"
    return borders, int(manifests[-1].sequence_length or 0)


def _stands(store: Store, path: str) -> Manifest:
    manifest = read_manifest(store, path)
    if manifest is None:
        raise StoreDamaged(store.address(path), "it has no whole manifest")
    return manifest


def require_positions(model: JSON, sequence_length: int) -> None:
    """Check that the model was made for sequences this long.

    Raises:
        RecipeError: it was not.
    """
    positions = model.get("max_position_embeddings")
    if isinstance(positions, int) and sequence_length > positions:
        raise RecipeError(
            f"packing.sequence_length={sequence_length} is beyond the {positions} positions that the base "
            f"model knows (max_position_embeddings); use at most {positions}"
        )
