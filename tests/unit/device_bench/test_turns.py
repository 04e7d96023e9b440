"""Turns on one machine. Threads stand for processes: each has its own turn and its own open lock files."""

import tempfile
import threading

import pytest

from phonefit.device_bench.device_lock import DeviceBusyError, hold_device
from phonefit.device_bench.turns import alone, give_way, taking_turns
from phonefit.pipeline.folders import held


@pytest.fixture(autouse=True)
def own_locks(tmp_path, monkeypatch):
    """Other tests, and people, measure on this machine too."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))


class Worker(threading.Thread):
    """Runs a function as one of several workers, and keeps what it raised."""

    def __init__(self, work):
        super().__init__(daemon=True)
        self.work, self.error = work, None
        self.start()

    def run(self):
        try:
            with taking_turns():
                self.work()
        except BaseException as error:  # noqa: BLE001
            self.error = error

    def finish(self):
        self.join(60)
        assert not self.is_alive(), "it waits for ever"
        assert self.error is None


def test_who_computes_stops_between_two_steps_while_another_measures():
    begun, over, measuring = threading.Event(), threading.Event(), threading.Event()

    def compute():
        while not over.is_set():
            begun.set()
            give_way()
            assert not measuring.is_set()

    workers = [Worker(compute), Worker(compute)]
    begun.wait()
    for _ in range(20):
        with alone():
            measuring.set()
            assert not over.is_set()
            measuring.clear()
    over.set()
    for worker in workers:
        worker.finish()


def test_two_that_measure_take_turns_too():
    inside = []

    def measure():
        for _ in range(20):
            give_way()
            with alone():
                inside.append(1)
                assert len(inside) == 1
                inside.pop()

    for worker in [Worker(measure) for _ in range(3)]:
        worker.finish()


def test_who_waits_for_a_lock_does_not_hold_up_its_holder_who_waits_to_measure(tmp_path):
    has_the_lock, goes_on = threading.Event(), threading.Event()

    def measures_inside():
        with held(tmp_path / "key"):
            has_the_lock.set()
            goes_on.wait()
            with alone():
                pass

    def wants_the_lock():
        has_the_lock.wait()
        goes_on.set()
        with held(tmp_path / "key"):
            give_way()

    for worker in [Worker(measures_inside), Worker(wants_the_lock)]:
        worker.finish()


def test_a_worker_waits_for_a_device_that_is_busy_and_others_are_refused(tmp_path):
    with hold_device("phone", tmp_path):
        with pytest.raises(DeviceBusyError), hold_device("phone", tmp_path):
            pass

        def measure():
            with hold_device("phone", tmp_path):
                pass

        worker = Worker(measure)
        with alone():  # while it waits for the phone it keeps nobody from measuring
            assert worker.is_alive()
    worker.finish()
