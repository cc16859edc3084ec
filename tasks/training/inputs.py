"""The folders that a training reads, on this machine's disk and checked to be what was planned."""

import shutil
from itertools import pairwise
from pathlib import Path

from tasks.store.errors import RecipeError, StoreDamaged
from tasks.store.json import JSON
from tasks.store.manifest import Manifest, read_manifest
from tasks.store.models import TOKENIZER_FILES
from tasks.store.paths import Store
from tasks.training.replay import NO_REPLAY, Replay

_TOKENIZER_EXTRAS = ("chat_template.jinja", "spiece.model")


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


def replay_of(store: Store, fraction: float, corpora: list[str]) -> Replay:
    """What a training replays.

    Args:
        store: where.
        fraction: of all sequences.
        corpora: the general corpora of its milestones; none where nothing is replayed.

    Raises:
        StoreDamaged: a general corpus does not stand.
    """
    return Replay(fraction, corpus_borders(store, corpora)[0][-1]) if corpora else NO_REPLAY


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
