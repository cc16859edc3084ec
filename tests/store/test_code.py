"""Which code made a node is recorded, and is no identity."""

import subprocess
from pathlib import Path

import pytest

from tasks.store.code import code_commit, package_version
from tasks.store.manifest import read_manifest
from tasks.store.node import Node
from tasks.store.paths import Store
from tasks.store.shard import build_node

ROOT = Path(__file__).parents[2]


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="no checkout: there is no commit to tell")
def test_the_commit_is_the_checkout_s() -> None:
    words = ["git", "-C", str(ROOT), "rev-parse", "HEAD"]
    head = subprocess.run(words, check=True, capture_output=True, text=True).stdout.strip()
    assert code_commit() in (head, f"{head}-dirty")


def test_a_manifest_tells_version_and_commit_beside_its_identity(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    node = Node(stage="corpus", version=1, config={}, inputs={})
    build_node(store, node, lambda _writer: None, room="tasks.packing", shard="")
    manifest = read_manifest(store, node.path)
    assert manifest is not None
    assert (manifest.package, manifest.commit) == (package_version(), code_commit())
    assert manifest.fingerprint == node.fingerprint
