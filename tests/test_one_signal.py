"""One signal, one call: of a handler, and of what an event loop has for it, wherever ordmap is at that instant."""

from __future__ import annotations

import asyncio
import signal
import socket
import threading

import pytest

from ordmap import Processes, Threads, ordered_map
from ordmap.engine import available
from ordmap.engine.pool import Crew
from ordmap.interrupts import postponed, uninterrupted
from test_interrupts import Interrupt, at, handling, interrupt, signalled
from test_engine import until

pytestmark = pytest.mark.skipif(not available(), reason="the engine is for Linux")


def arrive(number=signal.SIGUSR1, times=1):
    """Have a signal arrive through another thread, for the main thread doesn't take it now."""

    def send():
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [number])
        for _ in range(times):
            signal.pthread_kill(threading.get_ident(), number)  # a third thread might take it later

    sender = threading.Thread(target=send)
    sender.start()
    sender.join()


@pytest.mark.parametrize("section", [uninterrupted, lambda: postponed(lambda _: False, None)])
@pytest.mark.parametrize("number", [signal.SIGUSR1, signal.SIGTERM, signal.SIGHUP, signal.SIGRTMIN + 1])
def test_an_event_loop_s_callback_is_called_once(section, number):
    async def main():
        called = []
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(number, called.append, 1)
        try:
            with section():
                arrive(number)
            for _ in range(20):
                await asyncio.sleep(0.001)
        finally:
            loop.remove_signal_handler(number)
        return called

    assert asyncio.run(main()) == [1]


def test_an_event_loop_s_callback_is_called_once_while_a_pool_ends():
    async def main():
        called = []
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGUSR1, called.append, 1)
        results = ordered_map(abs, range(1000), workers=2, prefetch=4)
        next(results)
        threading.Thread(target=lambda: None).start()
        with signalled(at(Crew._leave)):
            results.close()
        for _ in range(20):
            await asyncio.sleep(0.001)
        loop.remove_signal_handler(signal.SIGUSR1)
        return called

    assert asyncio.run(main()) == [1]


@pytest.mark.parametrize("section", [uninterrupted, lambda: postponed(lambda _: False, None)])
def test_the_wake_up_descriptor_is_written_to_once(section):
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.setblocking(False)
        theirs.setblocking(False)
        called = []
        before = signal.set_wakeup_fd(theirs.fileno(), warn_on_full_buffer=False)
        try:
            with handling(SIGUSR1=lambda *_: called.append(1)), section():
                arrive()
            assert ours.recv(100) == bytes([signal.SIGUSR1])
        finally:
            assert signal.set_wakeup_fd(before) == theirs.fileno()
        assert called == [1]


def test_a_handler_gets_the_frame_that_it_interrupts():
    frames = []
    with handling(SIGUSR1=lambda _, frame: frames.append(frame)), uninterrupted():
        arrive()
    names = []
    frame = frames[0]
    while frame is not None:
        names.append(frame.f_code.co_name)
        frame = frame.f_back
    assert "test_a_handler_gets_the_frame_that_it_interrupts" in names


def test_handlers_of_several_signals_are_all_called_also_where_one_raises():
    called = []
    with handling(SIGUSR1=interrupt, SIGUSR2=lambda *_: called.append(2)):
        with pytest.raises(Interrupt), uninterrupted():
            arrive(signal.SIGUSR1)
            arrive(signal.SIGUSR2)
    assert called == [2]


def test_what_a_handler_raises_where_it_can_t_be_heard_comes_later_and_once():
    calls = []

    def handler(*_):
        calls.append(1)
        raise Interrupt

    heard = threading.Event()
    with handling(SIGUSR1=handler):
        with postponed(lambda _: not heard.is_set(), None):
            arrive()
        assert calls == [1]
        with pytest.raises(Interrupt):
            heard.set()
            until(lambda: False)
        assert signal.getsignal(signal.SIGUSR1) is handler
        with pytest.raises(Interrupt):
            signal.raise_signal(signal.SIGUSR1)
        assert calls == [1, 1]


def test_handlers_of_the_system_s_are_left_alone():
    with handling(SIGUSR1=signal.SIG_IGN, SIGUSR2=signal.SIG_DFL), uninterrupted():
        arrive(signal.SIGUSR1)
        assert signal.getsignal(signal.SIGUSR1) is signal.SIG_IGN
        assert signal.getsignal(signal.SIGUSR2) is signal.SIG_DFL


@pytest.mark.parametrize("kind", [Processes, Threads])
def test_ctrl_c_in_an_event_loop_cancels_its_task_once(kind):
    cancelled = []

    async def main():
        try:
            for result in ordered_map(abs, range(10_000), backend=kind(2), chunksize=1, prefetch=4):
                if result == 3:
                    with uninterrupted():
                        arrive(signal.SIGINT)
                await asyncio.sleep(0)
        except asyncio.CancelledError:
            cancelled.append(1)
            raise

    with pytest.raises(KeyboardInterrupt):
        asyncio.run(main())
    assert cancelled == [1]
