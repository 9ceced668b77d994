"""One run on a crew: what its answers wait in until the window asks for them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from ordmap.backends.pool import POOL_CLOSED
from ordmap.chunk import Chunk
from ordmap.engine.loads import CrateLoad
from ordmap.engine.primed import InputRows
from ordmap.errors import OrdmapError
from ordmap.outcome import Answer

if TYPE_CHECKING:
    from ordmap.engine.pool import Crew

__all__ = ["EngineRun"]


class EngineRun:
    """A run of the engine; ``number`` says to the workers which job its chunks are for.

    ``limit``: the seconds that an item may take; ``known``: the number of a job that this one is but for its context.
    """

    def __init__(self, crew: Crew, number: int, limit: float | None, known: int | None = None) -> None:
        self.number = number
        self.known = known
        self.limit = limit
        self.closed = False
        self.fault: OrdmapError | None = None
        self.when_closed: Callable[[EngineRun], None] | None = None
        self.crew = crew
        self._answers: list[tuple[int, Answer]] = []
        self._woken = False
        self._rows = InputRows(crew.vocabulary)

    @property
    def waits(self) -> bool:
        """Whether there is nothing yet for a waiting `collect` to return with."""
        return not (self._answers or self._woken or self.closed or self.fault is not None)

    @property
    def woken(self) -> bool:
        """Whether the next `take` ends a wait, whatever it gives."""
        return self._woken

    def give(self, ticket: int, answer: Answer) -> None:
        """Put in an answer."""
        self._answers.append((ticket, answer))

    def take(self) -> Sequence[tuple[int, Answer]]:
        """Take out the answers; also what `wake` left."""
        self._woken = False
        answers, self._answers = self._answers, []
        return answers

    def load(self, most: int) -> CrateLoad:
        """Return what the inputs of a chunk are pulled into."""
        return CrateLoad(self.crew.crates, most, self._rows)

    def submit(self, ticket: int, chunk: Chunk) -> None:
        if self.closed:
            raise OrdmapError(POOL_CLOSED)
        self.crew.submit(self, ticket, chunk)

    def collect(self, *, wait: bool) -> Sequence[tuple[int, Answer]]:
        return self.crew.collect(self, wait=wait)

    def watch(self, loop: Any, callback: Callable[[], None]) -> Callable[[], None]:
        """Have a callback called on an event loop when there may be something to collect; return what ends that."""
        return self.crew.watch(loop, callback)

    def wake(self) -> None:
        self._woken = True
        self.crew.wake()

    def close(self) -> None:
        """End it. Any number of times: what an exception of a signal's handler cuts short the next one ends."""
        self.closed = True
        self.crew.close_run(self)

    def end(self) -> None:
        """Let go of everything; called by the crew, once the run has left it."""
        self._answers.clear()
        if self.when_closed is not None:
            self.when_closed(self)
