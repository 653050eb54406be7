"""Taking turns at a region, by threads and by whoever a step is interrupted by."""

from __future__ import annotations

import threading

import pytest
from trio.lowlevel import currently_ki_protected

import pagi_trio.metrics.application.turns as turns_module
from pagi_trio.metrics.application.region import REGION_BYTES, Region
from pagi_trio.metrics.application.turns import Turns

from .stores import stopping_at_each_line


@pytest.fixture
def turns():
    return Turns(Region(memoryview(bytearray(REGION_BYTES))))


def test_a_step_that_comes_in_the_middle_of_another_is_taken_after_it(turns):
    done = []

    def first():
        turns.take(lambda: done.append("second"))
        done.append("first")

    turns.take(first)
    assert done == ["first", "second"]


@pytest.mark.trio
async def test_ctrl_c_in_the_application_does_not_come_while_a_turn_is_taken(turns):
    """At no line of it, or the region would be taken for good, and no series would ever get a place again."""
    protected = []
    with stopping_at_each_line({turns_module.__file__}, lambda: protected.append(currently_ki_protected())):
        turns.take(protected.clear)
        turns.take(lambda: None)
    assert len(protected) > 5
    assert all(protected)
    assert not currently_ki_protected()


def test_a_thread_does_not_wait_for_the_step_of_another_which_takes_its_step_too(turns):
    begun, left = threading.Event(), threading.Event()
    done = []

    def long():
        begun.set()
        left.wait()
        done.append("long")

    thread = threading.Thread(target=turns.take, args=(long,))
    thread.start()
    begun.wait()
    turns.take(lambda: done.append("short"))
    assert done == []
    left.set()
    thread.join()
    assert done == ["long", "short"]


def test_what_comes_while_the_turn_is_held_is_done_at_its_end(turns):
    done = []
    with turns.hold():
        turns.take(lambda: done.append(1))
        assert done == []
    assert done == [1]


def test_a_family_belongs_to_whom_it_was_first(turns):
    one, other = object(), object()
    assert turns.claim("hits", one)
    assert turns.claim("hits", one)
    assert not turns.claim("hits", other)
    assert turns.claim("misses", other)


def test_a_child_takes_its_own_turn_though_a_thread_was_at_it(turns):
    done = []
    with turns.hold():
        turns.take(lambda: done.append("of the parent"))
        turns.begin_in_child()
        turns.take(lambda: done.append("of the child"))
        assert done == ["of the child"]
