"""The Prefect side that all rooms share: how a node becomes a task.

The store decides, Prefect shows: a task asks the store whether its node stands, and makes it if not.
Prefect's own result cache is off. A record beside the manifest could only agree with it or lie; the flows
do not even submit what stands, so ten thousand hits cost nothing. A node found standing by a task (made
meanwhile by another run) shows as `Cached`.
"""

import logging
from collections.abc import Callable
from typing import Any, cast

from prefect import Task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State, TaskRun
from prefect.context import FlowRunContext
from prefect.logging.handlers import APILogHandler
from prefect.runtime import flow_run
from prefect.states import Completed
from prefect.task_runners import TaskRunner, ThreadPoolTaskRunner
from prefect.tasks import exponential_backoff

from tasks.settings import MAX_WORKERS, Settings
from tasks.store.errors import DaptError, TransientError
from tasks.store.json import JSON
from tasks.store.masking import mask_logs, masked
from tasks.store.node import Node
from tasks.store.paths import Store
from tasks.store.shard import NodeWriter, build_node

NodeTask = Task[..., JSON]

THREADS: TaskRunner[Any] = ThreadPoolTaskRunner[Any](max_workers=MAX_WORKERS)
"""Of every flow: its kernels release the GIL, and how many tasks run at once is what the flow submits."""


def node_task(
    stage: str, room: str, build: Callable[[NodeWriter], None], *, name: str = "", run_name: str = ""
) -> NodeTask:
    """A Prefect task that makes nodes of one kind.

    Called as `(store: str, node: JSON, shard: str, how: JSON)`, it returns the manifest as plain JSON. What
    may pass is retried, with backoff: faults of the network and of the disk. Anything else fails the same way
    again, so it fails at once.

    Args:
        stage: its name on screens and its tag.
        room: the package that computes it.
        build: what makes it.
        name: of the task where it differs from the stage.
        run_name: of its runs, `{shard}` in it, where they are not of shards.
    """

    def run(store: str, node: JSON, shard: str, how: JSON | None = None) -> JSON:
        _send_logs()
        try:
            manifest, made = build_node(
                Store(store),
                Node.from_json(node),
                build,
                room=room,
                shard=shard,
                how=how,
                scratch=Settings().scratch,
                run=str(flow_run.id or ""),
            )
        except Exception as err:
            told = str(err)
            if masked(told) == told:
                raise
            # Prefect keeps an exception's text as the state's
            raise DaptError(f"{type(err).__name__}: {told}") from None
        done = manifest.to_json()
        if made:
            return done
        # Prefect takes a returned state for the task's own, and its data for the result
        return cast(JSON, Completed(name="Cached", message="it stands in the store", data=done))

    return Task(
        run,
        name=name or stage,
        task_run_name=run_name or f"{stage} shard {{shard}}",
        tags=["dapt", f"stage:{stage}"],
        cache_policy=NO_CACHE,
        persist_result=False,
        retries=3,
        retry_delay_seconds=exponential_backoff(backoff_factor=5),
        retry_jitter_factor=0.5,
        retry_condition_fn=_is_transient,
    )


def _send_logs() -> None:
    """On a cluster's node, have its log lines reach the server: nobody else of us was there before."""
    run = FlowRunContext.get()
    logger = logging.getLogger("tasks")
    if run is None or not run.detached:
        return
    mask_logs()
    if not any(isinstance(handler, APILogHandler) for handler in logger.handlers):
        logger.addHandler(APILogHandler())
        logger.setLevel(logging.INFO)


def _is_transient(_task: NodeTask, _run: TaskRun, state: State[Any]) -> bool:
    """Whether another try can help."""
    return isinstance(state.result(raise_on_failure=False), TransientError | OSError)
