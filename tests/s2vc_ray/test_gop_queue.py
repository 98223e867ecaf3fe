"""Which GOPs make a batch: one frame size, neighbours first, videos in turn."""

from __future__ import annotations

from s2vc_ray.executor import GopTask
from s2vc_ray.gop_queue import GopQueue
from s2vc_ray.values import GopSpec


def video(name: str, gops: int, size: tuple[int, int] = (64, 48)) -> list[GopTask]:
    return [GopTask(GopSpec(name, name, n, 8 * n, (8 * n,), 0, 0, *size), name) for n in range(gops)]


def drain(queue: GopQueue) -> list[str]:
    """Every batch as text: ``a0 a1``."""
    out = []
    while batch := queue.take():
        out.append(" ".join(f"{task.spec.video_id}{task.spec.index}" for task in batch.tasks))
    assert len(queue) == 0
    return out


def test_neighbours_of_one_video_go_together() -> None:
    queue = GopQueue(batch=2)
    queue.add(video("a", 4))
    assert len(queue) == 4
    assert drain(queue) == ["a0 a1", "a2 a3"]


def test_a_short_batch_is_filled_with_the_next_video() -> None:
    queue = GopQueue(batch=4)
    for name, gops in (("a", 1), ("b", 2), ("c", 3)):
        queue.add(video(name, gops))
    assert drain(queue) == ["a0 b0 b1 c0", "c1 c2"]


def test_a_long_video_holds_up_no_short_one() -> None:
    queue = GopQueue(batch=1, turns=2)
    queue.add(video("long", 6))
    for name in ("a", "b", "c"):
        queue.add(video(name, 1))
    assert drain(queue) == ["long0", "a0", "long1", "b0", "long2", "c0", "long3", "long4", "long5"]


def test_only_so_many_videos_are_begun_at_once() -> None:
    queue = GopQueue(batch=1, turns=2)
    for name in "abc":
        queue.add(video(name, 2))
    assert drain(queue) == ["a0", "b0", "a1", "b1", "c0", "c1"]


def test_sizes_never_mix_and_take_turns() -> None:
    queue = GopQueue(batch=4)
    queue.add(video("a", 5))
    queue.add(video("b", 2, (32, 32)))
    assert drain(queue) == ["a0 a1 a2 a3", "b0 b1", "a4"]


def test_a_dropped_video_is_gone_and_the_others_are_not() -> None:
    queue = GopQueue(batch=1, turns=1)
    queue.add(video("a", 3))
    queue.add(video("b", 1))
    assert queue.take() is not None
    assert [task.spec.index for task in queue.drop("a")] == [1, 2]
    assert queue.drop("unknown") == []
    assert drain(queue) == ["b0"]
