"""The process engine: worker processes driven by the consumer alone.

::

    window ──> Crew.submit ──> task channel (one, shared) ──> worker: compute
       ▲                                                        │  board: who is in which item
       └── Crew.collect <── result channel (one a worker) <─────┘

`pool` is the caller's side and `worker` the other; `channel` and `message` are what lies between, `board` the shared
memory that tells what a dead worker was doing, `ending` how workers end, `fork` how they begin.
"""

from __future__ import annotations

import os
import signal
import socket
import sys

__all__ = ["available"]


def available() -> bool:
    """Whether this system has all that the engine stands on."""
    return sys.platform == "linux" and all(
        hasattr(module, name)
        for module, name in (
            (socket, "SOCK_SEQPACKET"),
            (os, "memfd_create"),
            (os, "pidfd_open"),
            (os, "eventfd"),
            (os, "fork"),
            (signal, "pthread_sigmask"),
        )
    )
