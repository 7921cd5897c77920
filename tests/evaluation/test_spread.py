"""Work among lanes that fail and die: nothing lost, nothing twice."""

import random
import threading
import time
from collections import Counter

import pytest
from ella_lmd.evaluation.spread import TRIES, LaneDied, spread


class Lane:
    """Does a job by `act(job)`."""

    def __init__(self, name, act, revives=True):
        self.name, self.act, self.revives, self.busy = name, act, revives, 0

    def do(self, job):
        self.busy += 1
        assert self.busy == 1, "one outstanding job"
        try:
            return self.act(job)
        finally:
            self.busy -= 1

    def revive(self):
        return self.revives

    def close(self):
        self.closed = True


def collect(jobs, lanes, **more):
    found, lost = [], {}
    spread(
        jobs, lanes, lambda job, result, lane: found.append((job, result, lane)), lost.__setitem__, pause=0.01, **more
    )
    return found, lost


def sometimes(rng, error):
    def act(job):
        time.sleep(rng.random() / 1000)
        if rng.random() < 0.2:
            raise error
        return -job

    return act


def test_every_job_is_done_once_by_lanes_that_die_and_come_back():
    lanes = [Lane(f"lane {i}", sometimes(random.Random(i), LaneDied("gone"))) for i in range(4)]
    found, lost = collect(range(100), lanes)
    assert Counter([*(job for job, *_ in found), *lost]) == Counter(range(100))
    assert len(lost) < 10 and all(result == -job for job, result, _ in found)
    assert all(lane.closed for lane in lanes)


def test_a_dead_lanes_job_goes_to_another():
    started = threading.Event()

    def die(job):
        started.set()
        raise LaneDied("connection refused")

    def slow(job):
        started.wait(5)
        return job

    found, lost = collect(list("abcdef"), [Lane("dead", die, revives=False), Lane("alive", slow)])
    assert sorted(job for job, *_ in found) == list("abcdef") and not lost
    assert {lane for *_, lane in found} == {"alive"}


def test_a_job_that_always_fails_is_told_with_its_reason_and_the_rest_is_done():
    seen = Counter()

    def act(job):
        seen[job] += 1
        if job == 3:
            raise ValueError("no such node")
        return job

    found, lost = collect(range(6), [Lane("one", act)])
    assert len(found) == 5 and lost == {3: "one: ValueError: no such node"} and seen[3] == TRIES


def test_when_all_lanes_are_dead_the_work_stops_and_says_so():
    def die(job):
        raise LaneDied("connection refused")

    with pytest.raises(RuntimeError, match="nothing is left to work with.*connection refused.*to go on"):
        collect(range(6), [Lane(n, die, revives=False) for n in "ab"], patience=0.3)


def test_an_error_in_keeping_a_result_ends_the_work():
    def full(*_):
        raise OSError("no space left on device")

    with pytest.raises(OSError, match="no space"):
        spread(range(6), [Lane("one", lambda job: job)], full, lambda *_: None)


def test_no_work_needs_no_lane():
    assert collect([], []) == ([], {})
