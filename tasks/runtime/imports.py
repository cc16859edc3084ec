"""Imports that take a second and more: put off until they are needed, or done with the least work.

Prefect takes a second to import and `datasets` three quarters of one: more than a whole plan, which needs
neither. Who needs one of them now and then says so at the top of the file, types and all:

    if TYPE_CHECKING:
        from tasks.download import hub
    else:
        hub = Late("tasks.download.hub")
"""

import gc
import importlib
from types import ModuleType
from typing import Any


class Late:
    """A module that is imported at the first use.

    Args:
        name: of the module.
    """

    def __init__(self, name: str) -> None:
        self._name = name

    def __getattr__(self, attribute: str) -> Any:
        return getattr(importlib.import_module(self._name), attribute)


def import_for_good(name: str) -> ModuleType:
    """Import a module whose libraries stay.

    Garbage collection is off meanwhile, and passes over what they made ever after: to look through it again
    and again takes a sixth of the time of importing a rank's libraries, a third of the command line's
    (`python -c "import tasks.training.rank"` and `dapt run --help`, with and without, 2026-11-27).

    Args:
        name: of the module.
    """
    gc.disable()
    try:
        return importlib.import_module(name)
    finally:
        gc.freeze()
        gc.enable()
