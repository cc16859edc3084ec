"""Where the launchers of several machines meet, as torchrun is told.

torchrun's c10d rendezvous is a small server in the leading machine's launcher; its state is pickled, so the
port belongs into a private network. Ranks are given out in the order of the nodes' addresses: the leading
node's first rank need not be rank 0.
"""

import socket
from dataclasses import dataclass

_ANSWER_S = 5


@dataclass(frozen=True, slots=True)
class Rendezvous:
    """One meeting of several machines."""

    endpoint: str
    """HOST:PORT on the leading one."""
    nodes: int
    """Machines, this one included."""
    id: str
    """Of this meeting: a launcher left over from another one is not let in."""
    leads: bool
    """Whether this machine is the leading one."""

    def words(self) -> list[str]:
        """The arguments of torchrun."""
        return [
            f"--nnodes={self.nodes}",
            "--rdzv-backend=c10d",
            f"--rdzv-endpoint={self.endpoint}",
            f"--rdzv-id={self.id}",
            f"--rdzv-conf=is_host={int(self.leads)}",
        ]


def is_open(endpoint: str) -> bool:
    """Whether the leading machine's launcher answers."""
    host, _, port = endpoint.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=_ANSWER_S).close()
    except OSError:
        return False
    return True
