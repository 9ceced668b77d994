"""Named instants of a worker's life at which it can be made to kill itself: what the tests of deaths stand on.

``ORDMAP_DIE_AT="before _answer"`` in the environment has a worker kill itself with SIGKILL right before it answers for
a chunk; any method of the worker will do, and those of what it owns (``"after board.take"``). With a file behind an
``@`` only the first to get there does so: the file is made, and must not be there before. Without the variable this
costs nothing.
"""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Callable
from typing import Any

__all__ = ["POINTS", "arm"]

_VARIABLE = "ORDMAP_DIE_AT"

#: The instants between which a worker's death can make a difference, in the order of its life.
POINTS = {
    "starting": "before _begin",
    "ready, and not said so": "before board.begin",
    "idle": "before _take",
    "tasks received, none noted": "before board.take",
    "a task noted": "after board.take",
    "tasks in hand, none begun": "before _serve",
    "a notice is there": "before _heed",
    "a notice read": "after _read_notice",
    "the chunk begun": "before _job",
    "the job had": "after _job",
    "the inputs had": "after _inputs",
    "an item computed": "before _encoded",
    "a block found, not written": "after arena.take",
    "a result in its block": "after _encoded",
    "a chunk computed": "before _answer",
    "blocks announced, the answer not sent": "after _send_blocks",
    "the answer not in the channel": "before outbox.put",
    "the answer in the channel": "after outbox.put",
    "a chunk answered, still in hand": "after _answer",
    "tasks about to be offered": "before _offer",
    "an offered task given up": "after board.give_up",
    "tasks offered": "after _offer",
    "done enough": "before _hand_over",
    "all handed over": "after _hand_over",
}


def arm(worker: object) -> None:
    """Have a worker kill itself where the environment says."""
    asked_for = os.environ.get(_VARIABLE)
    if not asked_for:
        return
    instant, _, file = asked_for.partition("@")
    when, _, path = instant.partition(" ")
    owner, _, name = path.rpartition(".")
    target = getattr(worker, f"_{owner}") if owner else worker
    method = getattr(target, name)

    def die() -> None:
        with contextlib.suppress(FileExistsError):
            if file:
                os.close(os.open(file, os.O_CREAT | os.O_EXCL))
            os.kill(os.getpid(), signal.SIGKILL)

    def dying(*args: Any, **options: Any) -> Any:
        if when == "before":
            die()
        result = method(*args, **options)
        if when == "after":
            die()
        return result

    replace: Callable[[object, str, object], None] = setattr
    replace(target, name, dying)
