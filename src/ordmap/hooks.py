"""What a dataset wants to have called when its epochs begin and end, as Keras calls it."""

from __future__ import annotations

from collections.abc import Callable

__all__ = ["call_hook", "check_hooks", "hook_of"]

BEGIN, END = "on_epoch_begin", "on_epoch_end"


def hook_of(dataset: object, name: str) -> Callable[[], object] | None:
    """Return what a dataset wants to have called, unless that does nothing, as Keras' own."""
    hook = getattr(dataset, name, None)
    code = getattr(hook, "__code__", None)
    if code is not None and (code.co_code, code.co_consts[-1:]) in _NOTHING:
        return None
    return hook if callable(hook) else None


def _nothing() -> None:
    pass


def _nothing_said() -> None:
    """Do nothing."""


_NOTHING = {(nothing.__code__.co_code, nothing.__code__.co_consts[-1:]) for nothing in (_nothing, _nothing_said)}


def check_hooks(dataset: object) -> None:
    """Refuse a dataset that could not be told of an epoch, before there is one."""
    for name in (BEGIN, END):
        hook = hook_of(dataset, name)
        if hook is None:
            continue
        import inspect  # few datasets have one

        try:
            inspect.signature(hook).bind()
        except TypeError:
            raise TypeError(f"{name} is called without arguments, and {hook!r} needs some") from None
        except ValueError:  # it doesn't say
            continue
        if inspect.iscoroutinefunction(hook):
            raise TypeError(f"{name} is called, not awaited: {hook!r} must be a plain function")


def call_hook(name: str, hook: Callable[[], object]) -> None:
    """Call what a dataset wants to have called."""
    try:
        hook()
    except StopIteration as error:  # it would silently end the loop
        raise RuntimeError(f"{name} raised StopIteration") from error
