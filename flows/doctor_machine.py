"""`dapt doctor` on this machine: versions, devices, memory, cores and limits.

What is decided stands in functions of what was found (versions, torch's own word, numbers), so that a machine
that is not at hand can be judged too.
"""

import importlib.metadata
import json
import os
import platform
import resource
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path

import numba
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

import tasks.text.kernel
from flows.doctor_check import Check
from flows.recipe import Recipe
from tasks.runtime.memory import available_memory
from tasks.settings import Settings
from tasks.store.errors import RecipeError
from tasks.store.json import JSON
from tasks.training.order import divide_batch

PACKAGE = "daptflow"
KNOWN_BAD = (("prefect", "==3.8.*", "fastapi", ">=0.151", "prefect 3.8's server does not start with it"),)
"""Combinations that install and do not work: a version of the first with a version of the second."""

PROBE_S = 100.0
PROCESS_BYTES = 400_000_000
WORKER_BYTES = 100_000_000
"""A run with 2 workers took 560 MB; a shard holds a batch of at most 32 MB of text, and its results."""
SHM_BYTES = 1_000_000_000
"""What NVIDIA's containers are started with for nccl between GPUs; Docker's own default is 64 MB."""
OPEN_FILES = 1024
"""What Linux gives a process as a rule: files of shards, connections to the server, and threads' pipes."""


def versions() -> Iterator[Check]:
    """Python and each dependency against its range, and combinations known to be bad."""
    yield Check("python", "ok", f"{platform.python_version()} on {platform.system()} {platform.machine()}")
    if sys.platform != "linux":
        yield Check("system", "fails", sys.platform, "Linux", "run it on Linux, or in a Linux container")
    try:
        wanted = importlib.metadata.requires(PACKAGE) or []
    except importlib.metadata.PackageNotFoundError:
        yield Check(
            "packages",
            "warning",
            f"{PACKAGE} runs from its folder and is not installed, so its ranges are not known",
            "an installed package",
            "pip install -e .",
        )
        return
    yield from judge_versions([Requirement(one) for one in wanted], installed)


def installed(name: str) -> str | None:
    """The version of an installed package."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def judge_versions(wanted: Iterable[Requirement], version: Callable[[str], str | None]) -> Iterator[Check]:
    """What is missing, out of its range, or known not to work beside another.

    Args:
        wanted: the dependencies; those of extras are passed over.
        version: of a package, None where it is not installed.
    """
    needed = [one for one in wanted if one.marker is None or one.marker.evaluate({"extra": ""})]
    bad: list[Check] = []
    for one in needed:
        found = version(one.name)
        if found is None or not one.specifier.contains(found, prereleases=True):
            told, remedy = f"{one.name} {found or 'is not installed'}", f"pip install '{one}'"
            bad.append(Check("packages", "fails", told, f"{one.name}{one.specifier}", remedy))
    for first, of_first, second, of_second, why in KNOWN_BAD:
        here, there = version(first), version(second)
        if here is None or there is None:
            continue
        if SpecifierSet(of_first).contains(here) and SpecifierSet(of_second).contains(there):
            limit = of_second.replace(">=", "<")
            told = f"{second} {there} beside {first} {here}: {why}"
            bad.append(Check("packages", "fails", told, f"{second}{limit}", f"pip install '{second}{limit}'"))
    yield from bad
    if not bad:
        told = ", ".join(f"{name} {version(name)}" for name in ("prefect", "torch", "transformers"))
        yield Check("packages", "ok", f"{len(needed)} in their ranges ({told})")


def probe_devices() -> JSON:
    """What torch sees, asked in a process of its own; `error` where that process failed."""
    words = [sys.executable, "-m", "tasks.training.devices"]
    try:
        done = subprocess.run(words, check=False, capture_output=True, text=True, timeout=PROBE_S)
    except subprocess.TimeoutExpired:
        return {"error": f"torch told nothing within {PROBE_S:g} s"}
    if done.returncode != 0:
        return {"error": (done.stderr.strip().splitlines() or ["no word"])[-1]}
    seen: JSON = json.loads(done.stdout.splitlines()[-1])
    return seen


def driver_devices() -> int:
    """NVIDIA devices that the driver shows, whatever CUDA_VISIBLE_DEVICES chooses of them."""
    return len(list(Path("/dev").glob("nvidia[0-9]*")))


def judge_devices(
    seen: JSON, driver: int, settings: Settings, recipe: Recipe | None, env: Mapping[str, str]
) -> Iterator[Check]:
    """Torch's word against the driver's, the ranks against the devices, the recipe against both."""
    if "error" in seen:
        told = f"torch cannot be used: {seen['error']}"
        remedy = "python -m tasks.training.devices shows all of it; reinstall torch"
        yield Check("torch", "fails", told, "a torch that can be imported", remedy)
        return
    chosen = env.get("CUDA_VISIBLE_DEVICES")
    narrowed = "" if chosen is None else f" (CUDA_VISIBLE_DEVICES={chosen!r})"
    yield _torch(seen, driver, settings, narrowed)
    yield _deepspeed(seen["deepspeed"])
    bf16 = recipe is not None and recipe.training.precision == "bf16"
    for number, device in enumerate(seen["devices"]):
        yield _gpu(f"gpu {number}", device, bf16=bf16)
    yield _ranks(settings, len(seen["devices"]), seen, recipe)


def _gpu(name: str, device: JSON, *, bf16: bool) -> Check:
    told = f"{device['name']}, {gigabytes(device['free_bytes'])} of {gigabytes(device['total_bytes'])} free"
    if bf16 and not device["bf16"]:
        expected = "one that computes in bf16 (Ampere or later), as training.precision asks"
        return Check(name, "fails", f"{told}; no bf16", expected, 'set training.precision = "fp32"')
    return Check(name, "ok", told)


def _deepspeed(seen: JSON) -> Check:
    """DeepSpeed looks at compilers and devices when it is imported, and may not survive it."""
    if not seen["error"]:
        return Check("deepspeed", "ok", f"{seen['version']} can be imported")
    return Check(
        "deepspeed",
        "fails",
        f"it cannot be imported: {seen['error']}",
        "a deepspeed that trainings can import",
        "python -c 'import deepspeed' shows all of it",
    )


def _torch(seen: JSON, driver: int, settings: Settings, narrowed: str) -> Check:
    built = f"CUDA {seen['cuda']}" if seen["cuda"] else "the CPU"
    told = f"torch {seen['torch']}, built for {built}"
    if seen["available"]:
        return Check("torch", "ok", f"{told}; sees {len(seen['devices'])} of {driver} GPU(s){narrowed}")
    if not settings.has_gpu:
        where = f"{driver} GPU(s) switched off{narrowed}" if driver else "no GPU on this machine"
        return Check(
            "torch",
            "warning",
            f"{told}; {where}",
            "a GPU, for models of 100M parameters and more",
            "nothing for a trial: trainings and evaluations run on the CPU, slowly",
        )
    if not seen["cuda"]:
        return Check(
            "torch",
            "fails",
            f"{told}, while the driver shows {driver} GPU(s): they would not be used",
            "a build for CUDA",
            "install torch from the index of your CUDA version, https://pytorch.org/get-started/locally",
        )
    return Check(
        "torch",
        "fails",
        f"{told}, sees none of {driver} GPU(s){narrowed}: {seen['why_not'] or 'it does not say why'}",
        "a driver at least as new as torch's CUDA",
        "compare the CUDA version that nvidia-smi shows; take a newer driver, or torch for an older CUDA",
    )


def _ranks(settings: Settings, devices: int, seen: JSON, recipe: Recipe | None) -> Check:
    """DAPT_RANKS against devices, cores and the global batch."""
    ranks, cores = settings.ranks, len(os.sched_getaffinity(0))
    if devices and ranks > devices:
        do = f"DAPT_RANKS={devices}, or unset it: the GPUs are its default"
        return Check("ranks", "fails", f"DAPT_RANKS={ranks}, {devices} GPU(s)", "a GPU a rank", do)
    if devices > 1 and not seen["nccl"]:
        return Check("ranks", "fails", "this torch has no nccl", "nccl between GPUs", "install another build")
    if recipe is not None:
        try:
            divide_batch(recipe.training.global_batch_sequences, ranks, recipe.training.micro_batch)
        except RecipeError as err:
            return Check("ranks", "fails", str(err), "a batch that divides", "change one of them")
    if not devices and ranks > cores:
        return Check(
            "ranks", "warning", f"{ranks} on {cores} core(s)", "a core a rank", f"DAPT_RANKS={cores}"
        )
    return Check("ranks", "ok", f"{ranks} training process(es)")


def judge_training_memory(plan: JSON, seen: JSON, ranks: int) -> Iterator[Check]:
    """The plan's estimate of a rank's memory against what is free where it trains."""
    need = plan["auto"][-1] if "auto" in plan else plan  # the leanest of what it may come to
    name, told = "training memory", f"about {gigabytes(need['device_bytes'])} a rank (an estimate)"
    do = "raise the ranks under zero_stage = 3, set training.gradient_checkpointing, training.offload"
    if "error" in seen:
        yield Check(name, "warning", f"{told}; torch tells no device", "a device", "see torch")
        return
    host = available_memory()
    if seen["devices"]:
        least = min(device["free_bytes"] for device in seen["devices"][:ranks])
        places = [
            ("the least free GPU", least, need["device_bytes"]),
            ("the machine", host, need["host_bytes"] * ranks),
        ]
    else:
        places = [("the machine", host, (need["device_bytes"] + need["host_bytes"]) * ranks)]
    for place, free, needed in places:
        if needed > free:
            found = f"{told}: {gigabytes(needed)} of {place}, which has {gigabytes(free)} free"
            yield Check(name, "fails", found, "room for it", do)
            return
    free = places[0][1]
    yield Check(name, "ok", f"{told}; {places[0][0]} has {gigabytes(free)} free")


def memory_and_cores(settings: Settings) -> Iterator[Check]:
    """RAM and cores against the workers, shared memory against the ranks, the limit of open files."""
    free, cores, workers = available_memory(), len(os.sched_getaffinity(0)), settings.workers
    needed = PROCESS_BYTES + workers * WORKER_BYTES
    told = f"{gigabytes(free)} free, about {gigabytes(needed)} for {workers} worker(s)"
    if needed > free:
        few = max(1, (free - PROCESS_BYTES) // WORKER_BYTES)
        yield Check("memory", "fails", told, "room for the workers", f"DAPT_WORKERS={few}, or free some")
    else:
        yield Check("memory", "ok", told)
    if workers > 2 * cores:
        told = f"DAPT_WORKERS={workers} on {cores} core(s)"
        yield Check("cores", "warning", told, "about a worker a core", f"DAPT_WORKERS={cores}")
    else:
        yield Check("cores", "ok", f"{cores} for {workers} worker(s)")
    yield from _shared_memory(settings)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < OPEN_FILES:
        do = f"ulimit -n {OPEN_FILES if hard < 0 or hard >= OPEN_FILES else f'{hard} (its hard limit)'}"
        yield Check("open files", "warning", f"{soft} at once", f"at least {OPEN_FILES}", do)
    else:
        yield Check("open files", "ok", f"{soft} at once")


def _shared_memory(settings: Settings) -> Iterator[Check]:
    place = Path("/dev/shm")
    size = shutil.disk_usage(place).total if place.is_dir() else 0
    if settings.ranks > 1 and settings.has_gpu and size < SHM_BYTES:
        yield Check(
            "shared memory",
            "warning",
            f"/dev/shm holds {gigabytes(size)}",
            f"{gigabytes(SHM_BYTES)} for nccl between {settings.ranks} ranks",
            "docker run --shm-size=1g, or an emptyDir of medium Memory on /dev/shm in Kubernetes",
        )
    else:
        yield Check("shared memory", "ok", f"/dev/shm holds {gigabytes(size)}")


def kernel_cache() -> Iterator[Check]:
    """Where compiled kernels are kept: without a place for them no kernel can be compiled at all."""
    place, beside = Path(numba.config.CACHE_DIR), Path(tasks.text.kernel.__file__).parent
    if (why := _refusal(place)) is None:
        yield Check("kernel cache", "ok", str(place))
        return
    do = "set NUMBA_CACHE_DIR, or XDG_CACHE_HOME, to a folder that can be written"
    if _refusal(beside) is None:
        told = f"{place} cannot be written ({why}); kernels are kept beside the code, in {beside}"
        yield Check("kernel cache", "warning", told, "a folder of their own", do)
        return
    told = f"neither {place} ({why}) nor {beside} can be written: no kernel can be compiled"
    yield Check("kernel cache", "fails", told, "a folder that can be written", do)


def _refusal(place: Path) -> OSError | None:
    """Why a folder, or the first above it that there is, cannot be written; None where it can."""
    there = next(path for path in (place, *place.parents) if path.exists())
    try:
        with tempfile.TemporaryFile(dir=there):
            return None
    except OSError as err:
        return err


def gigabytes(num_bytes: float) -> str:
    """Bytes as people read them."""
    return f"{num_bytes / 1e9:,.1f} GB" if num_bytes >= 1e8 else f"{num_bytes / 1e6:,.1f} MB"
