"""Python: A `multiprocessing.Pool` and a daemonic `Process` of the caller's live before, in and after the loop.

Write: as it is
Reported: jgehrcke/gipc#15
"""

import multiprocessing
import sys
import time

from ordmap import ordered_map

context = multiprocessing.get_context("fork")
listener = context.Process(target=time.sleep, args=(600,), daemon=True)
listener.start()
with context.Pool(2) as pool:
    assert pool.map(abs, range(-3, 0)) == [3, 2, 1]
    assert list(ordered_map(abs, range(-5, 0), workers=2, backend=sys.argv[1])) == [5, 4, 3, 2, 1]
    time.sleep(0.5)
    assert listener.is_alive(), "the caller's own process was ended"
    assert pool.map_async(abs, range(-3, 0)).get(timeout=30) == [3, 2, 1]
