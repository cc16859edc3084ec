"""What can go wrong, and who is told.

DaptError                exit 1   what a user can act on; the command line prints its text, no traceback
├── RecipeError          exit 2   the recipe or the arguments are wrong; nothing was started
├── SourceError          exit 1   a source cannot be found or read; names the path or URL
│   └── TransientError   exit 1   the network's fault: worth another try (tasks retry on it alone)
├── BudgetError          exit 1   the sources hold less than a milestone asks for
├── ShardsFailed         exit 1   shards failed and were told one by one; others may wait for them
├── ResourceError        exit 1   not enough disk, memory or devices; said before it is spent
├── JobError             exit 1   a subprocess failed; carries its last lines
├── StoreDamaged         exit 3   a file of the store is not what its manifest says; names the path
└── Forgotten            exit 4   a model lost more than its recipe's tolerance; all is made and stands

Rooms raise, flows collect, `flows/cli.py` turns into an exit code. `assert` is for our own mistakes.
"""

from tasks.store.json import JSON
from tasks.store.masking import masked


class DaptError(Exception):
    """Something a user can act on: what was found, what was expected, what to do; nothing secret is in it."""

    exit_code = 1
    summary: JSON | None = None
    """What a flow had done when it was raised, for who sums up the run."""

    def __init__(self, told: str = "") -> None:
        super().__init__(masked(told))


class RecipeError(DaptError):
    """The recipe or the arguments are wrong; nothing was started."""

    exit_code = 2


class SourceError(DaptError):
    """A source cannot be found or read."""


class TransientError(SourceError):
    """The network failed; the same call may go through later."""


class BudgetError(DaptError):
    """The sources hold less than a milestone asks for."""


class ShardsFailed(DaptError):
    """Shards failed; each was recorded under its own name."""


class ResourceError(DaptError):
    """Not enough disk, memory or devices."""


class JobError(DaptError):
    """A subprocess ended without a result."""

    log = ""
    """The file that has all it said."""


class StoreDamaged(DaptError):
    """A file of the store is not what its manifest says."""

    exit_code = 3

    def __init__(self, path: str, why: str) -> None:
        super().__init__(
            f"{path}: {why}; its manifest was set aside, run the recipe again to rebuild just this"
        )
        self.path, self.why = path, why

    def __reduce__(self) -> tuple[type["StoreDamaged"], tuple[str, str], JSON]:
        """By what it was made from: on a cluster it comes back from another process."""
        return type(self), (self.path, self.why), self.__dict__


class Forgotten(DaptError):
    """A model lost more against its base than the recipe's tolerance; it is made, and kept."""

    exit_code = 4
