"""What `dapt doctor` says of a machine: judged from versions, torch's word and numbers, and of this one."""

import os
import resource
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numba
import pytest
from packaging.requirements import Requirement

from flows.doctor_check import Check
from flows.doctor_machine import (
    judge_devices,
    judge_training_memory,
    judge_versions,
    kernel_cache,
    memory_and_cores,
    probe_devices,
    versions,
)
from flows.recipe import Recipe
from tasks.runtime.memory import available_memory
from tasks.settings import Settings
from tests.flows.tiny_recipe import recipe

GB = 10**9
GPU = {"name": "H100", "free_bytes": 70 * GB, "total_bytes": 80 * GB, "bf16": True}
WORD: dict[str, Any] = {
    "torch": "2.13.0",
    "cuda": "12.9",
    "available": True,
    "why_not": "",
    "nccl": True,
    "gloo": True,
    "deepspeed": {"version": "0.19.8", "error": ""},
    "devices": [GPU, GPU],
}
NO_GPU = {**WORD, "torch": "2.13.0+cpu", "cuda": None, "available": False, "nccl": False, "devices": []}


def judged(seen: dict[str, Any], *, driver: int, ranks: int, of: Recipe | None = None) -> dict[str, Check]:
    settings = Settings(store="s", workers=1, ranks=ranks)
    return {check.check: check for check in judge_devices(seen, driver, settings, of, os.environ)}


@pytest.fixture
def gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")


def test_a_dependency_out_of_its_range_or_missing_fails_with_what_installs_it() -> None:
    wanted = [
        Requirement(text) for text in ("torch>=2.11", "numba>=0.68,<0.70", "rich", "ruff; extra == 'dev'")
    ]
    there = {"torch": "2.9.0", "rich": "15.0"}
    found = list(judge_versions(wanted, there.get))
    assert [(check.state, check.found, check.do) for check in found] == [
        ("fails", "torch 2.9.0", "pip install 'torch>=2.11'"),
        ("fails", "numba is not installed", "pip install 'numba<0.70,>=0.68'"),
    ]


def test_a_pair_known_to_be_bad_fails_though_each_is_in_its_range() -> None:
    wanted = [Requirement("fastapi"), Requirement("prefect>=3.8")]
    (bad,) = judge_versions(wanted, {"fastapi": "0.151.0", "prefect": "3.8.8"}.get)
    assert bad.state == "fails"
    assert "fastapi 0.151.0 beside prefect 3.8.8" in bad.found
    for fine in ({"fastapi": "0.150.0", "prefect": "3.8.8"}, {"fastapi": "0.151.0", "prefect": "3.9.0"}):
        assert [check.state for check in judge_versions(wanted, fine.get)] == ["ok"]


def test_the_versions_of_this_installation_are_well() -> None:
    assert {check.state for check in versions()} <= {"ok", "warning"}


@pytest.mark.usefixtures("gpus")
def test_gpus_are_told_with_their_free_memory() -> None:
    found = judged(WORD, driver=2, ranks=2)
    assert {check.state for check in found.values()} == {"ok"}
    assert found["gpu 1"].found == "H100, 70.0 GB of 80.0 GB free"
    assert "sees 2 of 2 GPU(s) (CUDA_VISIBLE_DEVICES='0,1')" in found["torch"].found


@pytest.mark.usefixtures("gpus")
def test_a_torch_for_the_cpu_beside_gpus_fails() -> None:
    found = judged(NO_GPU, driver=2, ranks=2)
    assert found["torch"].state == "fails"
    assert "built for the CPU, while the driver shows 2 GPU(s)" in found["torch"].found


@pytest.mark.usefixtures("gpus")
def test_a_driver_too_old_for_torch_fails_with_torch_s_own_words() -> None:
    old = {**NO_GPU, "cuda": "13.0", "why_not": "The NVIDIA driver on your system is too old (found 12020)."}
    found = judged(old, driver=2, ranks=2)
    assert found["torch"].state == "fails"
    assert "too old (found 12020)" in found["torch"].found


@pytest.mark.parametrize(("driver", "told"), [(0, "no GPU on this machine"), (2, "2 GPU(s) switched off")])
def test_no_gpu_is_a_warning_with_what_it_means(
    monkeypatch: pytest.MonkeyPatch, driver: int, told: str
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    found = judged(NO_GPU, driver=driver, ranks=1)
    assert found["torch"].state == "warning"
    assert told in found["torch"].found
    assert "on the CPU" in found["torch"].do


@pytest.mark.usefixtures("gpus")
def test_what_the_devices_cannot_do_fails() -> None:
    assert (
        judged(WORD, driver=2, ranks=3)["ranks"].do == "DAPT_RANKS=2, or unset it: the GPUs are its default"
    )
    assert judged({**WORD, "nccl": False}, driver=2, ranks=2)["ranks"].state == "fails"
    old = {**WORD, "devices": [{**GPU, "bf16": False}]}
    assert judged(old, driver=1, ranks=1, of=recipe())["gpu 0"].state == "fails"
    assert judged(old, driver=1, ranks=1, of=recipe(precision="fp32"))["gpu 0"].state == "ok"
    broken = {**WORD, "deepspeed": {"version": "", "error": "RuntimeError: no compiler"}}
    assert "RuntimeError: no compiler" in judged(broken, driver=2, ranks=2)["deepspeed"].found
    assert (
        "ImportError: libcudart"
        in judged({"error": "ImportError: libcudart"}, driver=2, ranks=2)["torch"].found
    )


def test_a_batch_that_does_not_divide_by_the_ranks_fails_with_those_that_do() -> None:
    found = judged(NO_GPU, driver=0, ranks=3, of=recipe())["ranks"]
    assert found.state == "fails"
    assert "does not divide by 3 ranks" in found.found


def test_a_training_too_large_for_its_device_fails_with_both_numbers() -> None:
    need = {"device_bytes": 75 * GB, "host_bytes": 0}
    (small,) = judge_training_memory(need, WORD, 2)
    assert small.state == "fails"
    assert "75.0 GB of the least free GPU, which has 70.0 GB free" in small.found
    assert [check.state for check in judge_training_memory({**need, "device_bytes": GB}, WORD, 2)] == ["ok"]
    (offloaded,) = judge_training_memory({"device_bytes": GB, "host_bytes": 10**15}, WORD, 2)
    assert "of the machine" in offloaded.found
    (on_cpu,) = judge_training_memory({"device_bytes": 10**15, "host_bytes": 0}, NO_GPU, 1)
    assert on_cpu.state == "fails"
    (unknown,) = judge_training_memory(need, {"error": "x"}, 1)
    assert unknown.state == "warning"


@pytest.fixture
def few_files() -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (512, hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.usefixtures("few_files")
def test_few_open_files_and_many_workers_are_warnings() -> None:
    found = {check.check: check for check in memory_and_cores(Settings(workers=256, ranks=1))}
    assert (found["open files"].state, found["open files"].found) == ("warning", "512 at once")
    assert found["cores"].state == ("warning" if len(os.sched_getaffinity(0)) < 128 else "ok")
    assert found["memory"].state == ("fails" if available_memory() < 26 * GB else "ok")


def test_what_is_free_is_no_more_than_the_machine_has() -> None:
    assert 0 < available_memory() <= os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def test_a_place_for_compiled_kernels_that_cannot_be_written_is_told(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(numba.config, "CACHE_DIR", str(tmp_path / "new" / "folder"))
    assert [check.state for check in kernel_cache()] == ["ok"]
    assert not (tmp_path / "new").exists()
    monkeypatch.setattr(numba.config, "CACHE_DIR", "/proc/kernels")
    (found,) = kernel_cache()
    assert (found.state, "kept beside the code" in found.found) == ("warning", True)


@pytest.mark.slow
def test_torch_and_deepspeed_are_seen_in_a_process_of_their_own() -> None:
    before = set(sys.modules)
    seen = probe_devices()
    assert seen["deepspeed"]["version"]
    assert seen["gloo"]
    assert not {"torch", "deepspeed"} & (sys.modules.keys() - before)
