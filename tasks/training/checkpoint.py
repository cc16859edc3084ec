"""Checkpoints of a training under way: `step-N/` folders, whole or not taken for one.

A checkpoint is made in `writing-N/`, its files reach the disk, the folder is renamed, and `manifest.json`
with the size and sha256 of each file is written last. What has no whole manifest is never loaded: `newest`
removes it. The last two are kept, and the one whose state a larger milestone goes on from. Imports no torch:
the parent looks here before it starts the processes.

Weights that are measured later (`training.eval_at`) lie in `kept/`, a file a step, which has its name once it
is whole. They are written before the checkpoint of their step, so whoever goes on from one finds those before
it; a checkpoint that lacks them is removed too.

What it holds knows nothing of ranks: the fp32 weights and both AdamW moments, by parameter name, and the
record of all steps. So training goes on with any number of ranks, ZeRO stage or offload; on the same ones
bit for bit. The price is that rank 0 gathers 12 bytes a parameter, one third at a time (0.5 GB of host memory
at 125M parameters).
"""

import hashlib
import json
import logging
import os
import shutil
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path

import msgspec

from tasks.store.json import JSON
from tasks.store.manifest import FileEntry
from tasks.store.paths import replace_durably
from tasks.training.steps import Row

logger = logging.getLogger(__name__)

KEPT = 2
WEIGHTS_KEPT = "kept"
PARTS = ("weights", "exp_avg", "exp_avg_sq")
"""One safetensors file each: the fp32 weights and the two moments of AdamW."""
CURVE = "curve.json"
MANIFEST = "manifest.json"


class _Manifest(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    step: int
    """Steps done."""
    files: list[FileEntry]
    how: JSON


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A whole checkpoint."""

    folder: Path
    step: int
    """Steps done when it was made."""

    @classmethod
    def at(cls, folder: Path) -> "Checkpoint":
        """The checkpoint in a folder that is known to be whole."""
        return cls(folder, int(folder.name.removeprefix("step-")))

    def part(self, name: str) -> Path:
        """The file of one of `PARTS`."""
        return self.folder / f"{name}.safetensors"

    def curve(self) -> list[Row]:
        """The record of all steps up to here."""
        rows: list[Row] = json.loads((self.folder / CURVE).read_text())
        return rows


def begin(work: Path, step: int) -> Path:
    """An empty folder to make the checkpoint of a step in."""
    folder = work / f"writing-{step}"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


def write_curve(writing: Path, curve: list[Row]) -> None:
    """The record of all steps so far, with the columns of `steps.py`."""
    (writing / CURVE).write_text(json.dumps(curve))


def commit(writing: Path, step: int, how: JSON, *, keep: int) -> Checkpoint:
    """Make what was written a checkpoint, and drop those beyond the last two.

    Args:
        writing: from `begin`, with all its files.
        step: steps done.
        how: ranks and the like, recorded.
        keep: a step whose checkpoint stays, however many come after it.
    """
    entries = []
    for file in sorted(writing.iterdir()):
        with file.open("rb") as data:
            os.fsync(data.fileno())
            digest = hashlib.file_digest(data, "sha256").hexdigest()
        entries.append(FileEntry(name=file.name, sha256=digest, bytes=file.stat().st_size))
    final = writing.with_name(f"step-{step}")
    shutil.rmtree(final, ignore_errors=True)
    writing.rename(final)
    temporary = final / f"{MANIFEST}.part"
    told = msgspec.json.encode(_Manifest(step=step, files=entries, how=how))
    temporary.write_bytes(msgspec.json.format(told, indent=1))
    replace_durably(temporary, final / MANIFEST)
    for old in sorted(_steps(final.parent))[:-KEPT]:
        if old != keep:
            shutil.rmtree(final.parent / f"step-{old}")
    return Checkpoint(final, step)


def keep_weights(writing: Path, step: int) -> None:
    """Keep the weights of a step.

    Args:
        writing: from `begin`, with the weights.
        step: steps done.
    """
    file = weights_kept(writing.parent, step)
    file.parent.mkdir(parents=True, exist_ok=True)
    replace_durably(writing / f"{PARTS[0]}.safetensors", file)
    writing.rmdir()


def weights_kept(work: Path, step: int) -> Path:
    """The file of the weights that are kept of a step, fp32."""
    return work / WEIGHTS_KEPT / f"step-{step:06d}.safetensors"


def newest(work: Path, kept: Collection[int] = ()) -> Checkpoint | None:
    """The newest whole checkpoint, its digests checked; what is not whole is removed.

    Args:
        work: the training's folder.
        kept: steps whose weights are kept: those before a checkpoint belong to it.
    """
    for left in work.glob("writing-*"):
        shutil.rmtree(left)
    for step in sorted(_steps(work), reverse=True):
        folder = work / f"step-{step}"
        lost = [before for before in kept if before <= step and not weights_kept(work, before).exists()]
        why = f"the weights of step {lost[0]} are lost" if lost else _why_broken(folder)
        if why is None:
            return Checkpoint(folder, step)
        logger.warning("the checkpoint %s is left out: %s", folder, why)
        shutil.rmtree(folder)
    return None


def link(checkpoint: Path, target: Path) -> None:
    """The files of a checkpoint at another place too, without copying where the disk can."""
    target.mkdir(parents=True)
    for file in checkpoint.iterdir():
        try:
            (target / file.name).hardlink_to(file)
        except OSError:  # a file system without links
            shutil.copyfile(file, target / file.name)


def whole_steps(work: Path) -> list[int]:
    """Steps whose checkpoint was committed."""
    return [step for step in _steps(work) if (work / f"step-{step}" / MANIFEST).exists()]


def steps_of(names: Iterable[str]) -> list[int]:
    """The steps among the names of checkpoint folders."""
    steps = [name.removeprefix("step-") for name in names if name.startswith("step-")]
    return [int(step) for step in steps if step.isdigit()]


def _steps(work: Path) -> list[int]:
    return steps_of(path.name for path in work.glob("step-*"))


def _why_broken(folder: Path) -> str | None:
    try:
        manifest = msgspec.json.decode((folder / MANIFEST).read_bytes(), type=_Manifest)
    except FileNotFoundError:
        return "it has no manifest, its making was cut short"
    except msgspec.DecodeError:
        return "its manifest is not readable"
    for entry in manifest.files:
        file = folder / entry.name
        if not file.exists() or file.stat().st_size != entry.bytes:
            return f"{entry.name} has not the size that its manifest says"
        with file.open("rb") as data:
            if hashlib.file_digest(data, "sha256").hexdigest() != entry.sha256:
                return f"{entry.name} does not hash to what its manifest says"
    return None
