"""What torch and DeepSpeed see of this machine, as one JSON line: `python -m tasks.training.devices`.

A process of its own, because torch is imported nowhere else: who asks reads the line. Looking at a device's
free memory makes a context on it for the moment, a few hundred MB that are given back when this ends.
"""

import importlib
import json
import sys
import warnings

import torch
import torch.distributed

from tasks.store.json import JSON


def look() -> JSON:
    """What torch was built for, what it sees, and why it sees nothing where it should."""
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        available = torch.cuda.is_available()
    return {
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "available": available,
        "why_not": "" if available else " ".join(str(one.message) for one in said),
        "nccl": available and torch.distributed.is_nccl_available(),
        "gloo": torch.distributed.is_gloo_available(),
        "deepspeed": _deepspeed(),
        "devices": [_device(number) for number in range(torch.cuda.device_count())] if available else [],
    }


def _deepspeed() -> JSON:
    try:
        return {"version": importlib.import_module("deepspeed").__version__, "error": ""}
    except Exception as err:  # noqa: BLE001 - whatever its import breaks of is the answer
        return {"version": "", "error": f"{type(err).__name__}: {err}"}


def _device(number: int) -> JSON:
    free, total = torch.cuda.mem_get_info(number)
    with torch.cuda.device(number):
        bf16 = torch.cuda.is_bf16_supported(including_emulation=False)
    return {
        "name": torch.cuda.get_device_name(number),
        "free_bytes": free,
        "total_bytes": total,
        "bf16": bf16,
    }


if __name__ == "__main__":
    sys.stdout.write(json.dumps(look()) + "\n")
