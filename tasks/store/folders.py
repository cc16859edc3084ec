"""The model's and the tokenizer's folders on this machine's disk, checked to be what was planned."""

from pathlib import Path

from tasks.store.errors import SourceError, StoreDamaged
from tasks.store.json import JSON
from tasks.store.manifest import read_manifest, require_whole
from tasks.store.models import resolve_model
from tasks.store.paths import Store


def local_folder(store: Store, address: JSON, digest: str, *, weights: bool, into: Path) -> Path:
    """A model's or tokenizer's folder.

    Args:
        store: where nodes are.
        address: {"node": path}, with "inside" a folder of that node; or {"folder", "reference", "revision"}.
        digest: what its files are known by; a node's are checked against its manifest.
        weights: it is a model; else a tokenizer.
        into: where a node's files are put when the store is a remote one.

    Raises:
        SourceError: the folder is gone, or its files changed since this was planned.
        StoreDamaged: the node does not stand, or a file is not what its manifest says.
    """
    if "node" in address:
        return _node_folder(store, address["node"], address.get("inside", ""), into)
    place = Path(address["folder"])
    # On another machine of a pool the Hub's copy may not be there yet.
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


def _node_folder(store: Store, path: str, inside: str, into: Path) -> Path:
    manifest = read_manifest(store, path)
    if manifest is None:
        raise StoreDamaged(store.address(path), "it has no whole manifest")
    folder = store.local_path(f"{path}/{inside}") if store.local is not None else into
    for entry in manifest.files:
        parent, _, name = entry.name.rpartition("/")
        if parent != inside:  # optimizer states and the like are no part of the model
            continue
        file = folder / name
        if store.local is None and not (file.exists() and file.stat().st_size == entry.bytes):
            folder.mkdir(parents=True, exist_ok=True)
            store.fs.get_file(store.inside(f"{path}/{entry.name}"), str(file))
        if not file.exists():
            raise StoreDamaged(store.address(f"{path}/{entry.name}"), "it is missing")
        require_whole(store, path, entry, file)
    return folder
