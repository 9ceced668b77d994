"""rich: Items print by the console that draws the live progress bar around the loop.

Write: as it is; in fresh interpreters, a console that the item makes
"""

import sys

from rich.console import Console
from rich.progress import Progress

from ordmap import ordered_map

console = Console(force_terminal=False)


def told(n):
    console.print(f"item {n}")
    return n


backend = sys.argv[1]
with Progress(console=console, refresh_per_second=50) as progress:
    items = ordered_map(told, range(20), workers=2, backend=backend)
    assert list(progress.track(items, total=20)) == list(range(20))
