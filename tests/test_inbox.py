"""Where threads leave what the caller is to collect."""

from __future__ import annotations

import signal
import threading
import time
from queue import Empty, SimpleQueue

import pytest

from ordmap.backends.inbox import Inbox


def test_what_is_put_in_comes_out_in_order_and_waits_end():
    inbox = Inbox()
    assert inbox.empty()
    inbox.put(1)
    inbox.put(2)
    assert [inbox.get(), inbox.get(timeout=5)] == [1, 2]
    for timeout in (0.0, 0.01, 0.3):
        began = time.monotonic()
        with pytest.raises(Empty):
            inbox.get(timeout=timeout)
        assert time.monotonic() - began >= timeout
    later = threading.Timer(0.3, inbox.put, [3])
    later.start()
    assert inbox.get() == 3
    later.join()


def test_a_signal_that_another_thread_receives_is_handled_soon():
    """As one is that comes right before the main thread begins to wait, and so does not wake it."""
    inbox = Inbox()
    called = []
    before = signal.signal(signal.SIGUSR1, lambda *_: called.append(time.monotonic()) or inbox.put("handled"))
    go_on = threading.Event()

    def send():
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGUSR1})
        time.sleep(0.1)
        signal.pthread_kill(threading.get_ident(), signal.SIGUSR1)
        go_on.wait(20)

    thread = threading.Thread(target=send)
    thread.start()
    try:
        assert inbox.get(timeout=20) == "handled"
    finally:
        go_on.set()
        thread.join()
        signal.signal(signal.SIGUSR1, before)
    assert len(called) == 1
    assert isinstance(inbox._queue, SimpleQueue)
