"""The cluster files of `ray up` pass Ray's own schema and loader, and start Ray as the job needs it."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import botocore.session
import jsonschema
import pytest
import yaml
from botocore.validate import ParamValidator
from ray.autoscaler._private.util import prepare_config, validate_config

FOLDER = Path(__file__).parents[2] / "infra" / "ray-up"
NAMES = ("aws", "gcp", "on-prem")


def load(name: str) -> dict[str, Any]:
    config: dict[str, Any] = yaml.safe_load((FOLDER / f"{name}.yaml").read_text())
    return config


def prepared(config: dict[str, Any]) -> dict[str, Any]:
    """As `ray up` reads it: its provider's defaults filled in, then checked."""
    ready: dict[str, Any] = prepare_config(copy.deepcopy(config))
    validate_config(ready)
    return ready


def test_every_file_is_known_here() -> None:
    assert {path.stem for path in FOLDER.glob("*.yaml")} == set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_ray_reads_the_file(name: str) -> None:
    config = prepared(load(name))
    assert config["cluster_name"] == "s2vc"
    assert config["docker"]["image"].startswith("registry.example.com/s2vc-ray:")
    # Ray's defaults for these would install another Ray over the image's.
    for kind in ("setup_commands", "head_setup_commands", "worker_setup_commands"):
        assert config[kind] == []


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("docker", "images"), "x"),
        (("auth", "ssh_usr"), "ubuntu"),
        (("max_workers",), "16"),
        (("available_node_types", "gpu", "min_worker"), 1),
        (("available_node_types", "gpu", "resources"), {"CPU": "8"}),
    ],
)
def test_a_mistake_is_found(path: tuple[str, ...], value: Any) -> None:
    config = load("aws")
    node = config
    for part in path[:-1]:
        node = node[part]
    node[path[-1]] = value
    with pytest.raises(jsonschema.ValidationError):
        prepared(config)


def test_a_head_of_no_known_type_is_found() -> None:
    with pytest.raises(ValueError, match="head_node_type"):
        prepared({**load("gcp"), "head_node_type": "hed"})


def launch(node_config: dict[str, Any]) -> None:
    """Check what Ray passes on to EC2, by EC2's own model of the request."""
    shape = (
        botocore.session.get_session().get_service_model("ec2").operation_model("RunInstances").input_shape
    )
    report = ParamValidator().validate({**node_config, "MinCount": 1, "MaxCount": 1}, shape)
    assert not report.has_errors(), report.generate_report()


def test_ec2_understands_the_machines() -> None:
    types = load("aws")["available_node_types"]
    for node_type in types.values():
        launch(node_type["node_config"])
    with pytest.raises(AssertionError, match="InstanceMarketOption"):
        launch({**types["gpu"]["node_config"], "InstanceMarketOption": {}})


@pytest.mark.parametrize("name", ["aws", "gcp"])
def test_workers_come_and_go_on_spot_machines_and_the_head_stays(name: str) -> None:
    types = prepared(load(name))["available_node_types"]
    head, gpu = types["head"], types["gpu"]
    assert (head["min_workers"], head["max_workers"]) == (0, 0)
    assert head["resources"] == {"CPU": 0}
    assert gpu["resources"]["GPU"] == 1
    assert gpu["min_workers"] == 0 < gpu["max_workers"]
    spot = {
        "aws": lambda node: node.get("InstanceMarketOptions", {}).get("MarketType") == "spot",
        "gcp": lambda node: node.get("scheduling", {}).get("provisioningModel") == "SPOT",
    }[name]
    watch = [line for line in prepared(load(name))["worker_start_ray_commands"] if "spot_watch.py" in line]
    assert [line.split()[3] for line in watch] == [name]
    assert spot(gpu["node_config"])
    assert not spot(head["node_config"])


@pytest.mark.parametrize("name", NAMES)
def test_the_token_is_on_every_node_and_the_dashboard_on_none_but_the_head(name: str) -> None:
    config = prepared(load(name))
    assert "--env=RAY_AUTH_MODE=token" in config["docker"]["run_options"]
    assert config["file_mounts"]["/home/s2vc/.ray/auth_token"] == "~/.ray/auth_token"
    (start,) = [line for line in config["head_start_ray_commands"] if "--head" in line]
    assert "--dashboard-host=127.0.0.1" in start
    assert "--autoscaling-config=~/ray_bootstrap_config.yaml" in start
    assert any("--address=$RAY_HEAD_IP:6379" in line for line in config["worker_start_ray_commands"])


@pytest.mark.parametrize("name", NAMES)
def test_no_key_is_written_down(name: str) -> None:
    options = load(name)["docker"]["run_options"]
    assert not [text for text in options if "ACCESS_KEY" in text or "AUTH_TOKEN" in text]
    # Ray starts its containers with `bash`, which the image's entry point would take for a subcommand.
    assert "--entrypoint=/usr/bin/env" in options
