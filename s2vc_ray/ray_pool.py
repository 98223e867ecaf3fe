"""How many workers there are: started, lost, given back. Decides; imports no Ray, so that every rule is tested.

While every slot is taken the pool grows, to twice its size at a time, so that a big cluster fills in a few
rounds and a small one is not flooded; workers that wait for room are how Ray's autoscaler learns what is wanted.
When work runs out, the superfluous go. Workers that are lost are replaced, without end; after losses with no batch
done between them ever later, up to a minute.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from s2vc_ray.counters import count
from s2vc_ray.usage import Usage

_FEWEST = 4
"""Workers that may be coming up at once however few there are."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Pace:
    """The executor's times, in seconds.

    Attributes:
        look: between looks at the cluster.
        idle: after which workers without work are given back.
        first_pause, longest_pause: before a lost worker is replaced or a batch sent again; doubles in between.
        linger: after which a batch is copied to an idle worker at the earliest; it is late at four times what its
            size usually takes. ``hopeless``: after which its worker is ended at the earliest; at forty times, or
            after 24 such spans while nobody knows what is usual.
        start: how long the job waits for its first worker; thereafter after how long one that does not come up is
            asked for anew.
        remind: between warnings that there are no workers.
    """

    look: float = 5.0
    idle: float = 180.0
    first_pause: float = 0.5
    longest_pause: float = 60.0
    linger: float = 120.0
    hopeless: float = 3600.0
    start: float = 900.0
    remind: float = 30.0


@dataclass(slots=True, eq=False)
class Member:
    """One worker.

    Attributes:
        actor: its handle; ``hello`` the answer that it owes while it is coming up.
        up: it has answered. ``leaving``: why it gets no more work, and goes when it has none; else empty.
        killed: this job ended it, so that what dies with it is no suspect.
        node: the node it is on; empty until it is up.
        work: what it has to do. ``reserved``: it is kept for a batch that is to run there alone.
        since: when it was started, or came up; ``idle_since``: when it last had work.
        usage: how it has spent its time, by its last answer. ``up_seconds``: how long it was up before ``since``.
    """

    actor: Any
    hello: Any
    since: float
    up: bool = False
    leaving: str = ""
    killed: bool = False
    node: str = ""
    work: list[Any] = field(default_factory=list)
    reserved: bool = False
    idle_since: float = 0.0
    usage: Usage = field(default_factory=Usage)
    up_seconds: float = 0.0

    @property
    def open(self) -> bool:
        """Whether it may be given work."""
        return self.up and not self.leaving


class Backoff:
    """Ever longer pauses between tries, until one succeeds."""

    def __init__(self, pace: Pace, clock: Callable[[], float]) -> None:
        self._pace = pace
        self._clock = clock
        self._fails = 0
        self.until = 0.0

    def failed(self) -> None:
        """Something failed. What fails during a pause is one failure with what began it."""
        now = self._clock()
        if now >= self.until:
            pause = min(self._pace.longest_pause, self._pace.first_pause * 2.0**self._fails)
            self._fails += 1
            self.until = now + pause * random.uniform(0.5, 1.0)  # noqa: S311

    def succeeded(self) -> None:
        """Something worked."""
        self._fails, self.until = 0, 0.0


class Pool:
    """The workers of a job.

    Args:
        start: starts one and returns its handle and the answer that it owes.
        stop: ends one.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        start: Callable[[], tuple[Any, Any]],
        stop: Callable[[Any], None],
        pace: Pace,
        clock: Callable[[], float],
    ) -> None:
        self._start = start
        self._stop = stop
        self._pace = pace
        self._clock = clock
        self._slack_since: float | None = None
        self.backoff = Backoff(pace, clock)
        self.members: list[Member] = []
        self.spent = Usage()

    lanes: int = 1
    """Batches of a worker that may be in its codec at once."""

    @property
    def open(self) -> list[Member]:
        """Workers that may be given work."""
        return [member for member in self.members if member.open]

    @property
    def coming(self) -> list[Member]:
        """Workers that are starting, or whose answer to whether they are still there is awaited."""
        return [member for member in self.members if not member.up]

    def add(self, number: int) -> None:
        """Start so many."""
        for _ in range(number):
            actor, hello = self._start()
            self.members.append(Member(actor, hello, self._clock()))
            count("workers_started")

    def admit(self, member: Member, node: str) -> None:
        """A worker has come up, or is there again."""
        member.up, member.hello, member.node = True, None, node
        member.since = member.idle_since = self._clock()

    def doubt(self, member: Member, hello: Any) -> None:
        """A worker did not answer; ``hello`` is asked of it, and until that comes it gets no work."""
        if member.up:
            now = self._clock()
            member.up_seconds += now - member.since
            member.up, member.hello, member.since = False, hello, now

    def drop(self, member: Member, reason: str, *, failed: bool = True) -> None:
        """End a worker, or forget one that is gone. ``failed``: replacing it may have to wait."""
        if member not in self.members:
            return
        self.members.remove(member)
        self.spent += self._used(member)
        member.up = False
        self._stop(member.actor)
        if failed:
            self.backoff.failed()
            count("workers_lost", reason=reason)
            _log.warning("a worker is gone (%s); %d are left", reason, len(self.open))
        else:
            count("workers_released", reason=reason)

    def tend(self, *, busy: bool | None, low: int, high: int) -> None:
        """Start and give back workers.

        Args:
            busy: every slot is taken, so that more workers had more to do. None: nobody can know yet.
            low, high: how many there should be at least and may be at most.
        """
        now = self._clock()
        for member in [m for m in self.members if m.leaving and not m.work]:
            self.drop(member, member.leaving)
        for member in self.coming:
            if now - member.since > self._pace.start:
                self.drop(member, "start_timeout")
        ready, held = len(self.open), len(self.open) + len(self.coming)
        self._slack_since = None if busy is not False else self._slack_since or now
        slack = self._slack_since is not None and now - self._slack_since >= self._pace.idle
        wanted = min(max(low, high), ready + max(_FEWEST, ready)) if busy else 0
        if held < max(low, wanted):
            if now >= self.backoff.until:
                self.add(max(low, wanted) - held)
        elif held > (low if slack else max(low, high)):
            self._give_back(held - (low if slack else max(low, high)), now)

    def usage(self) -> Usage:
        """How the time of all workers there were has been spent."""
        return sum(map(self._used, self.members), self.spent)

    def _give_back(self, number: int, now: float) -> None:
        """At most so many: the ones last asked for that are not up yet, then those idle for long."""
        starting = sorted(self.coming, key=lambda m: -m.since)
        idle = [m for m in self.open if not m.work and now - m.idle_since >= self._pace.idle]
        for member in (starting + idle)[: max(0, number)]:
            self.drop(member, "idle", failed=False)

    def _used(self, member: Member) -> Usage:
        """Its time is counted here: a worker's own last word on it may be long past."""
        seconds = member.up_seconds + (self._clock() - member.since if member.up else 0.0)
        return replace(member.usage, lane_seconds=self.lanes * seconds)
