"""Whose fault a Ray error is, and what has become of the actor."""

from __future__ import annotations

import pytest
from ray import ObjectRef
from ray.core.generated.common_pb2 import ActorDiedErrorContext, NodeDeathInfo
from ray.exceptions import (
    ActorDiedError,
    ActorUnavailableError,
    ActorUnschedulableError,
    LocalRayletDiedError,
    NodeDiedError,
    ObjectLostError,
    OutOfMemoryError,
    RayError,
    RaySystemError,
    RuntimeEnvSetupError,
)

from s2vc_ray.ray_faults import Actor, diagnose

CRASHED = (
    "The actor is dead because its worker process has died. Worker exit type: SYSTEM_ERROR Worker exit detail: "
    "Worker unexpectedly exits with a connection error code 2. End of file. Some common causes include: (1) the "
    "process was killed by the OOM killer due to high memory usage, (2) ray stop --force was called"
)
MEMORY = "1 worker(s) were killed due to the node running low on memory."
NODE = "The actor died because its node has died. Node Id: 00"


def died(text: str, *, preempted: bool = False) -> ActorDiedError:
    reason = NodeDeathInfo.AUTOSCALER_DRAIN_PREEMPTED if preempted else NodeDeathInfo.UNSPECIFIED
    return ActorDiedError(
        ActorDiedErrorContext(
            error_message=text, actor_id=b"\0" * 16, node_death_info=NodeDeathInfo(reason=reason)
        )
    )


@pytest.mark.parametrize(
    ("error", "reason", "actor", "suspect"),
    [
        (died(CRASHED), "worker_died", Actor.GONE, True),
        (died(MEMORY), "host_memory", Actor.GONE, True),
        (OutOfMemoryError(MEMORY), "host_memory", Actor.GONE, True),
        (died(NODE), "node_lost", Actor.GONE, False),
        (died("", preempted=True), "preempted", Actor.GONE, False),
        (NodeDiedError("gone"), "node_lost", Actor.GONE, False),
        (LocalRayletDiedError(), "node_lost", Actor.GONE, False),
        (ActorUnavailableError("socket closed", None), "unavailable", Actor.UNSURE, False),
        (ActorUnschedulableError("no such node"), "unschedulable", Actor.GONE, False),
        (RuntimeEnvSetupError("no"), "environment", Actor.GONE, False),
        (ObjectLostError(ObjectRef.nil().hex(), b"", ""), "result_lost", Actor.FINE, False),
        (RaySystemError("rpc"), "ray", Actor.UNSURE, False),
    ],
)
def test_diagnosis(error: RayError, reason: str, actor: Actor, suspect: bool) -> None:
    fault = diagnose(error)
    assert (fault.reason, fault.actor, fault.suspect) == (reason, actor, suspect)


def test_what_is_told_is_what_happened() -> None:
    assert diagnose(died(CRASHED)).text.startswith("The actor is dead because its worker process has died.")
    assert len(diagnose(OutOfMemoryError(MEMORY + " Consider this." * 100)).text) <= 400
