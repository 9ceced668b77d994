"""rich: A live progress bar is drawn around the loop, by a thread that has the console's lock now and then.

Write: as it is
"""

import io
import sys

from rich.console import Console
from rich.progress import Progress

from ordmap import ordered_map

console = Console(file=io.StringIO(), force_terminal=True)
with Progress(console=console, refresh_per_second=50) as progress:
    for _ in range(5):
        items = ordered_map(abs, range(-20, 0), workers=2, backend=sys.argv[1])
        assert list(progress.track(items, total=20)) == list(range(20, 0, -1))
assert "100%" in console.file.getvalue()
