"""``infra/kuberay`` renders, fits the schemas of its kinds, and says what a job on spot machines needs."""

from __future__ import annotations

import copy
import shlex
import shutil
import subprocess
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml
from ray.autoscaler._private.kuberay.autoscaling_config import _derive_autoscaling_config_from_ray_cr
from typer.main import get_command

from s2vc_ray.cli import app
from s2vc_ray.config import parse_workers
from tests.infra.kuberay_schema import SCHEMAS
from tests.infra.kustomize import Resource, pod_specs, render

KUBERAY = Path(__file__).parents[2] / "infra" / "kuberay"
KUBERNETES = "1.29"
TARGETS = sorted(
    path.parent.relative_to(KUBERAY / "overlays").as_posix() for path in KUBERAY.glob("overlays/*/*/*")
)
Spec = dict[str, Any]


@cache
def _rendered(target: str) -> list[Resource]:
    return render(KUBERAY / "overlays" / target)


def rendered(target: str) -> list[Resource]:
    return copy.deepcopy(_rendered(target))


def one(target: str, kind: str) -> Resource:
    (found,) = [resource for resource in rendered(target) if resource["kind"] == kind]
    return found


def cluster_spec(target: str) -> Spec:
    if target.endswith("/job"):
        spec: Spec = one(target, "RayJob")["spec"]["rayClusterSpec"]
        return spec
    cluster: Spec = one(target, "RayCluster")["spec"]
    return cluster


def ray_container(group: Spec) -> Spec:
    container: Spec = group["template"]["spec"]["containers"][0]
    return container


def check_core(resource: Resource) -> None:
    kubernetes_validate.validate(resource, KUBERNETES, strict=True)


def check_ray_kind(resource: Resource) -> None:
    """The kind's own fields by our schema, its pods and borrowed container fields by Kubernetes'."""
    jsonschema.validate(resource, SCHEMAS[resource["kind"]])
    spec = resource["spec"].get("rayClusterSpec", resource["spec"])
    for group in (spec["headGroupSpec"], *spec["workerGroupSpecs"]):
        pod = {
            "apiVersion": "v1",
            "kind": "PodTemplate",
            "metadata": {"name": "x"},
            "template": group["template"],
        }
        check_core(pod)
    borrowed = ("resources", "securityContext", "env", "envFrom", "volumeMounts", "image", "imagePullPolicy")
    options = spec.get("autoscalerOptions", {})
    container = {"name": "x", **{name: options[name] for name in borrowed if name in options}}
    check_core(
        {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "x"}, "spec": {"containers": [container]}}
    )


@pytest.mark.parametrize("target", TARGETS)
def test_every_object_fits_its_kind(target: str) -> None:
    kinds = set()
    for resource in rendered(target):
        kinds.add(resource["kind"])
        (check_ray_kind if resource["kind"] in SCHEMAS else check_core)(resource)
    ray_kind = "RayJob" if target.endswith("/job") else "RayCluster"
    assert kinds == {"NetworkPolicy", "PodDisruptionBudget", "ServiceAccount", ray_kind}


def test_there_is_a_cluster_and_a_job_for_each_place() -> None:
    assert {
        f"{place}/{what}" for place in ("aws-spot", "on-prem", "cpu-only") for what in ("cluster", "job")
    } == set(TARGETS)


@pytest.mark.skipif(not shutil.which("kubectl"), reason="kubectl is not installed")
@pytest.mark.parametrize("target", TARGETS)
def test_kustomize_itself_renders_the_same(target: str) -> None:
    shown = subprocess.run(
        ["kubectl", "kustomize", str(KUBERAY / "overlays" / target)],
        capture_output=True,
        text=True,
        check=True,
    )
    theirs = [document for document in yaml.safe_load_all(shown.stdout) if document]
    ours = rendered(target)
    assert sorted(theirs, key=lambda found: found["kind"]) == sorted(ours, key=lambda found: found["kind"])


def edited(resource: Resource, path: str, value: Any) -> Resource:
    """A copy with ``value`` at the dotted ``path``; numbers index lists."""
    changed = copy.deepcopy(resource)
    *parents, last = path.split(".")
    node: Any = changed
    for part in parents:
        node = node[int(part) if part.isdigit() else part]
    node[last] = value
    return changed


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("spec.shutdownAfterJobFinish", True),
        ("spec.ttlSecondsAfterFinished", "600"),
        ("spec.submitterConfig.backOffLimit", 3),
        ("spec.rayClusterSpec.authOptions.mode", "tokens"),
        ("spec.rayClusterSpec.autoscalerOptions.idleTimeoutSeconds", 60.5),
        ("spec.rayClusterSpec.autoscalerOptions.resources", {"limit": {"cpu": "1"}}),
        ("spec.rayClusterSpec.headGroupSpec.rayStartParams.num-cpus", 0),
        ("spec.rayClusterSpec.workerGroupSpecs.0.minReplica", 0),
        ("spec.rayClusterSpec.workerGroupSpecs.0.template.spec.terminationGracePeriodSecond", 115),
        ("spec.rayClusterSpec.workerGroupSpecs.0.template.spec.containers.0.lifecycle.prestop", {}),
        ("spec.rayClusterSpec.workerGroupSpecs.0.template.spec.tolerations", {"key": "spot"}),
        ("apiVersion", "ray.io/v1alpha1"),
    ],
)
def test_a_mistake_in_a_ray_kind_is_found(path: str, value: Any) -> None:
    job = one("aws-spot/job", "RayJob")
    check_ray_kind(job)
    with pytest.raises(jsonschema.ValidationError):
        check_ray_kind(edited(job, path, value))


@pytest.mark.parametrize(
    ("kind", "path", "value"),
    [
        ("ServiceAccount", "automountServiceAccountTokens", False),
        ("PodDisruptionBudget", "spec.minAvailables", 1),
        ("NetworkPolicy", "spec.policyTypes", "Ingress"),
    ],
)
def test_a_mistake_in_a_core_kind_is_found(kind: str, path: str, value: Any) -> None:
    resource = one("aws-spot/job", kind)
    check_core(resource)
    with pytest.raises(kubernetes_validate.ValidationError):
        check_core(edited(resource, path, value))


def test_the_loader_refuses_what_it_does_not_know(tmp_path: Path) -> None:
    (tmp_path / "kustomization.yaml").write_text("namePrefix: x-\n")
    with pytest.raises(ValueError, match="namePrefix"):
        render(tmp_path)


@pytest.mark.parametrize("target", TARGETS)
def test_rays_autoscaler_reads_the_cluster(target: str) -> None:
    named = {"metadata": {"name": "s2vc", "namespace": "s2vc"}, "spec": cluster_spec(target)}
    types = _derive_autoscaling_config_from_ray_cr(named)["available_node_types"]
    assert types["headgroup"]["resources"]["CPU"] == 0
    assert types["cpu"]["resources"]["CPU"] == 8
    assert "GPU" not in types["cpu"]["resources"]
    if target.startswith("cpu-only"):
        assert "gpu" not in types
        assert types["cpu"]["min_workers"] == 1
    else:
        assert types["gpu"]["resources"]["GPU"] == 1
        assert types["gpu"]["max_workers"] > types["gpu"]["min_workers"]


@pytest.mark.parametrize("target", TARGETS)
def test_the_cluster_runs_this_ray_with_its_token_and_without_telemetry(target: str) -> None:
    spec = cluster_spec(target)
    assert spec["rayVersion"] == version("ray")
    assert spec["authOptions"] == {"mode": "token"}
    for group in (spec["headGroupSpec"], *spec["workerGroupSpecs"]):
        env = {entry["name"]: entry.get("value") for entry in ray_container(group)["env"]}
        # The operator sets the token's variables itself; ours would stand in its way.
        assert not {"RAY_AUTH_MODE", "RAY_AUTH_TOKEN"} & set(env)
        assert env["RAY_USAGE_STATS_ENABLED"] == "0"
        assert env["OMP_WAIT_POLICY"] == "passive"


@pytest.mark.parametrize("target", TARGETS)
def test_pods_are_unprivileged_bounded_and_probed(target: str) -> None:
    spec = cluster_spec(target)
    for group in (spec["headGroupSpec"], *spec["workerGroupSpecs"]):
        pod, container = group["template"]["spec"], ray_container(group)
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["runAsUser"] == 1000
        assert container["securityContext"]["allowPrivilegeEscalation"] is False
        assert container["resources"]["requests"] == container["resources"]["limits"]
        assert container["readinessProbe"]["httpGet"]
        assert container["livenessProbe"]["httpGet"]
        assert pod["serviceAccountName"] == one(target, "ServiceAccount")["metadata"]["name"]
        mounts = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
        volumes = {volume["name"]: volume for volume in pod["volumes"]}
        assert set(mounts) == set(volumes)
        env = {entry["name"]: entry.get("value") for entry in container["env"]}
        assert mounts["scratch"] == env["TMPDIR"]
        for volume in volumes.values():
            assert volume.get("emptyDir", {}).get("sizeLimit") or volume["ephemeral"]["volumeClaimTemplate"]


@pytest.mark.parametrize("target", TARGETS)
def test_a_preempted_worker_has_time_to_drain(target: str) -> None:
    for group in cluster_spec(target)["workerGroupSpecs"]:
        pod = group["template"]["spec"]
        command = ray_container(group)["lifecycle"]["preStop"]["exec"]["command"]
        seconds = int(command[command.index("--seconds") + 1])
        # AWS takes a spot machine back two minutes after its notice.
        assert seconds + 10 <= pod["terminationGracePeriodSeconds"] < 120


def test_spot_workers_go_to_spot_machines_and_the_head_does_not() -> None:
    spec = cluster_spec("aws-spot/cluster")
    key = "eks.amazonaws.com/capacityType"
    assert spec["headGroupSpec"]["template"]["spec"]["nodeSelector"][key] == "ON_DEMAND"
    for group in spec["workerGroupSpecs"]:
        pod = group["template"]["spec"]
        assert pod["nodeSelector"][key] == "SPOT"
        assert {"key": "spot", "operator": "Equal", "value": "true", "effect": "NoSchedule"} in pod[
            "tolerations"
        ]
    gpu = spec["workerGroupSpecs"][0]["template"]["spec"]
    assert {"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"} in gpu["tolerations"]
    role = one("aws-spot/cluster", "ServiceAccount")["metadata"]["annotations"]["eks.amazonaws.com/role-arn"]
    assert role.startswith("arn:aws:iam::")


@pytest.mark.parametrize("target", TARGETS)
def test_no_secret_is_written_down(target: str) -> None:
    for resource in rendered(target):
        assert resource["kind"] != "Secret"
        for pod in pod_specs(resource):
            for container in pod["containers"]:
                for entry in container.get("env", ()):
                    secret = any(word in entry["name"] for word in ("KEY", "SECRET", "TOKEN", "PASSWORD"))
                    assert not (secret and "value" in entry), entry["name"]


def test_own_machines_keep_scratch_on_volumes_and_keys_in_a_secret() -> None:
    spec = cluster_spec("on-prem/job")
    for group in (spec["headGroupSpec"], *spec["workerGroupSpecs"]):
        (scratch,) = [found for found in group["template"]["spec"]["volumes"] if found["name"] == "scratch"]
        assert scratch["ephemeral"]["volumeClaimTemplate"]["spec"]["resources"]["requests"]["storage"]
        assert ray_container(group)["envFrom"] == [{"secretRef": {"name": "s2vc-s3"}}]


@pytest.mark.parametrize("place", ["aws-spot", "on-prem", "cpu-only"])
def test_a_job_cleans_up_after_itself_and_its_command_is_one_of_ours(place: str) -> None:
    spec = one(f"{place}/job", "RayJob")["spec"]
    assert spec["shutdownAfterJobFinishes"] is True
    assert spec["ttlSecondsAfterFinished"] > 0
    assert spec["activeDeadlineSeconds"] > 0
    assert spec["submitterConfig"]["backoffLimit"] > 0
    assert spec["rayClusterSpec"] == cluster_spec(f"{place}/cluster")

    words = shlex.split(spec["entrypoint"])
    assert words[:3] == ["python", "-m", "jobs.compress"]
    command = get_command(app).commands["compress"]  # type: ignore[attr-defined]
    options = command.make_context("compress", words[3:]).params
    assert len(options["paths"]) == 2
    assert options["device"] == ("cpu" if place == "cpu-only" else "cuda")
    # An encoder that asks for more cores than a worker has is never placed.
    names = [group["groupName"] for group in spec["rayClusterSpec"]["workerGroupSpecs"]]
    group = spec["rayClusterSpec"]["workerGroupSpecs"][names.index("cpu" if place == "cpu-only" else "gpu")]
    assert options["threads"] <= int(ray_container(group)["resources"]["limits"]["cpu"])
    low, high = parse_workers(options["workers"])
    assert group["minReplicas"] <= low < high <= group["maxReplicas"]
    ports = {
        port["name"]: port["containerPort"]
        for port in ray_container(spec["rayClusterSpec"]["headGroupSpec"])["ports"]
    }
    assert (options["metrics_host"], options["metrics_port"]) == ("0.0.0.0", ports["job-metrics"])
    assert options["log"] == "-"
