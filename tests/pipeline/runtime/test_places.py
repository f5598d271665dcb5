"""Places in a worker, and what the ledger makes of a death among several videos."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from pipeline.runtime.places import Places
from pipeline.tracking.attempts import Ledger


def test_one_is_alone_and_the_others_are_beside_each_other():
    places, lock = Places(), threading.Lock()
    inside, most, together = [], [], threading.Barrier(3, timeout=30)

    def work(number):
        alone = number >= 3
        with places.alone() if alone else places.beside():
            with lock:
                inside.append(number)
                most.append(sorted(inside))
            if not alone:
                together.wait()  # all three are here at the same time
            with lock:
                assert not alone or inside == [number]
                inside.remove(number)

    with ThreadPoolExecutor(5) as pool:
        list(pool.map(work, range(5)))
    assert [0, 1, 2] in most and [3] in most and [4] in most


def test_nobody_starts_before_one_that_waits_to_be_alone():
    places, order, begun, leave = Places(), [], threading.Event(), threading.Event()

    def first():
        with places.beside():
            begun.set()
            leave.wait(30)
            order.append("first")

    def suspect():
        with places.alone():
            order.append("suspect")

    def late():
        with places.beside():
            order.append("late")

    threads = [threading.Thread(target=first)]
    threads[0].start()
    assert begun.wait(30)
    for target in (suspect, late):
        threads.append(threading.Thread(target=target))
        threads[-1].start()
        while target is suspect and not places._for_themselves:
            pass
    assert order == []
    leave.set()
    for thread in threads:
        thread.join(30)
    assert order == ["first", "suspect", "late"]


def test_an_error_gives_the_place_back():
    places = Places()
    for place in (places.alone, places.beside, places.alone):
        with pytest.raises(KeyError), place():
            raise KeyError


def test_a_death_beside_others_is_a_third_of_a_death(tmp_path):
    ledger = Ledger(str(tmp_path), "run", in_process=True)
    for wanted in (0, 0, 1):
        ledger.begin("v", alone=False)
        assert ledger.deaths(ledger.entries("v")) == wanted
    ledger.begin("v")
    assert ledger.deaths(ledger.entries("v")) == 2
    ledger.forget(["v"], run="run")
    assert ledger.entries("v") == set()
