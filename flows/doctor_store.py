"""`dapt doctor` on the places that are written: the store, the scratch folder, the Hub's cache; and room.

Each is really written to, read back and left as it was. A local store is asked for what the pipeline stands
on (DESIGN: fsync, rename in one folder, `flock` between processes); a store that does not exist yet is asked
for in the nearest folder above it that does.
"""

import fcntl
import os
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from huggingface_hub import constants

from flows.doctor_check import Check, ask_all
from flows.doctor_machine import gigabytes
from tasks.settings import Settings
from tasks.store.errors import ResourceError
from tasks.store.json import JSON
from tasks.store.paths import TEMPORARY, Store, replace_durably

LITTLE_BYTES = 2_000_000_000
"""Less than this is told where nobody knows what will be needed."""
REMOTE_S = 15.0
"""For three requests to an object store; its client alone would try for minutes."""
_VOLATILE = {
    "tmpfs": "memory: it is gone with the machine, and takes from its RAM",
    "ramfs": "memory: it is gone with the machine, and takes from its RAM",
    "overlay": "the container's own layer: it is gone with the container",
}


def store(settings: Settings) -> Iterator[Check]:
    """Whether the store can do what it must."""
    try:
        place = Store(settings.store)
    except ResourceError as err:
        yield Check("store", "fails", str(err), "a folder, or a URL that fsspec knows", "set DAPT_STORE")
        return
    if place.local is None:
        yield from ask_all({"store": lambda: [_remote(place)]}, limit_s=REMOTE_S, silence="fails")
        yield _writable("scratch", Path(settings.scratch or tempfile.gettempdir()), "set DAPT_SCRATCH")
        return
    there = _existing(place.local)
    remedy = "set DAPT_STORE to a folder of yours, on a disk with fsync, rename and flock"
    why = refusal(there)
    if why is not None:
        yield Check("store", "fails", f"{place.root}: {why}", "writing, rename, fsync and flock", remedy)
        return
    kind = file_system(there)
    new = "" if place.local.exists() else " (to be made)"
    if kind in _VOLATILE:
        told = f"{place.root}{new} lies in {_VOLATILE[kind]}"
        yield Check("store", "warning", told, "a disk that stays", "set DAPT_STORE, or mount a volume there")
    else:
        yield Check("store", "ok", f"{place.root}{new} on {kind}: writing, rename, fsync and flock work")


def caches() -> Iterator[Check]:
    """The Hub's cache, where models and benchmarks are fetched to."""
    yield _writable("HF_HOME", Path(constants.HF_HOME), "set HF_HOME")


def _writable(name: str, place: Path, do: str) -> Check:
    there = _existing(place)
    try:
        with tempfile.TemporaryFile(dir=there) as file:
            file.write(b"doctor")
    except OSError as err:
        return Check(name, "fails", f"{place}: {err}", "a folder that can be written", do)
    free = shutil.disk_usage(there).free
    told = f"{place} can be written, {gigabytes(free)} free"
    if free < LITTLE_BYTES:
        return Check(
            name, "warning", told, f"some more than {gigabytes(LITTLE_BYTES)}", f"free some, or {do}"
        )
    return Check(name, "ok", told)


def _existing(place: Path) -> Path:
    return next(path for path in (place, *place.parents) if path.exists())


def refusal(folder: Path) -> str | None:
    """Why a folder cannot hold a store, None where it can: nothing is left in it."""
    try:
        with tempfile.TemporaryDirectory(prefix=f"doctor{TEMPORARY}", dir=folder) as name:
            written, final = Path(name) / "written", Path(name) / "final"
            written.write_bytes(b"doctor")
            replace_durably(written, final)
            if final.read_bytes() != b"doctor":
                return "what was written is not what is read"
            return _no_lock(final)
    except OSError as err:
        return str(err)


def _no_lock(file: Path) -> str | None:
    with file.open("a") as first, file.open("a") as second:
        fcntl.flock(first, fcntl.LOCK_EX | fcntl.LOCK_NB)
        try:
            fcntl.flock(second, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return None
        return "flock gives one lock to two holders at once (a network file system without locks?)"


def file_system(place: Path) -> str:
    """The kind of file system a folder is on, by the mount nearest to it."""
    best, kind = Path("/"), "unknown"
    for line in Path("/proc/self/mounts").read_text().splitlines():
        _, at, found = line.split()[:3]
        mount = Path(at.replace("\\040", " "))
        if place.resolve().is_relative_to(mount) and len(mount.parts) >= len(best.parts):
            best, kind = mount, found
    return kind


def _remote(place: Store) -> Check:
    """An object store: one small object written, read and removed."""
    name, data = f"doctor{TEMPORARY}{os.getpid()}-{secrets.token_hex(4)}", secrets.token_bytes(16)
    remedy = (
        "look at the bucket's name and rights, at its keys (AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY) and "
        "address (AWS_ENDPOINT_URL)"
    )
    try:
        place.write(name, data)
        same = place.read(name) == data
        place.remove(name)
    except Exception as err:  # noqa: BLE001 - each store has errors of its own; all are answers here
        told = f"{place.root}: {type(err).__name__}: {err}"
        return Check("store", "fails", told, "an object written, read and removed", remedy)
    if not same:
        return Check("store", "fails", f"{place.root}: read is not what was written", "the same", remedy)
    return Check("store", "ok", f"{place.root}: an object was written, read and removed")


def free_disk(settings: Settings, plan: JSON | None) -> Iterator[Check]:
    """Free bytes of a local store against the plan's, where there is one."""
    try:
        place = Store(settings.store)
    except ResourceError:
        return  # told under "store"
    if place.local is None:
        return
    free = shutil.disk_usage(_existing(place.local)).free
    told, do = f"{gigabytes(free)} free at {place.root}", "free some, or set DAPT_STORE to a larger disk"
    if plan is None:
        little = free < LITTLE_BYTES
        expected = f"more than {gigabytes(LITTLE_BYTES)}, or a recipe to ask for" if little else ""
        yield Check("disk", "warning" if little else "ok", told, expected, do if little else "")
        return
    needed = plan["totals"]["disk_bytes"]
    if needed > free:
        yield Check("disk", "fails", told, f"about {gigabytes(needed)}, by the plan of the recipe", do)
    else:
        yield Check("disk", "ok", f"{told}, about {gigabytes(needed)} needed by the plan of the recipe")
