"""A system that refuses processes, threads or semaphores: the data are prepared with fewer."""

from __future__ import annotations

import threading

import pytest

from data_utils.system.processes import limit_workers


@pytest.fixture
def limit_threads(monkeypatch):
    """Let this process start so many threads at a time, as a limit on processes does for a user (not for root)."""
    start = threading.Thread.start

    def limit(count):
        room = threading.active_count() + count

        def refuse(thread):
            if threading.active_count() >= room:
                raise RuntimeError("can't start new thread")
            start(thread)

        monkeypatch.setattr(threading.Thread, "start", refuse)

    return limit


@pytest.mark.parametrize(("room", "expected"), [(0, 1), (9, 1), (13, 2), (15, 3), (16, 4), (99, 4)])
def test_no_more_processes_than_their_threads_find_room_for(limit_threads, room, expected, caplog):
    limit_threads(room)
    assert limit_workers(4) == expected
    assert (f"allows for {expected} processes in place of 4" in caplog.text) is (expected < 4)


def test_without_semaphores_one_process_works_alone(monkeypatch, caplog):
    def refuse(*_):
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr("_multiprocessing.SemLock", refuse)
    assert limit_workers(4) == 1
    assert "allows for 1 processes" in caplog.text
