import threading
import time

from runtime.fleeting import Fleeting
from tests.waiting import eventually


def test_what_was_put_is_there_for_a_while() -> None:
    held: Fleeting[str, str] = Fleeting(capacity=10)
    held.put("a", "1")
    assert (held.get("a"), held.get("b"), len(held)) == ("1", None, 1)


def test_it_is_forgotten_in_time_though_it_is_asked_for_all_the_while() -> None:
    held: Fleeting[str, str] = Fleeting(capacity=10, seconds=0.2)
    put_at = time.monotonic()
    held.put("a", "1")
    eventually(lambda: held.get("a") is None, what="it is forgotten", timeout=5)
    assert time.monotonic() - put_at < 1
    assert len(held) == 0


def test_an_idle_process_has_no_thread_for_it_once_all_is_forgotten() -> None:
    held: Fleeting[str, str] = Fleeting(capacity=10, seconds=0.05)
    held.put("a", "1")
    eventually(lambda: not len(held), what="it is forgotten")
    eventually(
        lambda: (
            not any(isinstance(thread, threading.Timer) and thread.interval < 0.05 for thread in threading.enumerate())
        ),
        what="the timer has ended",
    )
    held.put("b", "2")
    eventually(lambda: held.get("b") is None, what="what comes later is forgotten too")


def test_it_holds_no_more_than_it_may() -> None:
    held: Fleeting[int, int] = Fleeting(capacity=10)
    for number in range(100):
        held.put(number, number)
        assert len(held) <= 10
    assert held.get(99) == 99
    assert held.get(0) is None
