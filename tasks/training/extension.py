"""The state that a larger milestone goes on from: a checkpoint that stands in the node of a smaller one.

It lies in `state/step-N/` of the node, beside the model: 12 bytes a parameter, as every checkpoint, whatever
the ranks that made it.
"""

from pathlib import Path

from tasks.store.errors import StoreDamaged
from tasks.store.manifest import read_manifest, require_whole
from tasks.store.node import Node
from tasks.store.paths import Store
from tasks.training.checkpoint import Checkpoint

STATE = "state"


def extended(store: Store, node: Node, work: Path, step: int) -> Checkpoint:
    """The checkpoint of the milestone before, on this machine's disk and checked against its manifest.

    Args:
        store: where nodes are.
        node: the training that goes on.
        work: where it is put when the store is a remote one.
        step: steps done in it.

    Raises:
        StoreDamaged: the milestone before does not stand, or a file is not what its manifest says.
    """
    path = node.reads["previous"]
    manifest = read_manifest(store, path)
    if manifest is None:
        raise StoreDamaged(store.address(path), "it has no whole manifest")
    name = f"{STATE}/step-{step}"
    folder = (
        store.local_path(f"{path}/{name}") if store.local is not None else work / "previous" / f"step-{step}"
    )
    found = [entry for entry in manifest.files if entry.name.startswith(f"{name}/")]
    if not found:
        raise StoreDamaged(store.address(path), f"it holds no {name}")
    for entry in found:
        file = folder / Path(entry.name).name
        if store.local is None:
            folder.mkdir(parents=True, exist_ok=True)
            store.fs.get_file(store.inside(f"{path}/{entry.name}"), str(file))
        if not file.exists():
            raise StoreDamaged(store.address(f"{path}/{entry.name}"), "it is missing")
        require_whole(store, path, entry, file)
    return Checkpoint.at(folder)
