"""`dapt doctor` on Prefect: the server of PREFECT_API_URL, its pools and workers, the recipe's deployments.

Without a server of one's own there is nothing to fail: a run starts one. The server is asked once by hand
before Prefect's client is, which would try again for minutes.
"""

from collections import Counter
from collections.abc import Iterator

import httpx
import prefect
from packaging.version import InvalidVersion, Version
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.objects import WorkerStatus, WorkPool
from prefect.client.schemas.responses import DeploymentResponse
from prefect.exceptions import ObjectNotFound, PrefectHTTPStatusError
from prefect.settings import PREFECT_API_URL, PREFECT_CLIENT_MAX_RETRIES, temporary_settings

from flows.doctor_check import Check
from flows.recipe import Recipe
from tasks.settings import Settings

ANSWER_S = 5.0
POOLS = ("cpu", "gpu")
FLOWS = ("adapt", "train-model", "evaluate-model")
ON_POOL = ("train-model", "evaluate-model")
"""What DAPT_POOL sends away from the run."""
AUTOMATIONS = "dapt: "
"""How the names of dapt's automations begin."""


def server(settings: Settings, recipe: Recipe | None) -> Iterator[Check]:
    """The server and, where it answers, everything that runs on it need."""
    url = PREFECT_API_URL.value()
    if not url:
        if settings.pool is not None:
            yield Check(
                "prefect",
                "fails",
                f"DAPT_POOL={settings.pool}, and no server that could hold that pool",
                "PREFECT_API_URL",
                "set PREFECT_API_URL, or unset DAPT_POOL to work in place",
            )
        else:
            yield Check("prefect", "ok", "no PREFECT_API_URL: a run starts a server of its own")
        return
    try:
        httpx.get(f"{url}/health", timeout=ANSWER_S).raise_for_status()
    except (httpx.HTTPError, httpx.InvalidURL) as err:
        told = f"{url} does not answer ({str(err) or type(err).__name__})"
        do = "start it (`prefect server start`), or unset PREFECT_API_URL, here and in Prefect's profile"
        yield Check("prefect", "fails", told, f"an answer within {ANSWER_S:g} s", do)
        return
    with (
        temporary_settings({PREFECT_CLIENT_MAX_RETRIES: 0}),
        get_client(sync_client=True, httpx_settings={"timeout": ANSWER_S}) as client,
    ):
        try:
            yield _version(url, str(client.api_version()))
            yield from _what_runs(client, settings, recipe)
        except PrefectHTTPStatusError as err:
            yield _refused(url, err)


def _refused(url: str, err: PrefectHTTPStatusError) -> Check:
    status = err.response.status_code
    if status in (401, 403):
        return Check(
            "prefect",
            "fails",
            f"{url} refuses this client ({status})",
            "the credentials of the server",
            "set PREFECT_API_AUTH_STRING (of Prefect Cloud: PREFECT_API_KEY) to those of the server",
        )
    return Check("prefect", "fails", f"{url} answers {status}", "an answer", "look at the server's log")


def _version(url: str, there: str) -> Check:
    here = prefect.__version__
    try:
        ours, theirs = Version(here), Version(there)
    except InvalidVersion:
        return Check("prefect", "warning", f"{url} has version {there!r}", "a version", "look at the server")
    told = f"{url} answers, version {there}, client {here}"
    if ours.major != theirs.major:
        return Check("prefect", "fails", told, f"a server of version {ours.major}", "move one of them")
    if theirs < ours:
        do = f"pip install 'prefect=={here}' for the server"
        return Check("prefect", "warning", told, "a server at least as new as its clients", do)
    return Check("prefect", "ok", told)


def _what_runs(client: SyncPrefectClient, settings: Settings, recipe: Recipe | None) -> Iterator[Check]:
    """Deployments first: a pool that one of them uses must work."""
    deployed: dict[str, DeploymentResponse] = {}
    if recipe is not None:
        for flow in FLOWS:
            try:
                deployed[flow] = client.read_deployment_by_name(f"{flow}/{recipe.name}")
            except ObjectNotFound:
                continue
        yield from _deployments(recipe.name, deployed, settings)
    users = Counter(one.work_pool_name for one in deployed.values() if one.work_pool_name)
    pools = {pool.name: pool for pool in client.read_work_pools()}
    needed = [*users, *([settings.pool] if settings.pool and settings.pool not in users else [])]
    named = [*needed, *(name for name in POOLS if name not in needed and name in pools)]
    for name in named:
        yield _pool(client, name, pools.get(name), needed=name in needed)
    if not named:
        yield Check("pools", "ok", f"none named {' or '.join(POOLS)}: runs work in place")
    if deployed:
        yield _automations(client)


def _deployments(recipe: str, deployed: dict[str, DeploymentResponse], settings: Settings) -> Iterator[Check]:
    make = "`dapt deploy RECIPE` makes them"
    missing = [f"{flow}/{recipe}" for flow in FLOWS if flow not in deployed]
    if settings.pool and any(flow not in deployed for flow in ON_POOL):
        told, what = f"missing: {', '.join(missing)}", f"those that DAPT_POOL={settings.pool} sends work to"
        yield Check("deployments", "fails", told, what, f"{make}; or unset DAPT_POOL to work in place")
    elif deployed and missing:
        told = f"missing: {', '.join(missing)}"
        yield Check("deployments", "warning", told, "all three, or none", make)
    elif not deployed:
        yield Check("deployments", "ok", f"none of {recipe}: `dapt run` works in place")
    else:
        yield Check("deployments", "ok", ", ".join(f"{flow}/{recipe}" for flow in FLOWS))
    for flow, one in deployed.items():
        if one.paused:
            do = f"prefect deployment schedule resume, or the switch in the UI, for {flow}/{recipe}"
            yield Check("deployments", "warning", f"{flow}/{recipe} is paused", "one that is not", do)


def _pool(client: SyncPrefectClient, name: str, pool: WorkPool | None, *, needed: bool) -> Check:
    """A pool that is needed and does nothing fails; one that only stands there is a warning."""
    check = f"pool {name}"
    if pool is None:
        return Check(check, "fails", "there is none on the server", "one", "`dapt deploy RECIPE` makes it")
    bad = "fails" if needed else "warning"
    if pool.is_paused:
        return _bad(check, bad, "it is paused", "one that is not", f"prefect work-pool resume {name}")
    if pool.concurrency_limit == 0:
        do = f"prefect work-pool set-concurrency-limit {name} 1 (the number of GPUs)"
        return _bad(check, bad, "its concurrency limit is 0", "at least 1", do)
    if pool.is_push_pool or pool.is_managed_pool:
        return Check(check, "ok", f"of type {pool.type}, which needs no worker")
    workers = client.read_workers_for_work_pool(name)
    online = [worker for worker in workers if worker.status == WorkerStatus.ONLINE]
    if not online:
        beats = [worker.last_heartbeat_time for worker in workers if worker.last_heartbeat_time]
        last = f"; the last one was heard at {max(beats):%Y-%m-%d %H:%M} UTC" if beats else ""
        told = f"no worker is on line{last}: what is sent there waits"
        return _bad(check, bad, told, "one", f"prefect worker start --pool {name}")
    idle = [
        queue.name
        for queue in client.read_work_queues(work_pool_name=name)
        if queue.is_paused or queue.concurrency_limit == 0
    ]
    if idle:
        told, do = f"queue(s) {', '.join(idle)} paused, or limited to 0", "prefect work-queue resume QUEUE"
        return Check(check, "warning", told, "queues that give out work", f"{do} --pool {name}")
    limit = f", {pool.concurrency_limit} run(s) at once" if pool.concurrency_limit else ""
    return Check(check, "ok", f"{len(online)} worker(s) on line{limit}")


def _bad(check: str, state: str, found: str, expected: str, do: str) -> Check:
    return Check(check, "fails" if state == "fails" else "warning", found, expected, do)


def _automations(client: SyncPrefectClient) -> Check:
    """Those of `dapt deploy`: without them a run whose machine dies is never noticed."""
    ours = [one for one in client.read_automations() if one.name.startswith(AUTOMATIONS)]
    off = sorted(one.name for one in ours if not one.enabled)
    if not ours:
        told, expected = "none of dapt's", "those that notice and revive dead runs, and see a changed budget"
        return Check("automations", "warning", told, expected, "`dapt deploy RECIPE` makes them")
    if off:
        told, do = f"switched off: {', '.join(off)}", "prefect automation resume NAME"
        return Check("automations", "warning", told, "all of them on", do)
    return Check("automations", "ok", ", ".join(sorted(one.name for one in ours)))
