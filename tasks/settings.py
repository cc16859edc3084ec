"""Where and how to compute (environment DAPT_*): never part of an identity."""

import os
from pathlib import Path

from pydantic import Field, ValidationInfo, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from tasks.store.masking import credential_in
from tasks.store.paths import DEFAULT_ROOT


def visible_gpus() -> list[str]:
    """NVIDIA devices of this machine, without importing torch; CUDA_VISIBLE_DEVICES counts."""
    chosen = os.environ.get("CUDA_VISIBLE_DEVICES")
    if chosen is not None:
        return [device.strip() for device in chosen.split(",") if device.strip() not in ("", "-1")]
    return [str(number) for number in range(len(list(Path("/dev").glob("nvidia[0-9]*"))))]


MAX_WORKERS = 256
"""Threads a flow may use; how many it does is `workers`."""


class Settings(BaseSettings):
    """The machine's side of a run."""

    model_config = SettingsConfigDict(env_prefix="DAPT_", frozen=True, use_attribute_docstrings=True)

    store: str = DEFAULT_ROOT
    """A folder or any fsspec URL."""

    workers: int = Field(default_factory=lambda: os.cpu_count() or 1, ge=1, le=MAX_WORKERS)
    """Data shards computed at once."""

    ranks: int = Field(default_factory=lambda: len(visible_gpus()) or 1, ge=1)
    """Training processes; the GPUs of this machine, else one."""

    nodes: int = Field(1, ge=1)
    """Machines that train together, each with so many ranks."""

    rendezvous: str = Field("", pattern=r"^([\w.\-\[\]:]+:\d+)?$", validate_default=True)
    """HOST:PORT on the leading machine where more than one meet."""

    task_runner: str = Field("threads", pattern=r"^(threads|(dask|ray):\S+)$")
    """Where data shards run: `threads` of this process, `dask:tcp://HOST:8786` or `ray:ray://HOST:10001`."""

    @field_validator("rendezvous")
    @classmethod
    def _somewhere_to_meet(cls, given: str, info: ValidationInfo) -> str:
        if info.data.get("nodes", 1) > 1 and not given:
            raise ValueError(f"{info.data['nodes']} nodes (DAPT_NODES) need a HOST:PORT to meet at")
        return given

    @property
    def all_ranks(self) -> int:
        """Training processes on all nodes."""
        return self.nodes * self.ranks

    @property
    def has_gpu(self) -> bool:
        """Whether this machine has a GPU that may be used."""
        return bool(visible_gpus())

    pool: str | None = None
    """The Prefect work pool that trainings and evaluations are sent to; in place when not set."""

    benchmarks: str | None = None
    """A local folder of benchmarks' data sets, laid out as on the Hub (`allenai/ai2_arc/...`); what it lacks
    comes from the Hub, or from HF_ENDPOINT."""

    scratch: str | None = None
    """A local folder for what is made before it is sent to a remote store; the system's own when not set."""

    @field_validator("store")
    @classmethod
    def _no_credential(cls, store: str) -> str:
        if found := credential_in(store):
            raise ValueError(
                f"the URL carries {found}, which would stand in every manifest and log; leave it out and set "
                "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, in the environment or as Secret blocks"
            )
        return store
