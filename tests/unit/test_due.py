"""The index of lapsing people against a plain dictionary, and whose turn it is."""

from __future__ import annotations

from threading import Event, Thread

from hypothesis import given
from hypothesis import strategies as st

from twofold.spark.due import Due
from twofold.spark.turns import Turns

_PUTS = st.lists(st.tuples(st.sampled_from("abcde"), st.one_of(st.none(), st.integers(0, 30))), max_size=6)


@given(st.lists(st.tuples(_PUTS, st.integers(0, 25), st.integers(1, 3)), max_size=8))
def test_due_is_the_plain_dictionary(steps):
    due, plain = Due(20), {}
    for puts, now, limit in steps:
        due.put(puts)
        plain.update(puts)
        lapsed = {p for p, until in plain.items() if until is not None and until <= now and until < 20}
        taken = due.take(now, limit)
        assert set(taken) <= lapsed and len(taken) == len(set(taken)) == min(limit, len(lapsed))
        times = [plain.pop(person) for person in taken]
        assert times == sorted(times)
        assert len(due) == sum(until is not None and until < 20 for until in plain.values())


def test_a_live_batch_goes_before_the_next_chunk():
    turns, order = Turns(), []
    in_first, go_on = Event(), Event()

    def refresh():
        for number in range(3):
            with turns.background():
                order.append(f"chunk {number}")
                if number == 0:
                    in_first.set()
                    assert go_on.wait(30)

    def live():
        with turns.live():
            order.append("live")

    threads = [Thread(target=refresh), Thread(target=live)]
    threads[0].start()
    assert in_first.wait(30)
    threads[1].start()
    while not turns._live:
        pass
    go_on.set()
    for thread in threads:
        thread.join(30)
    assert order == ["chunk 0", "live", "chunk 1", "chunk 2"]


def test_a_turn_ends_with_its_error():
    turns = Turns()
    for turn in (turns.live, turns.background):
        try:
            with turn():
                raise ValueError
        except ValueError:
            pass
    with turns.live():
        pass
