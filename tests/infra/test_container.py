"""The image file is sound as far as that shows without building it, and its constraints cover what is installed."""

from __future__ import annotations

import re
import shutil
import subprocess
import tomllib
from importlib.metadata import PackageNotFoundError, requires
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from tests.infra.dockerfile import parse, problems

ROOT = Path(__file__).parents[2]
CONTAINER = ROOT / "infra" / "container"
DOCKERFILE = (CONTAINER / "Dockerfile").read_text()
IGNORE = (CONTAINER / "Dockerfile.dockerignore").read_text()
RENEW = "renew infra/container/constraints.txt as docs/operations.md says"


def constraints() -> dict[str, Version]:
    lines = (CONTAINER / "constraints.txt").read_text().splitlines()
    pins = [Requirement(line) for line in lines if line and not line.startswith("#")]
    return {canonicalize_name(pin.name): Version(str(pin.specifier).removeprefix("==")) for pin in pins}


def wanted() -> list[Requirement]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    beside = (CONTAINER / "requirements.in").read_text().splitlines()
    guards = project["optional-dependencies"]["guards"]
    return [
        Requirement(line) for line in (*project["dependencies"], *guards, *beside) if not line.startswith("#")
    ]


def test_the_image_file_is_sound() -> None:
    assert problems(DOCKERFILE, ROOT, IGNORE) == []


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("@sha256:65a9", "@sha256:65", "pinned by tag and digest"),
        ("FROM base AS packages", "FROM python:3.11 AS packages", "pinned by tag and digest"),
        ("COPY s2vc_ray s2vc_ray", "COPY s2vc_rays s2vc_ray", "does not exist"),
        ("COPY jobs jobs", "COPY tests tests", "is ignored"),
        ("--from=metrics", "--from=metric", "no earlier stage"),
        ("USER 1000:1000", "USER 0:0", "runs as"),
        ("USER 1000:1000", "USER s2vc", "runs as"),
        ("USER 1000:1000", "", "runs as"),
    ],
)
def test_a_mistake_in_the_image_file_is_found(old: str, new: str, said: str) -> None:
    assert old in DOCKERFILE
    assert any(said in problem for problem in problems(DOCKERFILE.replace(old, new), ROOT, IGNORE))


@pytest.mark.skipif(not shutil.which("hadolint"), reason="hadolint is not installed")
def test_a_linter_is_content_and_would_not_be_with_less() -> None:
    def lint(text: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(["hadolint", "-"], input=text, capture_output=True, text=True)

    assert lint(DOCKERFILE).returncode == 0, lint(DOCKERFILE).stdout
    careless = lint(DOCKERFILE.replace("--no-install-recommends ", ""))
    assert careless.returncode == 1
    assert "DL3015" in careless.stdout


def test_both_variants_take_torch_and_torchvision_together() -> None:
    (text,) = [step.text for step in parse(DOCKERFILE) if step.text.startswith("case")]
    variants = dict(re.findall(r"(\w+)\) (.*?) ;;", text))
    assert variants.keys() == {"cuda", "cpu"}
    for install in variants.values():
        assert re.search(r"pip install .*torch torchvision", install)
    assert "--index-url" not in variants["cuda"]


def test_the_entry_point_is_the_command_and_the_environment_is_the_pods() -> None:
    steps = parse(DOCKERFILE)
    assert steps[-2].text == '["s2vc"]'
    environment = " ".join(step.text for step in steps if step.name == "ENV")
    # `ray up` looks for HOME in the image's environment; the account is made with that folder.
    for setting in (
        "HOME=/home/s2vc",
        "RAY_USAGE_STATS_ENABLED=0",
        "OMP_WAIT_POLICY=passive",
        "TMPDIR=/scratch",
    ):
        assert setting in environment
    # What `ray up` runs, it runs in login shells, and those forget the image's PATH.
    assert any("/etc/profile.d/s2vc.sh" in step.text for step in steps if step.name == "RUN")


def test_constraints_pin_what_pyproject_asks_for() -> None:
    pins = constraints()
    for requirement in wanted():
        pin = pins.get(canonicalize_name(requirement.name))
        assert pin is not None, f"{requirement.name} is not pinned: {RENEW}"
        assert requirement.specifier.contains(pin, prereleases=True), (
            f"{requirement} is pinned at {pin}: {RENEW}"
        )


def test_constraints_pin_everything_those_bring_along() -> None:
    pins = constraints()
    todo = [Requirement(f"{found.name}[{','.join(found.extras)}]") for found in wanted()]
    seen: set[tuple[str, str]] = set()
    while todo:
        one = todo.pop()
        for text in _requires(one.name):
            below = Requirement(text)
            extras = [*one.extras, ""]
            applies = not below.marker or any(below.marker.evaluate({"extra": extra}) for extra in extras)
            key = (canonicalize_name(below.name), ",".join(sorted(below.extras)))
            if applies and key not in seen:
                seen.add(key)
                todo.append(below)
                assert key[0] in pins, f"{below.name}, which {one.name} needs, is not pinned: {RENEW}"
    assert len(seen) > 80


def _requires(name: str) -> list[str]:
    try:
        return requires(name) or []
    except PackageNotFoundError:
        # Only the image has what `ray up` needs on Google Cloud.
        return []
