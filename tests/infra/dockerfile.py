"""A Dockerfile as a list of instructions, and what can be wrong with ours that a linter does not know."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

_PINNED = re.compile(r"^[\w./-]+:[\w.-]+@sha256:[0-9a-f]{64}$")


@dataclass(frozen=True, slots=True)
class Instruction:
    """One instruction; ``text`` is all that follows its name, continuation lines joined."""

    name: str
    text: str


def parse(text: str) -> list[Instruction]:
    """The instructions of a Dockerfile, comments left out."""
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    joined = "\n".join(lines).replace("\\\n", " ")
    split = (line.split(None, 1) for line in joined.splitlines() if line.strip())
    return [Instruction(name.upper(), rest) for name, rest in split]


def problems(text: str, root: Path, ignore: str) -> list[str]:
    """What is wrong with a Dockerfile built from ``root`` with the ``.dockerignore`` text ``ignore``."""
    instructions = parse(text)
    arguments = dict(
        found.text.split("=", 1) for found in instructions if found.name == "ARG" and "=" in found.text
    )
    kept = {line[1:] for line in ignore.splitlines() if line.startswith("!")}
    found: list[str] = []
    stages: list[str] = []
    for step in instructions:
        if step.name == "FROM":
            image, _, stage = step.text.partition(" AS ")
            image = re.sub(r"\$\{(\w+)\}", lambda match: arguments[match[1]], image)
            if image not in stages and not _PINNED.match(image):
                found.append(f"base {image!r} is neither a stage nor pinned by tag and digest")
            stages.append(stage)
        if step.name in ("COPY", "ADD"):
            found += _bad_copy(step, root, stages, kept)
    return [*found, *_bad_user(instructions)]


def _bad_copy(step: Instruction, root: Path, stages: list[str], kept: set[str]) -> list[str]:
    words = shlex.split(step.text)
    flags = dict(word.removeprefix("--").split("=", 1) for word in words if word.startswith("--"))
    sources = [word for word in words if not word.startswith("--")][:-1]
    if "from" in flags:
        return [] if flags["from"] in stages else [f"{step.text!r} copies from no earlier stage"]
    missing = [source for source in sources if not (root / source).exists()]
    hidden = [source for source in sources if source not in kept]
    return [f"{name} does not exist" for name in missing] + [f"{name} is ignored" for name in hidden]


def _bad_user(instructions: list[Instruction]) -> list[str]:
    last = [at for at, step in enumerate(instructions) if step.name == "FROM"][-1]
    users = [step.text for step in instructions[last:] if step.name == "USER"]
    if not users or not re.fullmatch(r"[1-9]\d*:[1-9]\d*", users[-1]):
        return [f"the image runs as {users[-1] if users else 'root'!r}: give numbers other than 0"]
    return []
