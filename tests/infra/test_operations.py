"""The runbook names files, options, classes and alarms that exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml
from typer.main import get_command

from s2vc_ray.cli import app

ROOT = Path(__file__).parents[2]
RUNBOOK = (ROOT / "docs" / "operations.md").read_text()
CODE = "\n".join(
    path.read_text() for folder in ("s2vc_ray", "s2vc_model") for path in (ROOT / folder).rglob("*.py")
)
# Of other programs, or of the container build.
FOREIGN = {
    "--address",
    "--build-arg",
    "--env",
    "--from-env-file",
    "--extra",
    "--generate",
    "--help",
    "--no-annotate",
    "--no-emit-index-url",
    "--no-header",
    "--python-platform",
    "--python-version",
    "--rm",
}


def missing_paths(text: str) -> set[str]:
    named = set(re.findall(r"infra/[\w./-]*\w", text)) | set(re.findall(r"\]\(([\w.-]+\.md)", text))
    places = (ROOT, ROOT / "docs")
    return {name for name in named if not any((place / name).exists() for place in places)}


def unknown_options(text: str) -> set[str]:
    options = {
        name
        for command in get_command(app).commands.values()  # type: ignore[attr-defined]
        for parameter in command.params
        for name in (*parameter.opts, *parameter.secondary_opts)
    }
    return set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", text)) - options - FOREIGN


def unknown_classes(text: str) -> set[str]:
    table = text.partition("| class | what it means")[2].partition("\n\n")[0]
    cells = [line.split("|")[1] for line in table.splitlines() if line.count("|") >= 4]
    named = {name for cell in cells for name in re.findall(r"`(\w+)`", cell)}
    assert len(named) > 10
    return {name for name in named if not re.search(rf"\b{name}\b", CODE)}


def unknown_alarms(text: str) -> set[str]:
    rules = yaml.safe_load((ROOT / "infra" / "prometheus" / "alerts.yml").read_text())
    alarms = {rule["alert"] for group in rules["groups"] for rule in group["rules"]}
    return set(re.findall(r"\bS2vc[A-Z]\w+", text)) - alarms


CHECKS = [missing_paths, unknown_options, unknown_classes, unknown_alarms]


@pytest.mark.parametrize("check", CHECKS)
def test_what_the_runbook_names_exists(check: object) -> None:
    assert check(RUNBOOK) == set()  # type: ignore[operator]


def test_what_does_not_exist_is_found() -> None:
    assert missing_paths("see infra/no/such") == {"infra/no/such"}
    assert unknown_options("give --speed") == {"--speed"}
    assert unknown_classes(RUNBOOK.replace("`SourceError`", "`SourceMistake`", 1)) == {"SourceMistake"}
    assert unknown_alarms("S2vcOnFire rings") == {"S2vcOnFire"}
