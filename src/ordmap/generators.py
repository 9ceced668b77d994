"""The global generators of random numbers: those of ``random``, numpy and PyTorch.

With a seed they are set before each item, where one process computes one item at a time: `seeding` does so. In a
worker of our own they stay like that; anywhere else, in the caller's process above all, they are `borrowed` for some
items, and go on afterwards as if nothing had been. One that is first imported in the midst of an item is set then, by a
finder among those of the interpreter.

Without a seed nothing of this happens; but a forked worker begins by getting other numbers than its caller has and its
siblings have, see `differ`.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import ModuleType
from typing import Any, Protocol

from ordmap import real_time as time
from ordmap.item import InHand
from ordmap.rng import key_of, word_of
from ordmap.shielded import passes
from ordmap.unwarned import fork
from ordmap.when_imported import Finder

__all__ = [
    "begin_in_fork",
    "borrowed",
    "differ",
    "differ_where_inherited",
    "note_inherited",
    "seeding",
    "watch_imports",
]

#: Seconds that it may take to set a generator that nobody has in hand.
_MOMENT = 0.25


class _Global(Protocol):
    """A kind of global generator, in a module that may not be imported; ``has`` is what such a module must have."""

    module: str
    has: str

    def seed(self, hand: InHand) -> None:
        """Set it to the present item's numbers."""

    def differ(self, *, shared: bool) -> None:
        """Set it by chance. ``shared``: another thread may have had it in hand when this process was forked."""

    def save(self) -> Any:
        """Return its state."""

    def restore(self, state: Any) -> None:
        """Set it to a state."""

    def trace(self) -> Any:
        """Return what says whether somebody has set or used it, and waits for nobody; ``None``: it can't be said."""


class _Standard:
    module = "random"
    has = "getstate"

    def seed(self, hand: InHand) -> None:
        sys.modules["random"].seed(key_of(hand, "random"))

    def differ(self, *, shared: bool) -> None:
        del shared
        sys.modules["random"].seed()

    def save(self) -> Any:
        return sys.modules["random"].getstate()

    def restore(self, state: Any) -> None:
        sys.modules["random"].setstate(state)

    def trace(self) -> Any:
        return None  # it sees to a fork itself


class _Numpy:
    module = "numpy.random"
    has = "set_state"

    @property
    def _random(self) -> Any:
        return sys.modules["numpy.random"]

    def seed(self, hand: InHand) -> None:
        word, random = word_of(hand, "numpy"), self._random
        if hasattr(random, "get_bit_generator") and not isinstance(random.get_bit_generator(), random.MT19937):
            random.set_state(type(random.get_bit_generator())(word).state)  # what seed() makes of others is not whole
        else:
            random.seed(word)  # of 32 bits: more of them take four times as long

    def differ(self, *, shared: bool) -> None:
        del shared
        if hasattr(self._random, "set_bit_generator"):  # numpy ≥ 1.24
            # The present one has a lock, which a thread may hold that this process lacks.
            self._random.set_bit_generator(type(self._random.get_bit_generator())())
        else:
            self._random.seed()

    def save(self) -> Any:
        return self._random.get_state(legacy=False)

    def restore(self, state: Any) -> None:
        self._random.set_state(state)

    def trace(self) -> Any:
        lock = self._random.mtrand._rand._bit_generator.lock
        if not passes(lock, False):
            return None
        return pickle.dumps(self.save())


class _Torch:
    """PyTorch's for the processor, and for each CUDA device, which there are only once CUDA is in use."""

    module = "torch"
    has = "default_generator"

    def __init__(self) -> None:
        self._expects_devices = False

    @property
    def _generators(self) -> Sequence[Any]:
        torch = sys.modules["torch"]
        devices = torch.cuda.default_generators if torch.cuda.is_initialized() else ()
        return (torch.default_generator, *devices)

    def seed(self, hand: InHand) -> None:
        if not self._expects_devices:
            self._expects_devices = True
            sys.modules["torch"].cuda._lazy_call(self._set_devices)  # at once, or when an item begins to use CUDA
        word = word_of(hand, "torch")  # of which the processor's generator uses 32 bits
        for generator in self._generators:
            generator.manual_seed(word)

    def _set_devices(self) -> None:
        """Set the generators of the devices, which have just begun to be used, for the present item."""
        setting = next((setting for setting in reversed(_settings) if setting.is_due), None)
        if setting is None:
            return
        for generator in sys.modules["torch"].cuda.default_generators:
            if setting.saved is not None:
                setting.saved.setdefault(self.module, []).append((generator, generator.get_state()))
            generator.manual_seed(word_of(setting.hand, "torch"))

    def differ(self, *, shared: bool) -> None:
        generator = sys.modules["torch"].default_generator  # a forked process can't use the devices
        if shared and not _ends_soon(generator.seed):
            _unusable.add(self.module)  # an item that uses it waits for ever, with us or without
        else:
            generator.seed()

    def save(self) -> Any:
        return [(generator, generator.get_state()) for generator in self._generators]

    def restore(self, state: Any) -> None:
        for generator, own in state:
            generator.set_state(own)

    def trace(self) -> Any:
        return sys.modules["torch"].default_generator.initial_seed()


def _ends_soon(call: Callable[[], object]) -> bool:
    """Whether a call comes to its end, or waits, with the GIL, for a thread that this fork lacks: a child tries it."""
    made: list[int] = []
    fork(made)
    pid = made[0]
    if not pid:
        try:
            call()
        finally:
            os._exit(0)
    give_up = time.monotonic() + _MOMENT
    with contextlib.suppress(ChildProcessError):  # a handler of the caller's, inherited here, has reaped it: it ended
        while os.waitpid(pid, os.WNOHANG) == (0, 0):
            if time.monotonic() > give_up:
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
                return False
            time.sleep(0.0005)
    return True


_GLOBALS: Mapping[str, _Global] = {kind.module: kind for kind in (_Standard(), _Numpy(), _Torch())}

#: Modules whose generator another thread had in hand when this process was forked.
_unusable: set[str] = set()


def _loaded() -> list[_Global]:
    """Return the kinds that are imported, wholly, and can be used."""
    found = []
    for name, kind in _GLOBALS.items():
        module = sys.modules.get(name)
        spec = getattr(module, "__spec__", None)
        if spec is not None and not getattr(spec, "_initializing", False) and hasattr(module, kind.has):
            found.append(kind)
    return [kind for kind in found if kind.module not in _unusable] if _unusable else found


# With a seed


class _Setting:
    """For whose items generators are set; ``saved``: what they were before, if they are to be that again."""

    __slots__ = ("hand", "saved")

    def __init__(self, hand: InHand, saved: dict[str, Any] | None = None) -> None:
        self.hand = hand
        self.saved = saved

    @property
    def is_due(self) -> bool:
        """Whether a generator that turns up now is to be set."""
        return self.hand.seed is not None and self.hand.is_item


#: The innermost last: an item may have an iterator of its own.
_settings: list[_Setting] = []

#: Held while generators are borrowed, which are those of the whole process.
_lock = threading.RLock()


def _renew_lock() -> None:
    global _lock
    _lock = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_lock)


def seeding(compute: Callable[[Any], Any], hand: InHand) -> Callable[[Any], Any]:
    """Return a function that computes an item of the chunk in hand with the global generators set for it."""

    def seed_and_compute(key: Any) -> Any:
        for kind in _loaded():
            kind.seed(hand)
        return compute(key)

    return seed_and_compute


def watch_imports(hand: InHand) -> None:
    """Have generators that are first imported be set for the item in hand; for the life of a worker."""
    setting = _Setting(hand)
    _settings.append(setting)
    sys.meta_path.insert(0, _Finder(setting))


@contextlib.contextmanager
def borrowed(hand: InHand) -> Iterator[None]:
    """Have generators go on, after the items of the chunk in hand, as if these had not set them.

    Other threads that would borrow them wait: they are those of the whole process.
    """
    with _lock:
        setting = _Setting(hand, {})
        finder = _Finder(setting)
        try:
            _settings.append(setting)
            sys.meta_path.insert(0, finder)
            for kind in _loaded():
                setting.saved[kind.module] = kind.save()  # type: ignore[index]
            yield
        finally:
            try:
                _give_back(setting, finder)
            except BaseException:  # Ctrl-C
                _give_back(setting, finder)
                raise


def _give_back(setting: _Setting, finder: _Finder) -> None:
    """Leave all as it was; any number of times."""
    if finder in sys.meta_path:
        sys.meta_path.remove(finder)
    if setting in _settings:
        _settings.remove(setting)
    for name, state in (setting.saved or {}).items():
        _GLOBALS[name].restore(state)


# Those that are imported in the midst of an item


class _Finder(Finder):
    """Has a global generator that an item is the first to import be set for that: for an outer one before an inner."""

    def __init__(self, setting: _Setting) -> None:
        super().__init__(_GLOBALS)
        self._setting = setting

    def loaded(self, module: ModuleType) -> None:
        kind, setting = _GLOBALS[module.__name__], self._setting
        if setting.is_due and hasattr(module, kind.has):
            if setting.saved is not None:
                setting.saved[kind.module] = kind.save()
            kind.seed(setting.hand)


# Without a seed


#: By module: what was inherited by this fork, unless it is known to be this process's own.
_inherited: dict[str, Any] = {}


def note_inherited() -> None:
    """Note in a process that was just forked what its global generators are."""
    _inherited.clear()
    _inherited.update((kind.module, kind.trace()) for kind in _loaded())


def differ(*, shared: bool = False) -> None:
    """Set the global generators by chance. ``shared``: the caller had other threads when this process was forked."""
    for kind in _loaded():
        kind.differ(shared=shared)


def differ_where_inherited() -> None:
    """Set by chance, once, those global generators that nobody has set or used since `note_inherited`."""
    if not _inherited:
        return
    noted = dict(_inherited)
    _inherited.clear()
    for kind in _loaded():
        trace = noted.get(kind.module)
        if trace is not None and trace == kind.trace():
            kind.differ(shared=True)


def begin_in_fork(*, shared: bool) -> None:
    """Leave behind what the caller has set, in a process that was forked to be a worker, and differ from it.

    ``shared``: the caller had other threads, which may have had a generator in hand.
    """
    _settings.clear()
    sys.meta_path[:] = [finder for finder in sys.meta_path if not isinstance(finder, _Finder)]
    differ(shared=shared)
