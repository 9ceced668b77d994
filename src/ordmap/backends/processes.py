"""Worker processes: on the process engine where the system has what it needs, else on the standard library's pool.

``ORDMAP_PORTABLE=1`` in the environment chooses the second everywhere.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

from ordmap.engine.kernel import lack
from ordmap.telling import warn

_asked = os.environ.get("ORDMAP_PORTABLE") == "1"

if TYPE_CHECKING or (lack() is None and not _asked):
    from ordmap.engine.backends import Processes, Spawn
else:
    from ordmap.backends.portable import Processes, Spawn

    if sys.platform == "linux" and not _asked:
        warn(
            f"{lack()}: backend='processes' and backend='spawn' stand on concurrent.futures.ProcessPoolExecutor here, "
            "whose promises are weaker; ORDMAP_PORTABLE=1 in the environment asks for that, and this is not said then"
        )

__all__ = ["Processes", "Spawn"]
