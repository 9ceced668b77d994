"""eventlet: The program is patched by `eventlet.monkey_patch()`, and the loop is in a green thread.

Write: as it is
"""

import warnings

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # eventlet says of itself that it is retired
    import eventlet

    eventlet.monkey_patch()

import sys

from ordmap import ordered_map


def loop():
    return list(ordered_map(abs, range(20), workers=2, backend=sys.argv[1]))


assert eventlet.spawn(loop).wait() == list(range(20))
