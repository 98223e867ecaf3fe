"""GOPs that wait for a worker: which ones make the next batch.

Videos stand in line in the order in which they were planned. The first few of one frame size are open, and
take turns, batch by batch: a long video holds up no short one, and since its GOPs may run anywhere it has all
workers to itself once the others are done, so the job's tail is short. A batch takes neighbouring GOPs of
one video while there are any, for they are decoded from the same stretch of its source, and fills up with the
next video's. Frame sizes take turns as well: GOPs of one batch must have one size. Pure: no I/O, no clock.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Iterable

from s2vc_ray.executor import GopBatch, GopTask

Size = tuple[int, int]


class GopQueue:
    """Tasks of planned videos, given out as batches.

    Args:
        batch: most GOPs of a batch.
        turns: how many videos of one size take turns.
    """

    def __init__(self, batch: int, turns: int = 4) -> None:
        self._batch = batch
        self._turns = turns
        self._lines: OrderedDict[Size, _Line] = OrderedDict()
        self._count = 0

    def __len__(self) -> int:
        """GOPs waiting."""
        return self._count

    def add(self, tasks: Iterable[GopTask]) -> None:
        """Put the GOPs of a video at the end of the line of their frame size."""
        for task in tasks:
            size = (task.spec.width, task.spec.height)
            self._lines.setdefault(size, _Line(self._turns)).add(task)
            self._count += 1

    def drop(self, video_id: str) -> list[GopTask]:
        """Forget a video's waiting GOPs and return them."""
        dropped = [task for line in self._lines.values() for task in line.drop(video_id)]
        self._count -= len(dropped)
        self._tidy()
        return dropped

    def take(self) -> GopBatch | None:
        """The next batch; None when nothing waits."""
        if not self._count:
            return None
        size, line = next(iter(self._lines.items()))
        tasks = line.take(self._batch)
        self._count -= len(tasks)
        self._lines.move_to_end(size)
        self._tidy()
        return GopBatch(tuple(tasks))

    def _tidy(self) -> None:
        for size in [size for size, line in self._lines.items() if not line.videos]:
            del self._lines[size]


class _Line:
    """Videos of one frame size: the first ``turns`` take turns, the others wait."""

    def __init__(self, turns: int) -> None:
        self.videos: dict[str, deque[GopTask]] = {}
        self._turns = turns
        self._open: deque[str] = deque()
        self._closed: OrderedDict[str, None] = OrderedDict()

    def add(self, task: GopTask) -> None:
        video = task.spec.video_id
        if video not in self.videos:
            self.videos[video] = deque()
            self._closed[video] = None
        self.videos[video].append(task)

    def drop(self, video: str) -> deque[GopTask]:
        if video in self._open:
            self._open.remove(video)
        self._closed.pop(video, None)
        return self.videos.pop(video, deque())

    def take(self, count: int) -> list[GopTask]:
        """The next video's next tasks, filled up with the tasks of those behind it."""
        tasks: list[GopTask] = []
        while self.videos and len(tasks) < count:
            while self._closed and len(self._open) < self._turns:
                self._open.append(self._closed.popitem(last=False)[0])
            video = self._open.popleft()
            waiting = self.videos[video]
            while waiting and len(tasks) < count:
                tasks.append(waiting.popleft())
            if waiting:
                self._open.append(video)
            else:
                del self.videos[video]
        return tasks
