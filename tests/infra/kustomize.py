"""As much of kustomize as ``infra/kuberay`` uses, so that tests can render overlays without its binary.

Resources, components, JSON 6902 patches by kind and name, images, namespace, whole-node replacements, and
dropping what is marked local-config. Anything else in a kustomization is refused, not passed over. Where
``kubectl`` is installed, a test compares the two.
"""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import jsonpatch
import yaml

_LOCAL = "config.kubernetes.io/local-config"
_KNOWN = {
    "apiVersion",
    "kind",
    "namespace",
    "resources",
    "components",
    "patches",
    "images",
    "replacements",
}

Resource = dict[str, Any]


def render(folder: Path) -> list[Resource]:
    """The objects that ``kustomize build folder`` prints, in no particular order."""
    built = _build(folder, [])
    return [found for found in built if found["metadata"].get("annotations", {}).get(_LOCAL) != "true"]


def load_all(path: Path) -> list[Resource]:
    """Every document of a YAML file, anchors resolved into separate objects."""
    return [copy.deepcopy(document) for document in yaml.safe_load_all(path.read_text()) if document]


def pod_specs(resource: Resource) -> list[dict[str, Any]]:
    """Every mapping in ``resource`` that holds a list of containers."""
    found: list[dict[str, Any]] = []

    def walk(node: Any) -> None:
        if isinstance(node, dict):
            if isinstance(node.get("containers"), list):
                found.append(node)
            for value in node.values():
                walk(value)
        elif isinstance(node, list):
            for value in node:
                walk(value)

    walk(resource)
    return found


def _build(folder: Path, given: list[Resource]) -> list[Resource]:
    settings = yaml.safe_load((folder / "kustomization.yaml").read_text())
    unknown = set(settings) - _KNOWN
    if unknown:
        raise ValueError(f"{folder}: this loader does not know {sorted(unknown)}")
    resources = [*given]
    for name in settings.get("resources", ()):
        path = (folder / name).resolve()
        resources += _build(path, []) if path.is_dir() else load_all(path)
    for name in settings.get("components", ()):
        resources = _build((folder / name).resolve(), resources)
    for patch in settings.get("patches", ()):
        resources = [_patched(resource, patch) for resource in resources]
    for resource in resources:
        if "namespace" in settings:
            resource["metadata"]["namespace"] = settings["namespace"]
        for image in settings.get("images", ()):
            _set_image(resource, image)
    for replacement in settings.get("replacements", ()):
        _replace(resources, replacement)
    return resources


def _matches(resource: Resource, selector: dict[str, str]) -> bool:
    return resource["kind"] == selector["kind"] and resource["metadata"]["name"] == selector["name"]


def _patched(resource: Resource, patch: dict[str, Any]) -> Resource:
    if not _matches(resource, patch["target"]):
        return resource
    patched: Resource = jsonpatch.apply_patch(resource, yaml.safe_load(patch["patch"]))
    return patched


def _set_image(resource: Resource, image: dict[str, str]) -> None:
    for spec in pod_specs(resource):
        for container in [*spec["containers"], *spec.get("initContainers", ())]:
            name, _, tag = container["image"].partition(":")
            if name == image["name"]:
                tag = image.get("newTag", tag)
                container["image"] = f"{image.get('newName', name)}:{tag}".rstrip(":")


def _replace(resources: list[Resource], replacement: dict[str, Any]) -> None:
    source = replacement["source"]
    value: Any = next(resource for resource in resources if _matches(resource, source))
    for part in source["fieldPath"].split("."):
        value = value[part]
    for target in replacement["targets"]:
        for resource in filter(lambda found: _matches(found, target["select"]), resources):
            for path in target["fieldPaths"]:
                *parents, last = path.split(".")
                node: Any = resource
                for part in parents:
                    node = node[part]
                node[last] = copy.deepcopy(value)
