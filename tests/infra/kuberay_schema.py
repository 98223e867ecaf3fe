"""The fields of KubeRay's ``ray.io/v1`` kinds that ``infra/kuberay`` uses, as a strict JSON schema of our own.

KubeRay's generated definitions are in no Python package and not ours to copy, so this names the fields, after
the KubeRay 1.6 API reference, and refuses every other: a misspelt or misplaced field fails. Pod templates, and
the parts of a container that `autoscalerOptions` borrows, are left open here (``{"type": "object"}``):
Kubernetes' own schema checks them.
"""

from __future__ import annotations

from typing import Any


def _closed(required: tuple[str, ...] = (), **properties: Any) -> dict[str, Any]:
    return {
        "type": "object",
        "additionalProperties": False,
        "required": list(required),
        "properties": properties,
    }


_COUNT = {"type": "integer", "minimum": 0, "maximum": 2**31 - 1}
_TEXT = {"type": "string", "minLength": 1}
_CORE = {"type": "object"}
# Go decodes these maps into map[string]string: an unquoted number or boolean is refused by the API server.
_START_PARAMS = {"type": "object", "additionalProperties": {"type": "string"}}

_AUTOSCALER = _closed(
    idleTimeoutSeconds=_COUNT,
    upscalingMode={"enum": ["Default", "Aggressive", "Conservative"]},
    image=_TEXT,
    imagePullPolicy={"enum": ["Always", "IfNotPresent", "Never"]},
    resources=_CORE,
    securityContext=_CORE,
    env={"type": "array", "items": _CORE},
    envFrom={"type": "array", "items": _CORE},
    volumeMounts={"type": "array", "items": _CORE},
)
_HEAD = _closed(
    ("template",),
    serviceType={"enum": ["ClusterIP", "NodePort", "LoadBalancer"]},
    enableIngress={"type": "boolean"},
    rayStartParams=_START_PARAMS,
    template=_CORE,
)
_WORKERS = _closed(
    ("groupName", "minReplicas", "maxReplicas", "template"),
    groupName=_TEXT,
    replicas=_COUNT,
    minReplicas=_COUNT,
    maxReplicas=_COUNT,
    numOfHosts=_COUNT,
    rayStartParams=_START_PARAMS,
    template=_CORE,
)
CLUSTER_SPEC = _closed(
    ("headGroupSpec",),
    rayVersion={"type": "string", "pattern": r"^\d+\.\d+\.\d+$"},
    authOptions=_closed(mode={"enum": ["disabled", "token"]}, secretName=_TEXT),
    enableInTreeAutoscaling={"type": "boolean"},
    autoscalerOptions=_AUTOSCALER,
    headGroupSpec=_HEAD,
    workerGroupSpecs={"type": "array", "items": _WORKERS},
    suspend={"type": "boolean"},
)
JOB_SPEC = _closed(
    ("entrypoint", "rayClusterSpec"),
    entrypoint=_TEXT,
    runtimeEnvYAML=_TEXT,
    submissionMode={"enum": ["K8sJobMode", "HTTPMode", "InteractiveMode", "SidecarMode"]},
    entrypointNumCpus={"type": "number", "minimum": 0},
    entrypointNumGpus={"type": "number", "minimum": 0},
    backoffLimit=_COUNT,
    submitterConfig=_closed(backoffLimit=_COUNT),
    submitterPodTemplate=_CORE,
    shutdownAfterJobFinishes={"type": "boolean"},
    ttlSecondsAfterFinished=_COUNT,
    activeDeadlineSeconds={**_COUNT, "minimum": 1},
    suspend={"type": "boolean"},
    rayClusterSpec=CLUSTER_SPEC,
)


def _kind(name: str, spec: dict[str, Any]) -> dict[str, Any]:
    return _closed(
        ("apiVersion", "kind", "metadata", "spec"),
        apiVersion={"const": "ray.io/v1"},
        kind={"const": name},
        metadata=_CORE,
        spec=spec,
    )


SCHEMAS = {"RayCluster": _kind("RayCluster", CLUSTER_SPEC), "RayJob": _kind("RayJob", JOB_SPEC)}
