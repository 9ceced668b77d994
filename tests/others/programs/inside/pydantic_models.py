"""pydantic: Each item gives a model that the script defines.

Write: as it is
"""

import sys

from pydantic import BaseModel

from ordmap import ordered_map


class Order(BaseModel):
    number: int
    words: list[str] = []


def order(n):
    return Order(number=n, words=["a"] * n)


found = list(ordered_map(order, range(6), workers=2, backend=sys.argv[1]))
assert found == [Order(number=n, words=["a"] * n) for n in range(6)]
assert all(type(one) is Order for one in found)
