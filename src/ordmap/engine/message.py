"""What is said on the channels, to the byte.

To the workers, on the channel that all share, *tasks*: records of fixed size, then the pickled inputs, if any, which
lie in a file where they are long. A record is a row of chunks: ``count`` chunks of ``size`` indices each (the last may
be shorter), numbered from ``serial``; or one chunk whose inputs begin at byte ``start`` of all inputs, ``size`` bytes
long, and whose first index is ``stop`` (-1: the inputs are the indices). One whose inputs lie in a crate is alone in
its message, with which that goes.

To one worker, on its own channel, *notices*: a job to hold, or a run that is over, whose job may be kept for another.
From a worker, on its own channel, *news*: an answer, or a word on the worker itself. What is long comes in a file.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator, Sequence
from functools import lru_cache
from struct import Struct
from typing import NamedTuple

from ordmap.engine import channel
from ordmap.item import Label

__all__ = [
    "ANSWER",
    "ANSWERS",
    "BLOCK",
    "DROPPED",
    "FAULT",
    "FORGET",
    "JOB",
    "KEPT",
    "MOST_INSIDE",
    "MOST_ORDERS",
    "NEWS",
    "NOTICE",
    "PLAIN",
    "RENEW",
    "ROW",
    "SHORT",
    "Order",
    "packed_orders",
    "send_orders",
    "together",
    "unpacked_orders",
]

_COUNT = Struct("<I")
_ONE = _COUNT.pack(1)
_RECORD = Struct("<BBHIQIxxxxQqqqQ")  # kind, patient, attempt, run, serial, count, size, start, stop, step, epoch
_RANGE, _PICKLED, _BOXED = 1, 2, 3

#: Bytes of inputs up to which they are in the message itself, unless its sender says more: a channel has room for many
#: short ones.
SHORT = 1024

#: … and the most that it may say, which leaves room for the record.
MOST_INSIDE = channel.LONG - 1024

#: The highest attempt that a worker hears of.
_MOST_ATTEMPTS = 0xFFFF

#: Orders that one message holds at most.
MOST_ORDERS = 256

#: kind, serial number, seconds, bytes; then the outcomes, unless they come in a file
NEWS = Struct("<BQdQ")
# plain: an answer of numbers and such, nothing in blocks; row: one with pickles that follow a primer, which comes first
ANSWER, PLAIN, FAULT, BLOCK, DROPPED, KEPT, ROW = range(1, 8)
ANSWERS = frozenset({ANSWER, PLAIN, ROW})

#: kind, run
NOTICE = Struct("<BI")
JOB, FORGET, RENEW = 1, 2, 3


class Order(NamedTuple):
    """A chunk to compute. ``patient``: to its end, however long that takes."""

    run: int
    serial: int
    patient: bool
    keys: range | bytes  # bytes: a pickled list
    label: Label = Label()
    crate: int | None = None  # the descriptor of what the inputs lie in


def together(crates: Sequence[object]) -> int:
    """Return how many orders with these crates, or none, may be in one message, from the first on."""
    boxed = (place for place, crate in enumerate(crates) if crate is not None)
    return max(1, next(boxed, len(crates)))


def send_orders(end: socket.socket, orders: Sequence[Order], inside: int = SHORT) -> bool:
    """Send some orders in one message now; ``False``: there is no room. Inputs up to ``inside`` bytes are in it."""
    head, bodies = packed_orders(orders)
    if orders[0].crate is not None:
        return channel.send(end, head + bodies, orders[0].crate)
    if len(bodies) <= inside:
        return channel.send(end, head + bodies)
    try:
        file = channel.written_file([bodies])
    except OSError:
        if len(head) + len(bodies) > channel.LONG:
            raise
        return channel.send(end, head + bodies)
    try:
        return channel.send(end, head, file)
    finally:
        os.close(file)


def packed_orders(orders: Sequence[Order]) -> tuple[bytes, bytes]:
    """Return the records and the inputs of these orders; chunks of indices that go on from each other share one."""
    if len(orders) == 1:  # by far the most
        record, inputs = _record(orders[0], 0)
        return _ONE + record, inputs
    records: list[bytes] = []
    bodies: list[bytes] = []
    place = 0
    i = 0
    while i < len(orders):
        count = _row(orders, i)
        record, inputs = _record(orders[i], place, orders[i + count - 1].keys, count)
        records.append(record)
        bodies.append(inputs)
        place += len(inputs)
        i += count
    return b"".join((_COUNT.pack(len(records)), *records)), b"".join(bodies)


def _record(order: Order, place: int, last: range | bytes | None = None, count: int = 1) -> tuple[bytes, bytes]:
    """Return the record of ``count`` chunks that go on from each other, and their inputs, which begin at a place."""
    run, serial, patient, keys, (epoch, tried, first), crate = order
    tried = min(tried, _MOST_ATTEMPTS)
    if isinstance(keys, bytes):
        index = -1 if first is None else first
        kind = _PICKLED if crate is None else _BOXED
        return _RECORD.pack(kind, patient, tried, run, serial, 1, len(keys), place, index, 0, epoch), keys
    stop = last.stop if isinstance(last, range) else keys.stop
    what = (count, len(keys), keys.start, stop, keys.step)
    return _RECORD.pack(_RANGE, patient, tried, run, serial, *what, epoch), b""


def _row(orders: Sequence[Order], first: int) -> int:
    """Return how many orders from the first on are one row of chunks."""
    run, serial, patient, keys, label, _ = orders[first]
    if not isinstance(keys, range):
        return 1
    count = 1
    for order in orders[first + 1 :]:
        previous = orders[first + count - 1].keys
        if (
            order.run != run
            or order.serial != serial + count
            or order.patient != patient
            or order.label != label
            or not isinstance(order.keys, range)
            or not isinstance(previous, range)
            or order.keys.step != keys.step
            or len(previous) != len(keys)
            or len(order.keys) > len(keys)
            or order.keys.start != previous.start + len(previous) * keys.step
        ):
            break
        count += 1
    return count


#: Most chunks have the label of the one before.
_label = lru_cache(maxsize=2)(Label)


def unpacked_orders(message: bytes, inputs: bytes | None = None) -> Iterator[Order]:
    """Yield the orders of a message, in their order; ``inputs``: what came in a file with it."""
    (records,) = _COUNT.unpack_from(message)
    bodies = _COUNT.size + records * _RECORD.size
    if inputs is None:
        inputs = message[bodies:]
    for n in range(records):
        kind, patient, tried, run, serial, count, size, start, stop, step, epoch = _RECORD.unpack_from(
            message, _COUNT.size + n * _RECORD.size
        )
        label = _label(epoch, tried, stop if kind != _RANGE and stop >= 0 else None)
        if kind != _RANGE:
            crate = -1 if kind == _BOXED else None
            yield Order(run, serial, bool(patient), inputs[start : start + size], label, crate)
        elif count == 1:
            yield Order(run, serial, bool(patient), range(start, stop, step), label)
        else:
            row = range(start, stop, step)
            for i in range(count):
                yield Order(run, serial + i, bool(patient), row[i * size : (i + 1) * size], label)
