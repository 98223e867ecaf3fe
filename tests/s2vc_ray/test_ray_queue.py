"""Which batch goes to which worker."""

from __future__ import annotations

from s2vc_ray.executor import GopBatch
from s2vc_ray.ray_pool import Member
from s2vc_ray.ray_queue import Job, JobQueue


def members(number: int) -> list[Member]:
    return [Member(f"actor {at}", None, 0.0, up=True) for at in range(number)]


def job(*, suspect: bool = False) -> Job:
    return Job(GopBatch(()), suspect=suspect)


def assigned(queue: JobQueue, to: list[Member], slots: int = 2, now: float = 0.0) -> list[tuple[Job, Member]]:
    done = []
    for one, member in queue.assign(to, slots, now):
        member.work.append(one)
        done.append((one, member))
    return done


def test_the_least_loaded_are_filled_first_and_no_further_than_their_slots() -> None:
    queue, (a, b) = JobQueue(), members(2)
    jobs = [job() for _ in range(5)]
    a.work.append("before")
    for one in jobs:
        queue.add(one)
    assert assigned(queue, [a, b]) == [(jobs[0], b), (jobs[1], a), (jobs[2], b)]
    assert len(queue) == 2


def test_a_suspect_has_a_worker_of_its_own() -> None:
    queue, (a, b) = JobQueue(), members(2)
    a.work.append("long")
    b.work += ["short", "shorter"]
    suspect, other, more = job(suspect=True), job(), job()
    queue.add(suspect)
    queue.add(other)
    assert assigned(queue, [a, b]) == []
    b.work.clear()
    assert assigned(queue, [a, b]) == [(other, b)]
    a.work.clear()
    assert assigned(queue, [a, b]) == [(suspect, a)]
    queue.add(more)
    assert assigned(queue, [a, b]) == [(more, b)]
    a.work.clear()
    suspect.leave(a)
    queue.add(last := job())
    assert assigned(queue, [a, b]) == [(last, a)]


def test_a_suspect_whose_worker_is_lost_gets_another() -> None:
    queue, (a, b) = JobQueue(), members(2)
    a.work.append("long")
    b.work += ["longer", "longest"]
    queue.add(suspect := job(suspect=True))
    assert assigned(queue, [a, b]) == []
    a.up = False
    b.work.clear()
    assert assigned(queue, [b]) == [(suspect, b)]


def test_suspects_never_take_more_than_half_of_the_workers() -> None:
    queue, workers = JobQueue(), members(5)
    for _ in range(9):
        queue.add(job(suspect=True))
    assert len(assigned(queue, workers)) == 2
    queue.add(one := job())
    assert assigned(queue, workers)[0][0] is one


def test_what_is_to_wait_waits() -> None:
    queue, workers = JobQueue(), members(1)
    queue.add(late := job(), due=10.0)
    queue.add(soon := job(), due=5.0)
    assert (queue.next_due, len(queue)) == (5.0, 2)
    assert assigned(queue, workers, now=4.9) == []
    assert [one for one, _ in assigned(queue, workers, now=5.0)] == [soon]
    assert [one for one, _ in assigned(queue, workers, now=11.0)] == [late]
