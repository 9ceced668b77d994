"""Python: A `ThreadPoolExecutor` of the caller's imports modules and logs while workers begin; items do so, too.

Write: as it is
Reported: python/cpython#50970
"""

import importlib
import logging
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from ordmap import ordered_map

for number in range(60):
    Path(f"slow_{number}.py").write_text(f"import time\ntime.sleep(0.02)\nVALUE = {number}\n")
sys.path.insert(0, str(Path.cwd()))
log = logging.getLogger("beside")
log.addHandler(logging.FileHandler("beside.log"))


def value(number):
    log.warning("number %d", number)
    return importlib.import_module(f"slow_{number}").VALUE


with ThreadPoolExecutor(3) as executor:
    beside = executor.map(value, range(60))
    for begin in range(0, 60, 6):
        found = ordered_map(value, range(begin, begin + 6), workers=2, backend=sys.argv[1])
        assert list(found) == list(range(begin, begin + 6))
    assert list(beside) == list(range(60))
