"""Artifacts of a flow run: progress that moves, tables, images, text, as the Prefect UI shows them.

Whoever computes only takes notes; a thread of the flow run sends them, each artifact at most once in
`EVERY_S` and its last state always, so that a slow server slows nothing and one that is away costs the
artifact alone, told once. Long runs send less often: a training of a day a few thousand times.

Keys are `<recipe>-<what>`, the same in every run, so that an artifact's page is its history.
"""

import contextlib
import contextvars
import json
import logging
import re
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Literal
from uuid import UUID

import httpx
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.actions import ArtifactCreate, ArtifactUpdate
from prefect.context import FlowRunContext
from prefect.settings import PREFECT_CLIENT_MAX_RETRIES, temporary_settings

from tasks.store.json import JSON

logger = logging.getLogger(__name__)

Kind = Literal["progress", "table", "image", "markdown"]
EVERY_S = 3.0
SELDOM_S = 30.0
"""The longest that progress of a long run waits; a run of h hours waits 18 h seconds."""
_LOOK_S = 0.25
_LAST_S = 10.0
"""That a flow waits in its end for a server that does not answer."""

_IMPATIENT = {PREFECT_CLIENT_MAX_RETRIES: 1}
"""We try again ourselves, and sooner than a client that waits twice as long each time."""


@dataclass(slots=True)
class _Note:
    """One artifact: what it shows by now, and how far the server knows."""

    kind: Kind
    began: float
    data: str | float | Callable[[], str] = ""
    description: str = ""
    changed: bool = False
    sent: float = float("-inf")
    id: UUID | None = None

    def due(self, now: float) -> bool:
        """Whether to send it: rarer the longer it runs, a picture only when a tenth more is on it."""
        age = now - self.began
        often = max(EVERY_S, age / 10) if self.kind == "image" else max(EVERY_S, min(SELDOM_S, age / 200))
        return self.changed and now - self.sent >= often


@dataclass(slots=True)
class Artifacts:
    """The artifacts of one flow run."""

    recipe: str
    run: UUID | None
    _notes: dict[str, _Note] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _ended: threading.Event = field(default_factory=threading.Event)
    _told: bool = False
    _until: float = float("inf")

    def progress(self, name: str, *, done: float, total: float, description: str) -> None:
        """A bar: how much of a whole is done."""
        percent = round(100 * done / total, 1) if total else 100.0
        self._put("progress", name, percent, description)

    def table(self, name: str, rows: list[JSON], description: str) -> None:
        """A table: a row an object, all with the same keys."""
        self._put("table", name, json.dumps(rows), description)

    def image(self, name: str, draw: Callable[[], str], description: str) -> None:
        """A picture, drawn when it is sent: `draw` gives its address, which may be a `data:` one."""
        self._put("image", name, draw, description)

    def markdown(self, name: str, text: str, description: str) -> None:
        """A page of text."""
        self._put("markdown", name, text, description)

    def _put(self, kind: Kind, name: str, data: str | float | Callable[[], str], description: str) -> None:
        key = re.sub(r"[^a-z0-9]+", "-", f"{self.recipe}-{name}".lower()).strip("-")
        with self._lock:
            note = self._notes.setdefault(key, _Note(kind, time.monotonic()))
            if (note.data, note.description) != (data, description):
                note.data, note.description, note.changed = data, description, True

    def send_until_ended(self) -> None:
        """Send what is due, then in the end all that is new."""
        while True:
            try:
                with temporary_settings(_IMPATIENT), get_client(sync_client=True) as client:
                    while not self._ended.wait(_LOOK_S):
                        self._send(client, time.monotonic())
                    self._send(client, float("inf"))
                    return
            except Exception as err:  # noqa: BLE001 - whatever it is, no artifact is worth a run
                self._tell(err)
            if self._ended.wait(EVERY_S):
                if time.monotonic() > self._until:
                    return
                time.sleep(_LOOK_S)

    def _send(self, client: SyncPrefectClient, now: float) -> None:
        with self._lock:
            due = [(key, note) for key, note in self._notes.items() if note.due(now)]
        for key, note in due:
            with self._lock:
                note.changed = False
                data, description = note.data, note.description
            try:
                shown = data() if callable(data) else data
                if note.id is None:
                    new = ArtifactCreate(
                        key=key, type=note.kind, data=shown, description=description, flow_run_id=self.run
                    )
                    note.id = client.create_artifact(new).id
                else:
                    client.update_artifact(note.id, ArtifactUpdate(data=shown, description=description))
            except Exception as err:
                if _is_away(err):
                    note.changed = True
                    raise
                self._tell(err)  # one that is refused is not offered again
            note.sent = time.monotonic()

    def _tell(self, err: Exception) -> None:
        if not self._told:
            logger.warning("the Prefect server did not take an artifact: %s", err)
        self._told = True

    def end(self) -> None:
        """Nothing more comes; a server that is away is waited for a little."""
        self._until = time.monotonic() + _LAST_S
        self._ended.set()


def _is_away(err: Exception) -> bool:
    """Whether a server that fails so may answer later."""
    if isinstance(err, httpx.HTTPStatusError):
        return err.response.status_code >= 500
    return isinstance(err, httpx.TransportError)


@contextlib.contextmanager
def artifacts(recipe: str) -> Iterator[Artifacts]:
    """The artifacts of the flow run that this is called in; outside of one they are noted and go nowhere."""
    context = FlowRunContext.get()
    if context is None or context.flow_run is None:
        yield Artifacts(recipe, None)
        return
    made = Artifacts(recipe, context.flow_run.id)
    # in a copy of this context: it holds which server is meant
    sender = threading.Thread(
        target=contextvars.copy_context().run, args=[made.send_until_ended], daemon=True, name="artifacts"
    )
    sender.start()
    try:
        yield made
    finally:
        made.end()
        sender.join(_LAST_S)
