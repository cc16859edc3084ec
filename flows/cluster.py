"""Where data shards run: threads of this process, or the nodes of a Dask or Ray cluster.

A cluster's nodes have this package installed, reach the store, the sources and the Prefect server under the
names they have here, and bring settings (DAPT_SCRATCH) and credentials of their own. Tasks get plain JSON
and write to the store, so nothing large goes through the cluster. The runners are Prefect's own, from extras:
merely installed they add seconds to every start of Prefect, so they are imported when a cluster is named and
never before.
"""

import importlib
import ipaddress
import socket
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar, cast
from urllib.parse import urlsplit

from prefect import Flow, settings
from prefect.task_runners import TaskRunner

from tasks.store.errors import ResourceError

_RUNNERS = {"dask": ("prefect_dask", "DaskTaskRunner"), "ray": ("prefect_ray", "RayTaskRunner")}
_PORTS = {"dask": 8786, "ray": 10001}
_ANSWER_S = 10

P = ParamSpec("P")
R = TypeVar("R")


def on_runner(flow: Flow[P, R], chosen: str) -> Callable[P, R]:
    """A flow whose tasks run where DAPT_TASK_RUNNER says.

    Args:
        flow: whose tasks are submitted.
        chosen: `threads`, `dask:ADDRESS` or `ray:ADDRESS`.

    Raises:
        ResourceError: the extra is not installed, nobody answers at the address, or its nodes could not reach
            the Prefect server of this run; from the call: the connection to the cluster was lost.
    """
    if chosen == "threads":
        return cast(Callable[P, R], flow)
    moved = cast(Callable[P, R], flow.with_options(task_runner=_cluster(chosen)))

    def run(*arguments: P.args, **named: P.kwargs) -> R:
        try:
            return moved(*arguments, **named)
        except OSError as err:  # the client's: what a shard fails of is told as a DaptError
            told = (str(err).splitlines() or [""])[0]
            raise ResourceError(
                f"DAPT_TASK_RUNNER={chosen}: the connection failed ({type(err).__name__}: {told}); look at "
                "the cluster's own logs, and run again: what was made stands"
            ) from err

    return run


def _cluster(chosen: str) -> TaskRunner[Any]:
    kind, _, address = chosen.partition(":")
    module, name = _RUNNERS[kind]
    try:
        runner = getattr(importlib.import_module(module), name)
    except ImportError as err:
        raise ResourceError(
            f"DAPT_TASK_RUNNER={chosen} needs {module}, which is not installed ({err}); "
            f"pip install 'daptflow[{kind}]', here and on the cluster's nodes"
        ) from err
    host = _reached(chosen, address, _PORTS[kind])
    server = str(settings.PREFECT_API_URL.value() or "")
    if _is_loopback(urlsplit(server).hostname or "") and not _is_loopback(host):
        raise ResourceError(
            f"the nodes of {address} cannot reach the Prefect server of this run at {server}; start one that "
            "they reach (prefect server start --host 0.0.0.0), and set PREFECT_API_URL to its address"
        )
    made: TaskRunner[Any] = runner(address=address)
    return made


def _reached(chosen: str, address: str, port: int) -> str:
    """The host of an address that answers."""
    try:
        parts = urlsplit(address if "://" in address else f"//{address}")
        host, port = parts.hostname or "", parts.port or port
        socket.create_connection((host, port), timeout=_ANSWER_S).close()
    except (OSError, ValueError) as err:
        raise ResourceError(
            f"DAPT_TASK_RUNNER={chosen}: nobody answers there ({err}); start the cluster, or unset it to run "
            "on this machine alone"
        ) from err
    return host


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
