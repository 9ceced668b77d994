"""matplotlib: A figure is saved before the loop (backend Agg), and one by each item.

Write: as it is, with a `Figure` of the item's own: `pyplot` is not for threads
"""

import io
import sys

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from ordmap import ordered_map


def drawn(n):
    figure = Figure(figsize=(2, 2))
    FigureCanvasAgg(figure)
    figure.subplots().plot(range(n))
    image = io.BytesIO()
    figure.savefig(image, format="rgba")
    return image.getvalue()


wanted = [drawn(n) for n in range(2, 6)]
assert list(ordered_map(drawn, range(2, 6), workers=2, backend=sys.argv[1])) == wanted
