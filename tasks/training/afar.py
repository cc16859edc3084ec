"""Checkpoints on a store that is not this machine's disk, so that another machine can go on.

Training works on the local disk; a thread beside it sends each whole checkpoint to
`<store>/work/training/<fingerprint>/step-N/`, its manifest last, and keeps the last two there, and the one
that a larger milestone goes on from; weights that are kept go before the checkpoint behind them. When
checkpoints are made faster than they are sent, only the newest goes. The next attempt takes the newer of the
local and the sent one; what is fetched is checked like what was made here. The price is one upload of 12
bytes a parameter a checkpoint, beside the training and not in its way.
"""

import logging
import shutil
import threading
from collections.abc import Collection
from pathlib import Path
from types import TracebackType

from tasks.store.paths import Store, replace_durably
from tasks.training.checkpoint import (
    KEPT,
    MANIFEST,
    WEIGHTS_KEPT,
    Checkpoint,
    begin,
    newest,
    steps_of,
    weights_kept,
    whole_steps,
)

logger = logging.getLogger(__name__)

_LOOK_S = 1.0


def fetch_newest(
    store: Store, place: str, work: Path, *, keep: int = 0, kept: Collection[int] = ()
) -> Checkpoint | None:
    """The newest whole checkpoint, of this disk or of the store.

    Args:
        store: where a training of this or another machine sent its checkpoints.
        place: the training's folder in it.
        work: the training's folder on this disk; what is newer on the store is fetched into it.
        keep: a step whose checkpoint is wanted too, where the store has it.
        kept: steps whose weights are kept.
    """
    sent = {weights_kept(work, step).name: weights_kept(work, step) for step in kept}
    for name in store.names(f"{place}/{WEIGHTS_KEPT}"):
        if name in sent and not sent[name].exists():
            sent[name].parent.mkdir(parents=True, exist_ok=True)
            partial = sent[name].with_suffix(".part")
            store.fs.get_file(store.inside(f"{place}/{WEIGHTS_KEPT}/{name}"), str(partial))
            replace_durably(partial, sent[name])
    if keep and keep not in whole_steps(work) and keep in _sent_steps(store, place):
        _fetch(store, f"{place}/step-{keep}", work, keep)
    found = newest(work, kept)
    for step in _sent_steps(store, place):
        if found is not None and found.step >= step:
            break
        _fetch(store, f"{place}/step-{step}", work, step)
        found = newest(work, kept)
        if found is not None and found.step == step:
            logger.info("the checkpoint at step %d is fetched from %s", step, store.address(place))
    return found


def send(store: Store, place: str, checkpoint: Checkpoint) -> None:
    """Send a checkpoint, its manifest last; nothing where it stands already.

    Raises:
        FileNotFoundError: it was removed meanwhile, since newer ones were made.
    """
    target = f"{place}/{checkpoint.folder.name}"
    if store.size(f"{target}/{MANIFEST}") is not None:
        return
    names = [path.name for path in checkpoint.folder.iterdir() if path.name != MANIFEST]
    for name in [*sorted(names), MANIFEST]:
        store.fs.put_file(str(checkpoint.folder / name), store.inside(f"{target}/{name}"))


class Sending:
    """Send checkpoints while they are made; nothing where the store is this machine's disk."""

    def __init__(self, store: Store, place: str, work: Path, *, keep: int = 0) -> None:
        self._store, self._place, self._work, self._keep = store, place, work, keep
        self._sent = (
            [s for n, s in enumerate(_sent_steps(store, place)) if n == 0 or s == keep]
            if store.local is None
            else []
        )
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._keep_sending, daemon=True)

    def __enter__(self) -> "Sending":
        if self._store.local is None:
            self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        if self._store.local is not None or (kind is not None and not issubclass(kind, Exception)):
            return  # interrupted: nobody waits for an upload
        self._thread.join()
        if kind is not None:
            self._send_newest()

    def _keep_sending(self) -> None:
        while not self._ended.wait(_LOOK_S):
            self._send_newest()

    def _send_newest(self) -> None:
        steps = whole_steps(self._work)
        if self._keep in steps and self._keep not in self._sent:
            steps = [self._keep]
        step = max(steps, default=0)
        if step == 0 or step in self._sent:
            return
        try:
            self._send_weights()
            send(self._store, self._place, Checkpoint.at(self._work / f"step-{step}"))
            kept = [step, *self._sent]
            self._sent = [*kept[:KEPT], *(old for old in kept[KEPT:] if old == self._keep)]
            for old in set(_sent_steps(self._store, self._place)) - set(self._sent):
                self._store.remove(f"{self._place}/step-{old}")
        except FileNotFoundError:
            return  # newer ones pushed it out while it was sent; the next look takes one of those
        except Exception as err:  # noqa: BLE001 - whatever an upload fails of, the training goes on
            logger.warning("the checkpoint at step %d was not sent to %s: %s", step, self._store.root, err)

    def _send_weights(self) -> None:
        """Send weights that are kept and not there yet."""
        there = f"{self._place}/{WEIGHTS_KEPT}"
        known = self._store.names(there)
        for file in sorted((self._work / WEIGHTS_KEPT).glob("*.safetensors")):
            if file.name not in known:
                self._store.fs.put_file(str(file), self._store.inside(f"{there}/{file.name}"))


def _sent_steps(store: Store, place: str) -> list[int]:
    """Steps of which there is something on the store, the newest first."""
    return sorted(steps_of(store.names(place)), reverse=True)


def _fetch(store: Store, source: str, work: Path, step: int) -> None:
    writing = begin(work, step)
    for name in store.names(source):
        store.fs.get_file(store.inside(f"{source}/{name}"), str(writing / name))
    shutil.rmtree(work / f"step-{step}", ignore_errors=True)
    writing.rename(work / f"step-{step}")
