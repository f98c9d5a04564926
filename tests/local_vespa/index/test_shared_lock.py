"""The lock of the tables: shared by searches, held alone by a write."""

import threading

from local_vespa.index.shared_lock import SharedLock

LONG = 30  # seconds: only a failure waits so long


def started(work):
    thread = threading.Thread(target=work)
    thread.start()
    return thread


def test_many_share_it():
    lock, together = SharedLock(), threading.Barrier(3)

    def share():
        with lock.shared():
            together.wait(LONG)

    for thread in [started(share) for _ in range(3)]:
        thread.join()
    assert not together.broken


def test_who_holds_it_alone_keeps_all_others_out():
    lock, count = SharedLock(), 0

    def add():
        nonlocal count
        for _ in range(200):
            with lock.alone():
                before = count
                with lock.shared(0) as got:
                    assert not got
                count = before + 1

    for thread in [started(add) for _ in range(3)]:
        thread.join()
    assert count == 600


def test_who_waits_to_hold_it_alone_goes_before_later_ones():
    lock, order = SharedLock(), []

    def write():
        with lock.alone():
            order.append("write")

    with lock.shared():
        writer = started(write)
        while True:  # until the writer waits
            with lock.shared(0) as got:
                if not got:
                    break
        assert order == []
    with lock.shared(LONG) as got:
        assert got and order == ["write"]
    writer.join()
