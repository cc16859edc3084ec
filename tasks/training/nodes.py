"""Several machines that train one model: the leading one invites, the others come.

The leading one (`dapt run` with DAPT_NODES and DAPT_RENDEZVOUS) writes what is to be trained into the store,
then starts its torchrun, which opens the port; whoever waits at the port (`tasks.training.join`) reads it
there. All they share is the store and the network: each has its own copies of base, tokenizer and checkpoint.
"""

import logging
import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from tasks.runtime.rendezvous import Rendezvous
from tasks.store.errors import JobError, ResourceError
from tasks.store.folders import local_folder
from tasks.store.json import JSON
from tasks.store.models import read_json
from tasks.store.node import Node
from tasks.store.paths import Store
from tasks.training.checkpoint import Checkpoint
from tasks.training.config import TrainingJob, config_of, references_of
from tasks.training.inputs import corpus_borders, replay_of, require_positions

logger = logging.getLogger(__name__)

JOIN = "python -m tasks.training.join"


class Invitation(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What the other machines are told."""

    id: str
    """Of the meeting."""
    node: Node
    how: JSON
    step: int
    """Of the checkpoint that all go on from; 0: from the base."""


def job_for(
    store: Store, node: Node, told: JSON, work: Path, checkpoint: Checkpoint | None, *, leads: bool
) -> TrainingJob:
    """What the training processes of one machine are told, with what they read on its disk.

    Raises:
        RecipeError: sequences are longer than the model knows.
        SourceError: the base is not what was planned.
        StoreDamaged: a corpus or the base does not stand.
    """
    config, seed = config_of(node, told)
    borders, sequence_length = corpus_borders(store, node.reads["corpora"])
    replayed = node.reads.get("replayed", [])
    base = local_folder(store, node.reads["base"], node.inputs["base"], weights=True, into=work / "base")
    require_positions(read_json(base / "config.json"), sequence_length)
    return TrainingJob(
        config=config,
        seed=seed,
        base=str(base),
        store=store.root,
        corpora=(node.reads["corpora"][-1], *replayed[-1:]),
        references=tuple(made.path for made in references_of(node)),
        borders=borders,
        replay=replay_of(store, node.config.get("replay_fraction", 0.0), replayed),
        micro_batch=config.micro_batch,
        checkpoint=str(checkpoint.folder) if checkpoint else None,
        leads=leads,
    )


@contextmanager
def meeting(
    store: Store, node: Node, told: JSON, checkpoint: Checkpoint | None, endpoint: str
) -> Iterator[Rendezvous | None]:
    """Invite the other machines for the time of a training; None where there are none.

    Raises:
        ResourceError: fewer came than are wanted.
        JobError: a machine failed or was lost.
    """
    nodes = int(told.get("nodes", 1))
    if nodes == 1:
        yield None
        return
    invitation = Invitation(
        id=f"{node.fingerprint[:16]}-{secrets.token_hex(4)}",
        node=node,
        how=told,
        step=checkpoint.step if checkpoint else 0,
    )
    store.write(invitation_path(endpoint), msgspec.json.encode(invitation))
    logger.info("waits at %s for %d more machines: `%s` on each", endpoint, nodes - 1, JOIN)
    try:
        yield Rendezvous(endpoint, nodes, invitation.id, leads=True)
    except JobError as err:
        if "RendezvousTimeoutError" in str(err):
            raise ResourceError(
                f"fewer than {nodes} machines (DAPT_NODES) came to {endpoint} within ten minutes; run "
                f"`{JOIN}` on each of the others, with the same DAPT_STORE and DAPT_RENDEZVOUS"
            ) from err
        raise JobError(
            f"the training on {nodes} machines broke off, on this one or on another; run again to go on from "
            f"the newest checkpoint. {err}"
        ) from err
    finally:
        store.remove(invitation_path(endpoint))


def read_invitation(store: Store, endpoint: str) -> Invitation | None:
    """What the leading machine trains now; None where nothing is told."""
    try:
        return msgspec.json.decode(store.read(invitation_path(endpoint)), type=Invitation)
    except (FileNotFoundError, msgspec.DecodeError):
        return None


def invitation_path(endpoint: str) -> str:
    """Where the invitations to a meeting place stand in the store."""
    return f"work/meetings/{re.sub(r'[^A-Za-z0-9.]', '-', endpoint)}.json"
