"""What an item can know of itself: which one it is, and who computes it.

A worker says once a chunk what it has `InHand`; how many outcomes there are by now says which item is being computed.
So it costs an item nothing that it could ask.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextvars import ContextVar
from typing import Any, NamedTuple

__all__ = ["InHand", "Label", "OneInHand", "WorkerInfo", "current", "in_hand", "worker_info"]


class Label(NamedTuple):
    """What a worker is told of a chunk beside its keys.

    ``first``: the index of its first item; ``None``: the keys are the indices.
    """

    epoch: int = 0
    attempt: int = 1
    first: int | None = None


class WorkerInfo(NamedTuple):
    """Who computes an item, and which.

    ``worker`` is a number from 0 to ``workers`` - 1, which no other worker has at the same time, but for a thread that
    was left alone with an item; ``None``: the workers are those of an executor of yours, which does not number them.
    ``index`` is that of the item, in its ``epoch`` (0, 1, …), and ``attempt`` is 1 unless it is tried again.
    """

    worker: int | None
    workers: int
    index: int  # type: ignore[assignment]  # a tuple's own is of no use here
    epoch: int
    attempt: int


class InHand:
    """A chunk that is being computed: one item after the other, each of which adds to the outcomes."""

    __slots__ = ("generators", "keys", "label", "outcomes", "seed", "worker", "workers")

    def __init__(self, worker: int | None, workers: int) -> None:
        self.worker = worker
        self.workers = workers
        self.keys: Sequence[Any] = ()
        self.label = Label()
        self.seed: int | None = None
        self.outcomes: list[Any] = []
        self.generators: tuple[int, dict[str, Any]] | None = None  # of the item at this place, by name

    def take(self, keys: Sequence[Any], label: Label, seed: int | None) -> list[Any]:
        """Begin with a chunk; return its outcomes, to be added to."""
        self.keys = keys
        self.label = label
        self.seed = seed
        self.outcomes = []
        self.generators = None
        return self.outcomes

    def put_down(self) -> None:
        """Note that nothing is being computed, and hold nothing of what was."""
        self.keys = ()
        self.outcomes = []
        self.generators = None

    @property
    def place(self) -> int:
        """The place of the present item in its chunk."""
        return len(self.outcomes)

    @property
    def is_item(self) -> bool:
        """Whether an item is being computed."""
        return self.place < len(self.keys)

    @property
    def index(self) -> int:
        """The index of the present item."""
        first = self.label.first
        return int(self.keys[self.place]) if first is None else first + self.place


class OneInHand(InHand):
    """One item after the other, without an end that is known; their outcomes are kept by nothing here.

    The thread that computes sets ``key`` and ``is_item`` for each, and counts it by ``place``.
    """

    __slots__ = ("is_item", "key", "place")

    is_item: bool
    place: int

    def __init__(self, worker: int | None, workers: int, seed: int | None) -> None:
        super().__init__(worker, workers)
        self.seed = seed
        self.put_down()

    def begin(self, key: Any, label: Label) -> None:
        """Begin with an item, of which the label says where it is."""
        self.key, self.label, self.place, self.generators, self.is_item = key, label, 0, None, True

    def put_down(self) -> None:
        """Note that nothing is being computed, and hold nothing of what was."""
        self.is_item = False
        self.key = self.generators = None
        self.place = 0

    @property
    def index(self) -> int:
        """The index of the present item."""
        first = self.label.first
        return int(self.key) if first is None else first + self.place


current: ContextVar[InHand | None] = ContextVar("ordmap item", default=None)


def in_hand() -> InHand | None:
    """Return what is being computed here; ``None``: no item is."""
    hand = current.get()
    return hand if hand is not None and hand.is_item else None


def worker_info() -> WorkerInfo | None:
    """Return, inside an item, who computes it and which it is; ``None`` where no item is being computed.

    Attention: a thread that an item starts is not inside it.

    Example:
        >>> from ordmap import ordered_map
        >>> list(ordered_map(lambda letter: (worker_info().index, letter), "ab", workers=1))
        [(0, 'a'), (1, 'b')]
    """
    hand = in_hand()
    if hand is None:
        return None
    return WorkerInfo(hand.worker, hand.workers, hand.index, hand.label.epoch, hand.label.attempt)
