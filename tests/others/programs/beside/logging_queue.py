"""Python: Items log by a `QueueHandler` to a `QueueListener` of the caller's, over a `multiprocessing.Queue`.

Write: as it is; fresh interpreters can't be sent such a queue, and take a manager's
Not spawn: such a queue travels by inheritance alone; a warning says that the handler is left out
"""

import logging
import logging.handlers
import multiprocessing
import sys

from ordmap import ordered_map

found = []


class Kept(logging.Handler):
    def emit(self, record):
        found.append(record.getMessage())


queue = multiprocessing.get_context("fork").Queue()
logger = logging.getLogger("items")
logger.addHandler(logging.handlers.QueueHandler(queue))
logger.setLevel(logging.INFO)
listener = logging.handlers.QueueListener(queue, Kept())
listener.start()


def logged(n):
    logging.getLogger("items").info("item %d", n)
    return n


assert list(ordered_map(logged, range(20), workers=2, backend=sys.argv[1])) == list(range(20))
listener.stop()
queue.close()
queue.join_thread()
assert sorted(found) == sorted(f"item {n}" for n in range(20))
