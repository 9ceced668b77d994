"""How many items travel together, and how far ahead: adapted to what the items cost."""

from __future__ import annotations

from ordmap.sizes import nbytes_of

__all__ = ["PATIENCE", "Budget", "Pace"]

#: Seconds after which a worker hands back the rest of a chunk that was sized for faster items.
PATIENCE = 0.010

#: What a chunk should cost at most: then neither the channel nor an idle neighbour is felt.
_CHUNK_SECONDS = 0.0015
_CHUNK_BYTES = 4 << 20

#: The bounds of a window that nobody asked for.
_WIDEST = 1024
_WIDEST_BYTES = 64 * 1000 * 1000


#: … and of one that is bounded in bytes.
_WIDEST_IN_BUDGET = 64 * 1024


class Budget(int):
    """A bound in bytes in place of one in items: for results that are finished and not given out yet."""

    @classmethod
    def parsed(cls, text: str) -> Budget:
        """Return what a text such as ``"512MB"`` (10⁶) or ``"512MiB"`` (2²⁰) says."""
        return cls(nbytes_of("prefetch", text, "a number of items, or of bytes"))


class Pace:
    """The current chunk size and width of a window, both in items.

    A ``prefetch`` or ``chunksize`` that was given is obeyed. Otherwise a chunk begins with one item and doubles while
    chunks are both quick and small; the window keeps two chunks a worker, at most 1,024 items and 64 MB of results and
    large inputs.
    """

    def __init__(self, workers: int, prefetch: int | None, chunksize: int | None) -> None:
        workers = max(workers, 1)
        self._workers = workers
        self._given_width = prefetch
        self.adaptive = chunksize is None
        self.chunk = chunksize or 1
        self._budget = prefetch if isinstance(prefetch, Budget) else None
        self._largest = 0.0  # bytes of an item, so far
        if self._budget is not None:
            prefetch = None
        widest = prefetch or max(2 * workers, _WIDEST)
        self._largest_chunk = chunksize or max(1, widest // (2 * workers))
        self.depth = 2 * workers  # chunks that are out at the same time, to have one ready for each worker
        self._cost: float | None = None  # seconds an item, averaged over about two chunks
        self.width = prefetch or 2 * workers * self.chunk

    @property
    def budgeted(self) -> bool:
        """Whether the bound is one in bytes."""
        return self._budget is not None

    @property
    def patience(self) -> float | None:
        """Seconds that a chunk may take before its rest is handed back; ``None``: it is run to its end."""
        return PATIENCE if self.adaptive else None

    def room(self, in_flight: int, finished: int, nbytes: float) -> int:
        """Return how many more items may be submitted.

        ``in_flight`` are submitted and not given out; of them ``finished`` have come, with so many bytes. A budget
        takes every other one for as large as the largest so far; while it isn't used up one a worker may be under way
        whatever it gives.
        """
        if self._budget is None:
            return self.width - in_flight
        left = self._budget - nbytes
        if left <= 0:
            return 0 if in_flight else 1
        fits = int(left / self._largest) if self._largest else 0
        return min(max(fits, self._workers) - (in_flight - finished), _WIDEST_IN_BUDGET - in_flight)

    def learn(self, items: int, elapsed: float, nbytes: float, inputs: float = 0.0) -> None:
        """Take into account that ``items`` took ``elapsed`` seconds, and gave so many bytes for so many of inputs."""
        if items:
            self._largest = max(self._largest, nbytes / items)
        nbytes += inputs
        if items and self.adaptive:
            weight = items / (items + 2 * self.chunk)
            last = elapsed / items
            self._cost = last if self._cost is None else (1 - weight) * self._cost + weight * last
            by_time = int(_CHUNK_SECONDS / self._cost) if self._cost > 0 else self._largest_chunk
            by_size = int(_CHUNK_BYTES * items / nbytes) if nbytes else self._largest_chunk
            # Growth is careful, for one quick item says little. What turns slow is handed back, whatever the size.
            self.chunk = max(1, min(by_time, by_size, 2 * self.chunk, self._largest_chunk))
        if items and self._given_width is None:
            fits = int(_WIDEST_BYTES * items / nbytes) if nbytes else _WIDEST
            wanted = max(self.width, 2 * self._workers * self.chunk)
            self.width = max(2 * self._workers, min(wanted, fits))
