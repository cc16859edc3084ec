"""Work for the GPU pool: a deployment's flow run for each node, submitted once whoever asks.

The key of a run is the node's fingerprint on its store, so a second parent, or the same one after a death,
meets the run that is there: it waits for one at work, and schedules one that ended without its node again,
with the parameters of now; only one that was cancelled is followed by a new one. What counts is the store: a
run is done when its node stands. A run whose process died is revived a few times; a server that is away is
waited for. A pool that does nothing is told at once.

Parents poll: it outlives restarts of the server, and costs a small request every few seconds.
"""

import datetime
import hashlib
import logging
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import cast
from uuid import UUID

import httpx
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId, FlowRunFilterIdempotencyKey
from prefect.client.schemas.objects import FlowRun, State, WorkerStatus
from prefect.client.schemas.sorting import FlowRunSort
from prefect.deployments import run_deployment
from prefect.exceptions import ObjectNotFound, PrefectException
from prefect.settings import PREFECT_API_URL, PREFECT_UI_URL
from prefect.states import Scheduled

from flows.server import remember
from tasks.store.errors import DaptError
from tasks.store.failure import read_failure
from tasks.store.json import JSON
from tasks.store.manifest import stands
from tasks.store.node import Node
from tasks.store.paths import Store

logger = logging.getLogger(__name__)

_POLL_S = 2.0
_TELL_EVERY_S = 300.0
_AWAY_S = 600.0
"""How long a server may be away when there is something to submit; what is submitted is awaited for ever."""
SETTLED = datetime.timedelta(seconds=45)
"""How long a crash is left alone: prefect 3.8's workers report one twice, up to 13 s apart on a busy machine,
and the second report would end the run that was scheduled after the first."""
_MOST_RUNS = 100
"""Of one node: a new one is made when the last was cancelled."""
_REVIVALS = 3
"""Times that a run is scheduled again whose process died, or that ended without its node."""


@dataclass(frozen=True, slots=True)
class Order:
    """A node to be made by a run on a pool."""

    deployment: str
    """`train-model/tiny`."""
    name: str
    """How people call the work, and its run: `train tiny 400M`."""
    parameters: JSON
    node: Node


@dataclass(slots=True)
class _Run:
    """An order that was given."""

    order: Order
    id: UUID
    revived: int = 0


def run_on_pool(pool: str, store: Store, orders: list[Order]) -> Iterator[tuple[Order, DaptError | None]]:
    """Have nodes made by runs on a pool; several at once, as many as it lets.

    Args:
        pool: the work pool of the deployments.
        store: where the nodes are to stand; the pool's workers use it too.
        orders: what is to be made.

    Yields:
        Each order when it has ended, with what it failed of, None when its node stands.

    Raises:
        DaptError: a deployment is missing.
    """
    runs = [_Run(order, _patiently(store, order)) for order in orders]
    told = 0.0
    while runs:
        if time.monotonic() - told > _TELL_EVERY_S or not told:
            told = time.monotonic()
            idle = why_idle(pool)
            if idle is not None:
                logger.warning("%s; %s waits", idle, ", ".join(run.order.name for run in runs))
        ended = _looked_at(store, runs)
        for run, failure in ended:
            runs.remove(run)
            yield run.order, failure
        if runs and not ended:
            time.sleep(_POLL_S)


def why_idle(pool: str) -> str | None:
    """Why a pool does nothing now, in words with what to do; None when a worker is on line."""
    if not PREFECT_API_URL.value():
        return f"the pool {pool!r} is on no server: set PREFECT_API_URL to its server's, or unset DAPT_POOL"
    try:
        with get_client(sync_client=True) as client:
            found = client.read_work_pool(pool)
            workers = client.read_workers_for_work_pool(pool)
    except ObjectNotFound:
        return f"there is no work pool {pool!r} on the server; `dapt deploy RECIPE` makes it"
    except (httpx.HTTPError, PrefectException) as err:
        return f"the Prefect server does not tell of pool {pool!r} ({err})"
    if found.is_paused:
        return f"the work pool {pool!r} is paused; go on with: prefect work-pool resume {pool}"
    if not any(worker.status == WorkerStatus.ONLINE for worker in workers):
        return f"no worker of the pool {pool!r} is on line; start one: prefect worker start --pool {pool}"
    return None


def _patiently(store: Store, order: Order) -> UUID:
    """`_submitted`, by a server that may be coming back just now."""
    deadline = time.monotonic() + _AWAY_S
    while True:
        try:
            return _submitted(store, order)
        except httpx.TransportError as err:
            if time.monotonic() > deadline:
                raise
            logger.warning("the Prefect server does not answer, %s is submitted later: %s", order.name, err)
            time.sleep(_POLL_S)


def _submitted(store: Store, order: Order) -> UUID:
    """The run of an order: the one that is there, scheduled again where it had ended; else a new one."""
    key = f"{order.node.fingerprint}-{hashlib.sha256(store.root.encode()).hexdigest()[:8]}"
    keys = [key, *(f"{key}-{number}" for number in range(1, _MOST_RUNS))]
    same = FlowRunFilter(idempotency_key=FlowRunFilterIdempotencyKey(any_=keys))
    with get_client(sync_client=True) as client:
        there = client.read_flow_runs(flow_run_filter=same, sort=FlowRunSort.EXPECTED_START_TIME_DESC)
        # the server cancels whatever was called by a run that was cancelled, also when it is scheduled again
        if there and there[0].state is not None and not there[0].state.is_cancelled():
            run = there[0]
            if run.state is not None and run.state.is_final():
                _schedule(client, run, order, "its node does not stand")
            logger.info("%s is at work already: %s", order.name, _address(run))
        else:
            run = _submit(order, keys[min(len(there), _MOST_RUNS - 1)])
            logger.info("%s is submitted: %s", order.name, _address(run))
    remember(run.id)
    return run.id


def _submit(order: Order, key: str) -> FlowRun:
    try:
        run = run_deployment(
            order.deployment,
            parameters=order.parameters,
            flow_run_name=order.name,
            idempotency_key=key,
            timeout=0,
        )
    except ObjectNotFound as err:
        raise DaptError(
            f"there is no deployment {order.deployment} on the Prefect server; `dapt deploy RECIPE` "
            "makes it. To work without a pool, unset DAPT_POOL"
        ) from err
    return cast(FlowRun, run)  # a coroutine only for those who call it from one


def _schedule(client: SyncPrefectClient, run: FlowRun, order: Order, why: str) -> None:
    client.update_flow_run(run.id, parameters={**run.parameters, **order.parameters})
    client.set_flow_run_state(run.id, Scheduled(message=f"again: {why}"), force=True)


def _looked_at(store: Store, runs: list[_Run]) -> list[tuple[_Run, DaptError | None]]:
    """The runs that are done with, and what they failed of."""
    try:
        with get_client(sync_client=True) as client:
            wanted = FlowRunFilter(id=FlowRunFilterId(any_=[run.id for run in runs]))
            found = {run.id: run for run in client.read_flow_runs(flow_run_filter=wanted)}
            ended = [(run, _ended(client, store, run, found.get(run.id))) for run in runs]
    except (httpx.HTTPError, PrefectException) as err:
        logger.warning("the Prefect server does not answer, %d runs are waited for: %s", len(runs), err)
        return [(run, None) for run in runs if stands(store, run.order.node.path)]
    return [(run, failure) for run, (is_done, failure) in ended if is_done]


def _ended(
    client: SyncPrefectClient, store: Store, run: _Run, found: FlowRun | None
) -> tuple[bool, DaptError | None]:
    """Whether a run is done with, and what it failed of; one that died is scheduled again."""
    if found is None:
        return True, DaptError(f"{run.order.name}: its run {run.id} was deleted; run again")
    state = found.state
    if state is None or not state.is_final():
        return False, None
    if stands(store, run.order.node.path):
        return True, None
    if state.is_crashed() and datetime.datetime.now(datetime.UTC) - state.timestamp < SETTLED:
        return False, None
    if (state.is_crashed() or state.is_completed()) and run.revived < _REVIVALS:
        run.revived += 1
        why = "its process died" if state.is_crashed() else "its node does not stand"
        logger.warning("%s is scheduled again, %s: %s", run.order.name, why, _address(found))
        _schedule(client, found, run.order, why)
        return False, None
    return True, _failure(store, run.order, found, state)


def _failure(store: Store, order: Order, run: FlowRun, state: State[object]) -> DaptError:
    recorded = read_failure(store, order.node)
    if state.is_completed():
        why = (
            f"its run completed, yet the node does not stand in {store.root}; do the workers see this store? "
            "`dapt deploy` writes DAPT_STORE into the deployments"
        )
    elif recorded is not None and state.is_failed():
        why = recorded["error"]
    else:
        why = f"{state.name}: {state.message or 'no reason was told'}"
    failure = DaptError(f"{order.name}: {why} (run: {_address(run)})")
    failure.exit_code = int(recorded.get("exit_code", 1)) if recorded is not None else 1
    return failure


def _address(run: FlowRun) -> str:
    """Where people see a run."""
    ui = PREFECT_UI_URL.value()
    return f"{ui}/runs/flow-run/{run.id}" if ui else f"flow run {run.id}"
