"""The command line, run again and again from one interpreter, and killed each time somewhere else.

`python -m tests.contracts.dapt PLACE... -- WORDS...`: for each place a child runs `dapt WORDS` and has its
whole process group killed (-9) there; prints `PLACE: status`. A place is "<stage> before" (the data has no
name yet) or "<stage> between" (it has, there is no manifest), of the first node of that stage that it makes.
Imports cost more than runs do, hence the one interpreter; it has no threads when it forks.
Without places: just `dapt WORDS`.
"""

import os
import signal
import sys

from flows.cli import main
from tasks.store import shard
from tasks.store.manifest import FileEntry, Manifest
from tasks.store.manifest import write_manifest as write
from tasks.store.paths import Store


def arm(place: str) -> None:
    """Have this process' group die at a place."""
    stage, moment = place.split()
    commit = shard.NodeWriter.commit

    def commit_or_die(writer: shard.NodeWriter) -> list[FileEntry]:
        if (writer.node.stage, moment) == (stage, "before"):
            os.killpg(0, signal.SIGKILL)
        return commit(writer)

    def write_or_die(store: Store, manifest: Manifest) -> None:
        if (manifest.stage, moment) == (stage, "between"):
            os.killpg(0, signal.SIGKILL)
        write(store, manifest)

    shard.NodeWriter.commit = commit_or_die
    shard.write_manifest = write_or_die


def run_and_die(place: str) -> int:
    """Run the command line in a child that dies at a place; how it ended."""
    child = os.fork()
    if child == 0:
        os.setsid()
        sys.stdout = sys.stderr
        arm(place)
        main()
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


if __name__ == "__main__":
    split = sys.argv.index("--")
    places, sys.argv = sys.argv[1:split], ["dapt", *sys.argv[split + 1 :]]
    for told in places:
        print(f"{told}: {run_and_die(told)}", flush=True)  # noqa: T201
    if not places:
        main()
