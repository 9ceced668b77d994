"""gevent: The program is patched by `gevent.monkey.patch_all()`, and the loop is in a greenlet.

Write: as it is
Reported: gevent/gevent#2008
"""

from gevent import monkey

monkey.patch_all()

import sys

import gevent

from ordmap import ordered_map


def loop():
    return list(ordered_map(abs, range(20), workers=2, backend=sys.argv[1]))


assert gevent.spawn(loop).get(timeout=80) == list(range(20))
