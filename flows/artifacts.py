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

from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.actions import ArtifactCreate, ArtifactUpdate
from prefect.context import FlowRunContext
from prefect.settings import PREFECT_CLIENT_MAX_RETRIES, temporary_settings

from tasks.store.config import JSON

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
    data: Callable[[], str | float] = lambda: ""
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

    def progress(self, name: str, *, done: float, total: float, description: str) -> None:
        """A bar: how much of a whole is done."""
        percent = round(100 * done / total, 1) if total else 100.0
        self._put("progress", name, lambda: percent, description)

    def table(self, name: str, rows: list[JSON], description: str) -> None:
        """A table: a row an object, all with the same keys."""
        text = json.dumps(rows)
        self._put("table", name, lambda: text, description)

    def image(self, name: str, draw: Callable[[], str], description: str) -> None:
        """A picture, drawn when it is sent: `draw` gives its address, which may be a `data:` one."""
        self._put("image", name, draw, description)

    def markdown(self, name: str, text: str, description: str) -> None:
        """A page of text."""
        self._put("markdown", name, lambda: text, description)

    def _put(self, kind: Kind, name: str, data: Callable[[], str | float], description: str) -> None:
        key = re.sub(r"[^a-z0-9]+", "-", f"{self.recipe}-{name}".lower()).strip("-")
        with self._lock:
            note = self._notes.setdefault(key, _Note(kind, time.monotonic()))
            note.data, note.description, note.changed = data, description, True

    def send_until_ended(self) -> None:
        """Send what is due, then in the end all that is new."""
        last = False
        while not last:
            last = self._ended.is_set()
            try:
                # tries again itself, and sooner than a client that waits twice as long each time
                with (
                    temporary_settings({PREFECT_CLIENT_MAX_RETRIES: 1}),
                    get_client(sync_client=True) as client,
                ):
                    while not self._ended.wait(_LOOK_S):
                        self._send(client, time.monotonic())
                    last = True
                    self._send(client, float("inf"))
            except Exception as err:  # noqa: BLE001 - whatever it is, no artifact is worth a run
                if not self._told:
                    logger.warning("the Prefect server did not take an artifact: %s", err)
                self._told = True
                self._ended.wait(EVERY_S)

    def _send(self, client: SyncPrefectClient, now: float) -> None:
        with self._lock:
            due = [(key, note) for key, note in self._notes.items() if note.due(now)]
        for key, note in due:
            with self._lock:
                note.changed = False
                draw, description = note.data, note.description
            try:
                data = draw()
                if note.id is None:
                    new = ArtifactCreate(
                        key=key, type=note.kind, data=data, description=description, flow_run_id=self.run
                    )
                    note.id = client.create_artifact(new).id
                else:
                    client.update_artifact(note.id, ArtifactUpdate(data=data, description=description))
            except BaseException:
                note.changed = True
                raise
            note.sent = time.monotonic()

    def end(self) -> None:
        """Nothing more comes."""
        self._ended.set()


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
