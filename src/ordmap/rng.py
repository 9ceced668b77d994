"""Random numbers that a seed, an epoch and an index give, whoever computes the item, and when.

`item_rng` has a generator of the item's own. The *global* generators (of ``random``, numpy and PyTorch) are set before
each item where one process computes one item at a time: `seeding` does so in a worker, `borrowing` in the caller's
process, whose own numbers go on after the item as if nothing had been. One that is first imported in the midst of an
item is set then, by a finder among those of the interpreter.

Without a seed nothing of this happens; but a forked worker begins by getting other numbers than its caller has and its
siblings have, see `differ`.
"""

from __future__ import annotations

import pickle
import struct
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from types import ModuleType
from typing import TYPE_CHECKING, Any, Literal, Protocol, overload

from ordmap.item import InHand, in_hand

if TYPE_CHECKING:
    import random
    from importlib.machinery import ModuleSpec

    import numpy as np

__all__ = ["borrowing", "differ", "item_rng", "note_inherited", "seeding"]

_WORD = 0xFFFFFFFF

#: An odd number with random bits.
_MIX = 0x2C1B3C6D


# What a seed gives


def _key(hand: InHand, purpose: str) -> int:
    """Return 128 bits for the present item, that nothing else has."""
    from hashlib import blake2b  # most do without

    text = f"ordmap 1 {purpose} {hand.seed} {hand.label.epoch} {hand.index}"
    return int.from_bytes(blake2b(text.encode(), digest_size=16).digest())


def _word(hand: InHand, purpose: str) -> int:
    """Return 32 bits for the present item, that no other of its epoch has (of the first four thousand million)."""
    index = hand.index
    word = (index ^ (index >> 32) * _MIX) & _WORD
    for key in _word_keys(purpose, hand.seed, hand.label.epoch):  # each step can be undone
        word = (word ^ key) * _MIX & _WORD
        word ^= word >> 16
    return word


@lru_cache(maxsize=8)
def _word_keys(purpose: str, seed: int | None, epoch: int) -> tuple[int, ...]:
    """Return what makes of an index the words of an epoch."""
    from hashlib import blake2b

    return struct.unpack("<3I", blake2b(f"ordmap 1 {purpose} {seed} {epoch}".encode(), digest_size=12).digest())


@overload
def item_rng(kind: Literal["random"] = ...) -> random.Random: ...
@overload
def item_rng(kind: Literal["numpy"]) -> np.random.Generator: ...
def item_rng(kind: Literal["random", "numpy"] = "random") -> random.Random | np.random.Generator:
    """Return the random generator of the item that is being computed: a ``random.Random``.

    What it gives depends on the ``seed`` of the call, the epoch and the index alone: on every backend, whatever was
    computed before, and when an item is tried again. Without a ``seed`` it is seeded by chance. An item that asks again
    gets the same generator, which goes on. Outside of any item, it is a new one, seeded by chance. It costs 8 µs.

    Args:
        kind: ``"numpy"``: a ``numpy.random.Generator`` instead, with numbers of its own (12 µs).

    Attention: a thread that an item starts is not inside it. Have the generator before, and give it to the thread.

    Example:
        >>> from ordmap import ordered_map
        >>> def noisy(value):
        ...     return value + item_rng().random()
        >>> one = list(ordered_map(noisy, [1, 2, 3], workers=2, seed=7))
        >>> one == list(ordered_map(noisy, [1, 2, 3], workers=0, seed=7))
        True
    """
    if kind not in {"random", "numpy"}:
        raise ValueError(f"item_rng() has generators of 'random' and of 'numpy', not of {kind!r}")
    hand = in_hand()
    if hand is None:
        return _generator(kind, None)
    place = len(hand.outcomes)
    if hand.generators is None or hand.generators[0] != place:
        hand.generators = place, {}
    made = hand.generators[1]
    if kind not in made:
        made[kind] = _generator(kind, None if hand.seed is None else _key(hand, f"item {kind}"))
    found: random.Random | np.random.Generator = made[kind]
    return found


def _generator(kind: str, key: int | None) -> random.Random | np.random.Generator:
    if kind == "numpy":
        import numpy as np  # only for who uses it

        return np.random.Generator(np.random.PCG64(key))
    import random  # most do without

    return random.Random(key)  # noqa: S311  not for secrets


# The global generators


class _Global(Protocol):
    """A kind of global generator, in a module that may not be imported."""

    module: str

    def seed(self, hand: InHand) -> None:
        """Set it to the present item's numbers."""

    def differ(self) -> None:
        """Set it by chance, though another thread had it in hand when this process was forked."""

    def save(self) -> Any:
        """Return its state."""

    def restore(self, state: Any) -> None:
        """Set it to a state."""

    def trace(self) -> Any:
        """Return what says whether somebody has set or used it, and waits for nobody."""


class _Standard:
    module = "random"

    def seed(self, hand: InHand) -> None:
        sys.modules["random"].seed(_key(hand, "random"))

    def differ(self) -> None:
        """Do nothing: it does so itself after a fork."""

    def save(self) -> Any:
        return sys.modules["random"].getstate()

    def restore(self, state: Any) -> None:
        sys.modules["random"].setstate(state)

    def trace(self) -> Any:
        return None


class _Numpy:
    module = "numpy.random"

    @property
    def _random(self) -> Any:
        return sys.modules["numpy.random"]

    def seed(self, hand: InHand) -> None:
        word = _word(hand, "numpy")
        try:
            self._random.seed(word)  # of 32 bits: more of them take four times as long
        except TypeError:  # somebody has given it a generator of another kind
            bits = self._random.get_bit_generator()
            bits.state = type(bits)(word).state

    def differ(self) -> None:
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
        if not lock.acquire(blocking=False):
            return None
        lock.release()
        return pickle.dumps(self.save())


class _Torch:
    """PyTorch's for the processor, and for each CUDA device, which there are only once CUDA is in use."""

    module = "torch"

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
        word = _word(hand, "torch")  # of which the processor's generator uses 32 bits
        for generator in self._generators:
            generator.manual_seed(word)

    def _set_devices(self) -> None:
        """Set the generators of the devices, which have just begun to be used, for the present item."""
        hand = in_hand()
        if hand is None or hand.saved is None:
            return
        for generator in sys.modules["torch"].cuda.default_generators:
            hand.saved.setdefault(self.module, []).append((generator, generator.get_state()))
            generator.manual_seed(_word(hand, "torch"))

    def differ(self) -> None:
        sys.modules["torch"].default_generator.seed()  # a forked process can't use the devices

    def save(self) -> Any:
        return [(generator, generator.get_state()) for generator in self._generators]

    def restore(self, state: Any) -> None:
        for generator, own in state:
            generator.set_state(own)

    def trace(self) -> Any:
        return sys.modules["torch"].default_generator.initial_seed()


_GLOBALS: Mapping[str, _Global] = {kind.module: kind for kind in (_Standard(), _Numpy(), _Torch())}


def _loaded() -> list[_Global]:
    """Return the kinds that are imported, wholly."""
    found = []
    for name, kind in _GLOBALS.items():
        spec = getattr(sys.modules.get(name), "__spec__", None)
        if spec is not None and not getattr(spec, "_initializing", False):
            found.append(kind)
    return found


def seeding(compute: Callable[[Any], Any], hand: InHand) -> Callable[[Any], Any]:
    """Return a function that computes an item with the global generators set for it; for a worker process."""
    if _finder not in sys.meta_path:
        sys.meta_path.insert(0, _finder)

    def seed_and_compute(key: Any) -> Any:
        hand.saved = {}
        for kind in _loaded():
            kind.seed(hand)
        return compute(key)

    return seed_and_compute


def borrowing(compute: Callable[[Any], Any], hand: InHand) -> Callable[[Any], Any]:
    """Return a function that does so in the caller's process, and leaves the generators as they were."""

    def seed_and_compute(key: Any) -> Any:
        saved = hand.saved = {}
        finder = _Finder()
        try:
            sys.meta_path.insert(0, finder)
            for kind in _loaded():
                saved[kind.module] = kind.save()
                kind.seed(hand)
            return compute(key)
        finally:
            try:
                _give_back(finder, saved)
            except BaseException:  # Ctrl-C
                _give_back(finder, saved)
                raise

    return seed_and_compute


def _give_back(finder: _Finder, saved: Mapping[str, Any]) -> None:
    """Leave the global generators as they were; any number of times."""
    if finder in sys.meta_path:
        sys.meta_path.remove(finder)
    for name, state in saved.items():
        _GLOBALS[name].restore(state)


# Those that are imported in the midst of an item


class _Finder:
    """Among the interpreter's finders: sets a global generator that is first imported by an item."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname not in _GLOBALS:
            return None
        others = [finder for finder in sys.meta_path if not isinstance(finder, _Finder)]
        found = (finder.find_spec(fullname, path, target) for finder in others)
        spec = next((spec for spec in found if spec is not None), None)
        if spec is not None and spec.loader is not None:
            spec.loader = _SeedingLoader(spec.loader)  # type: ignore[assignment]  # it is one, but for its base
        return spec


class _SeedingLoader:
    """Loads a module as its own loader does, and sets its generator for the item that has it imported."""

    def __init__(self, loader: Any) -> None:
        self._loader = loader

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        made: ModuleType | None = self._loader.create_module(spec)
        return made

    def exec_module(self, module: ModuleType) -> None:
        if module.__spec__ is not None:
            module.__spec__.loader = self._loader
        module.__loader__ = self._loader
        self._loader.exec_module(module)
        hand = in_hand()
        if hand is not None and hand.saved is not None:
            kind = _GLOBALS[module.__name__]
            hand.saved[kind.module] = kind.save()
            kind.seed(hand)


#: That of a worker process.
_finder = _Finder()


# Without a seed


#: By module: what was inherited by this fork, unless it is known to be this process's own.
_inherited: dict[str, Any] = {}


def note_inherited() -> None:
    """Note in a process that was just forked what its global generators are."""
    _inherited.clear()
    for kind in _loaded():
        _inherited[kind.module] = kind.trace()


def differ(*, inherited: bool = False) -> None:
    """Set the global generators by chance; ``inherited``: those that nobody has set or used since `note_inherited`."""
    kinds = _loaded()
    if inherited:
        kinds = [kind for kind in kinds if kind.module in _inherited and _inherited[kind.module] == kind.trace()]
        _inherited.clear()
    for kind in kinds:
        kind.differ()
