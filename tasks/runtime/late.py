"""Modules that are imported when something of them is first asked for, and libraries that are in any case.

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
    and again takes a sixth of the time of importing torch, transformers and DeepSpeed, a third of Prefect's.

    Args:
        name: of the module.
    """
    gc.disable()
    try:
        return importlib.import_module(name)
    finally:
        gc.freeze()
        gc.enable()
