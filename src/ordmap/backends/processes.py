"""Worker processes: on the process engine where the system has what it needs, else on the standard library's pool.

``ORDMAP_PORTABLE=1`` in the environment chooses the second everywhere.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from ordmap.engine import available

if TYPE_CHECKING or (available() and os.environ.get("ORDMAP_PORTABLE") != "1"):
    from ordmap.engine.backends import Processes, Spawn
else:
    from ordmap.backends.portable import Processes, Spawn

__all__ = ["Processes", "Spawn"]
