"""`dapt`: its commands, of which those that only look start without Prefect, a second sooner."""

import gc
import sys
from typing import TYPE_CHECKING

from flows.standing import reading_ahead
from tasks.runtime.imports import Late, import_for_good

if TYPE_CHECKING:
    from flows import look
else:
    look = Late("flows.look")

LOOKING = frozenset({"plan", "status", "show", "verify", "compare"})


def main() -> None:
    """Run the command line."""
    if sys.argv[1:2] and sys.argv[1] in LOOKING:
        gc.disable()  # what is imported stays: to look through it again and again takes a tenth of the start
        with reading_ahead(sys.argv[2:] if sys.argv[1] == "plan" else ()):
            code = look.main()
        look.leave(code)
    else:
        import_for_good("flows.cli")  # first: it sets what Prefect reads when it is imported
        import_for_good("deployments.cli").main()
