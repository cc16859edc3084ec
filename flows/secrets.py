"""Secrets of a run: the environment's, else those of the Prefect server's Secret blocks; written nowhere."""

import logging
import os
from typing import Any

import httpx
from prefect.client.orchestration import get_client
from prefect.context import FlowRunContext
from prefect.exceptions import PrefectException

from tasks.store.masking import SECRETS, mask_logs

logger = logging.getLogger(__name__)


def block_name(variable: str) -> str:
    """The Secret block that stands for a variable: `hf-token` for HF_TOKEN."""
    return variable.lower().replace("_", "-")


def provide_secrets() -> None:
    """Set what this process' environment lacks of `SECRETS` from the Secret blocks of those names.

    For the start of a flow, before it reads a source or the store: its libraries and subprocesses find the
    secrets where they look for them. One question to the server, whatever there is; outside a flow run none.
    From here on every log record of this process is masked.
    """
    mask_logs()
    missing = {block_name(name): name for name in SECRETS if not os.environ.get(name)}
    if not missing or FlowRunContext.get() is None:
        return
    try:
        found = _blocks(list(missing))
    except (httpx.HTTPError, PrefectException) as err:
        logger.warning("the Secret blocks of the Prefect server cannot be read: %s", err)
        return
    for block in found:
        value, variable = block["data"].get("value"), missing[block["name"]]
        if isinstance(value, str) and value:
            os.environ[variable] = value
            logger.info("%s is taken from the Secret block %s", variable, block["name"])


def _blocks(names: list[str]) -> list[dict[str, Any]]:
    """The Secret blocks that have one of these names, with their values."""
    asked = {
        "block_documents": {"name": {"any_": names}},
        "block_types": {"slug": {"any_": ["secret"]}},
        "include_secrets": True,
    }
    with get_client(sync_client=True) as client:
        response = client.request("POST", "/block_documents/filter", json=asked)
    blocks: list[dict[str, Any]] = response.json()
    return blocks
