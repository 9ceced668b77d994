"""The table of promises: what each backend keeps, keeps in a weaker form, or refuses.

The contract suite reads these very rows (`ordmap.testing.BackendContract`), and ``docs/promises.md`` is printed from
them, so what a row says is what is tested.
"""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["KEPT", "NOT_COPIED", "PROMISES", "SENT_CONTEXT", "Grade", "refused", "row", "weaker"]


class Grade(NamedTuple):
    """How far a promise is kept; ``how`` says what is different where it isn't kept whole."""

    word: str
    how: str = ""


KEPT = Grade("kept")


def weaker(how: str) -> Grade:
    """Return the grade of a promise that is kept in a weaker form."""
    return Grade("weaker", how)


def refused(why: str) -> Grade:
    """Return the grade of a promise that a backend can't keep at all."""
    return Grade("refused", why)


#: Each promise and what it says.
PROMISES: dict[str, str] = {
    "order": "The results are those of `map`, in its order, each item computed once (a few again if a worker dies).",
    "bounded": "Never more than `prefetch` items are submitted and not yet yielded.",
    "filled": "The whole window gets computed without a further `next()`, while the caller is busy; of an iterator, "
    "which may be slow, what was pulled before the oldest item was ready.",
    "lazy": "Nothing starts before the first `next()`; the dataset is seen as it is then.",
    "clean": "After the end, `break`, an exception, `close()` or garbage collection nothing stays behind.",
    "parent death": "When the calling process is killed its workers end too.",
    "item errors": "An exception costs its own item only; `next()` goes on with the following one.",
    "worker death": "The death of a worker costs its own item only.",
    "timeouts": "An item that runs for longer than `item_timeout` costs itself only, and is ended.",
    "retries": "Exceptions, time-outs and deaths alike are tried again `retries` times, and meet `on_error`.",
    "own exception": "The user's exception arrives as itself, with cause, context and notes.",
    "random numbers": "With `seed=`, `item_rng()` and the global generators give what (seed, epoch, index) give.",
    "context": "An item sees the context variables of the loop that asks for it, never those of another.",
    "resumable": "`load_state_dict()` goes on with exactly the next item, wherever the state is from.",
    "shipped once": "The dataset reaches each worker once a run, never with each task.",
    "no guard": 'Lambdas, closures and classes from `__main__` work, without `if __name__ == "__main__":`.',
}


#: How far the promise of contexts is kept in another process that isn't forked for this very loop.
SENT_CONTEXT = weaker(
    "a variable travels that a module's global leads to, with a value that can be pickled; others have their defaults"
)


#: How far the promise of order is kept where items get the very objects that the source gives.
NOT_COPIED = weaker(
    "nothing is copied: what a source fills anew, an item may see as it is later (said once, by a warning)"
)


def row(**exceptions: Grade) -> dict[str, Grade]:
    """Return a row of the table: every promise kept but for those named (``_`` stands for a space)."""
    named = {promise.replace("_", " "): grade for promise, grade in exceptions.items()}
    unknown = named.keys() - PROMISES.keys()
    if unknown:
        raise ValueError(f"no such promise: {', '.join(sorted(unknown))}")
    return {promise: named.get(promise, KEPT) for promise in PROMISES}
