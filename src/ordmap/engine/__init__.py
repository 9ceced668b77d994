"""The process engine: worker processes driven by the consumer alone.

::

    window ──> Crew.submit ──> task channel (one, shared) ──> worker: compute
       ▲                                                        │  board: who is in which item
       └── Crew.collect <── result channel (one a worker) <─────┤
       └── shelf: results in place <════ blocks <═══════════════╛

`backends` says when workers begin and end; `pool` is the caller's side, with a `run` for each iterator and a `ledger`
of what the workers owe; `worker` is the other side. Between them: `channel` and `message`; `board`, the shared memory
that tells what a dead worker was doing; and for large results `blocks`, the worker's side of shared `memory`, filled by
`codec`, and `shelf`, the caller's. `fork` and `spawn` are how workers begin (`executable` says as which program), a
`parcel` brings the dataset to those that don't inherit it, `wear` says when they have done enough, `ending` is how they
end, and `last_words` what they leave to be read then. `points` names the instants at which tests have them die.
`kernel` says whether the system grants what all this stands on.
"""

from __future__ import annotations

from ordmap.engine.kernel import lack

__all__ = ["available"]


def available() -> bool:
    """Whether this system has all that the engine stands on."""
    return lack() is None
