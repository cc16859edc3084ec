"""`python -m tasks.training.join [--once]`: train along with a leading machine, again and again.

Waits at DAPT_RENDEZVOUS until the leading machine's launcher answers, reads in the store (DAPT_STORE) what it
trains, and runs as many ranks beside it. They end with it: when it is done, fails or dies. What goes wrong is
told, then it waits for the next. Its files lie in DAPT_SCRATCH, of which each machine has its own.
"""

import argparse
import logging
import os
import shutil
import sys
import time

from tasks.runtime.launch import launch
from tasks.runtime.rendezvous import Rendezvous, is_open
from tasks.settings import Settings
from tasks.store.errors import DaptError, RecipeError, StoreDamaged
from tasks.store.paths import Store
from tasks.training.afar import fetch_newest
from tasks.training.checkpoint import Checkpoint
from tasks.training.extension import extended
from tasks.training.nodes import Invitation, job_for, read_invitation
from tasks.training.run import checkpoints_of, scratch_root, work_root
from tasks.training.zero import environment

logger = logging.getLogger(__name__)

_LOOK_S = 1.0


def join(settings: Settings, *, once: bool) -> None:
    """Come to every meeting, or to one.

    Raises:
        RecipeError: there is no place to wait at.
        DaptError: with `once`: the training failed.
    """
    if not settings.rendezvous:
        raise RecipeError(
            "DAPT_RENDEZVOUS is not set; set it to the HOST:PORT that the leading machine has, and "
            "DAPT_STORE to the same store"
        )
    store, seen = Store(settings.store), ""
    logger.info("waits at %s", settings.rendezvous)
    while True:
        invitation = read_invitation(store, settings.rendezvous) if is_open(settings.rendezvous) else None
        if invitation is None or invitation.id == seen:
            time.sleep(_LOOK_S)
            continue
        seen = invitation.id
        try:
            train_along(store, invitation, settings.rendezvous)
        except DaptError as err:
            if once:
                raise
            logger.error("%s", err)
        if once:
            return


def train_along(store: Store, invitation: Invitation, endpoint: str) -> None:
    """Run this machine's ranks of one training to their end.

    Raises:
        DaptError: they failed, or what they read cannot be had.
    """
    node, told = invitation.node, invitation.how
    work = scratch_root() / "joined" / node.fingerprint
    work.mkdir(parents=True, exist_ok=True)
    job = job_for(store, node, told, work, _checkpoint(store, invitation), leads=False)
    nodes = int(told["nodes"])
    ranks = int(told["ranks"]) // nodes
    launch(
        "tasks.training",
        job.model_dump(mode="json"),
        folder=work,
        processes=ranks,
        rendezvous=Rendezvous(endpoint, nodes, invitation.id, leads=False),
        env=environment(ranks, cores=len(os.sched_getaffinity(0))),
    )
    logger.info("%s is trained", store.address(node.path))
    shutil.rmtree(work, ignore_errors=True)


def _checkpoint(store: Store, invitation: Invitation) -> Checkpoint | None:
    """The checkpoint that the leading machine goes on from: in the shared folder, else fetched."""
    if invitation.step == 0:
        return None
    fingerprint = invitation.node.fingerprint
    if store.local is not None:
        folder = work_root(store) / fingerprint / f"step-{invitation.step}"
        if not folder.exists():  # it begins with what a smaller milestone left
            return extended(store, invitation.node, folder.parent, invitation.step)
        return Checkpoint.at(folder)
    work = scratch_root() / "joined" / fingerprint
    found = fetch_newest(store, checkpoints_of(fingerprint), work)
    if found is None or found.step != invitation.step:
        raise StoreDamaged(
            store.address(f"{checkpoints_of(fingerprint)}/step-{invitation.step}"), "it cannot be fetched"
        )
    return found


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[1])
    parser.add_argument("--once", action="store_true", help="end with the first training")
    try:
        join(Settings(), once=parser.parse_args().once)
    except DaptError as err:
        sys.exit(f"error: {err}")
