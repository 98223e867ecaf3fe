"""What a Ray error means for the batch that met it and for the actor that ran it.

Two questions decide everything. Whose fault may it be? A lost node, a preemption or an object that got lost says
nothing about the GOPs: the batch is tried again, without limit. A process that died may have been killed by its GOPs:
the batch becomes a suspect. And is the actor still there?
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from ray.exceptions import (
    ActorDiedError,
    ActorPlacementGroupRemoved,
    ActorUnavailableError,
    ActorUnschedulableError,
    LocalRayletDiedError,
    NodeDiedError,
    ObjectLostError,
    OutOfMemoryError,
    PlasmaObjectNotAvailable,
    RayError,
    RayTaskError,
    RuntimeEnvSetupError,
    WorkerCrashedError,
)


class Actor(Enum):
    """What has become of the actor."""

    FINE = "fine"
    UNSURE = "unsure"
    GONE = "gone"


@dataclass(frozen=True, slots=True)
class Fault:
    """One failed call.

    Attributes:
        reason: a short name for counters and logs.
        actor: what has become of the actor.
        suspect: whether the batch may have caused it.
        error_class: under which a batch that is given up for it is reported.
        text: the error's own words, as far as they say what happened.
    """

    reason: str
    actor: Actor
    suspect: bool
    error_class: str
    text: str


_LONGEST = 400
_NAMES = ("class_name:", "actor_id:", "pid:", "name:", "namespace:", "ip:", ActorDiedError.BASE_ERROR_MSG)
_NODE = ("node has died", "node was terminated", "received sigterm", "preempted")
_MEMORY = ("running low on memory", "memory monitor", "due to the node running low", "oom killing policy")


def diagnose(error: RayError) -> Fault:
    """The fault behind ``error``, which is no `RayTaskError`: those are exceptions of the called code."""
    text = _told(error)
    if isinstance(error, OutOfMemoryError):
        return Fault("host_memory", Actor.GONE, True, "HostOutOfMemory", text)
    if isinstance(error, ActorDiedError):
        return _death(error, text)
    for kind, reason, actor in _KINDS:
        if isinstance(error, kind):
            return Fault(reason, actor, False, type(error).__name__, text)
    return Fault("ray", Actor.UNSURE, False, type(error).__name__, text)


def cause_of(error: RayTaskError) -> BaseException:
    """The exception that the called code raised."""
    cause = getattr(error, "cause", None)
    return cause if isinstance(cause, BaseException) else error


_KINDS: tuple[tuple[type[RayError], str, Actor], ...] = (
    (ActorUnavailableError, "unavailable", Actor.UNSURE),
    (ActorUnschedulableError, "unschedulable", Actor.GONE),
    (ActorPlacementGroupRemoved, "unschedulable", Actor.GONE),
    (RuntimeEnvSetupError, "environment", Actor.GONE),
    (NodeDiedError, "node_lost", Actor.GONE),
    (LocalRayletDiedError, "node_lost", Actor.GONE),
    (WorkerCrashedError, "worker_died", Actor.GONE),
    (ObjectLostError, "result_lost", Actor.FINE),
    (PlasmaObjectNotAvailable, "result_lost", Actor.FINE),
)


def _told(error: RayError) -> str:
    """Without Ray's advice at the end, and its table of names at the beginning."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if isinstance(error, ActorDiedError):
        lines = [line for line in lines if not line.startswith(_NAMES)]
    return " ".join(lines)[:_LONGEST]


def _death(error: ActorDiedError, text: str) -> Fault:
    said = str(error).lower()
    if error.preempted:
        return Fault("preempted", Actor.GONE, False, "WorkerDied", text)
    if any(sign in said for sign in _MEMORY):
        return Fault("host_memory", Actor.GONE, True, "HostOutOfMemory", text)
    if any(sign in said for sign in _NODE):
        return Fault("node_lost", Actor.GONE, False, "WorkerDied", text)
    return Fault("worker_died", Actor.GONE, True, "WorkerDied", text)
