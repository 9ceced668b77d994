"""Inputs that travel to other processes: each is pickled before the next is pulled, by itself.

One that can't travel costs only itself.
"""

from __future__ import annotations

from typing import Any

from ordmap.apart import Apart
from ordmap.backends.inputs import InputPickler, sent
from ordmap.reducers import INPUT, Purpose
from ordmap.vocabulary import Vocabulary

__all__ = ["PickledLoad"]


class PickledLoad(Apart):
    """Inputs as any executor's own pickle can carry them: as they are where they are plain, else pickled.

    One that can't be pickled becomes its item's error, in the worker. ``purpose``: that of a result, where workers may
    have other files than this process has; ``vocabulary``: what they know by its name.
    """

    __slots__ = ("_pickler", "_purpose", "_vocabulary")

    def __init__(self, most: int, purpose: Purpose = INPUT, vocabulary: Vocabulary | None = None) -> None:
        super().__init__(most)
        self._purpose = purpose
        self._vocabulary = vocabulary
        self._pickler: InputPickler | None = None

    def put(self, one: Any) -> None:
        if self._pickler is None:
            self._pickler = InputPickler(purpose=self._purpose, vocabulary=self._vocabulary)
        self.keys.append(sent(self._pickler, one))
