"""What the commands do with a policy's file: ``--policy``, and ``s2vc policy check``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Annotated, Any

import typer

from s2vc_ray.cli_options import Json, print_json
from s2vc_ray.config import METRICS
from s2vc_ray.errors import ConfigError
from s2vc_ray.policy import Policy
from s2vc_ray.policy_file import in_words, read_policy
from s2vc_ray.targets import Floor, Target

policy_app = typer.Typer(help="Check policies.", no_args_is_help=True)


def policy_of(path: str | None, **others: object) -> Policy | None:
    """The policy that ``--policy`` names, None without.

    Args:
        others: options that say what a policy says, None where they were not given.

    Raises:
        ConfigError: the file is no policy, or another option contradicts it.
    """
    if path is None:
        return None
    if given := [f"--{name.replace('_', '-')}" for name, value in others.items() if value is not None]:
        raise ConfigError(
            f"{' and '.join(given)} beside --policy: {path} says what GOPs are held to; change it there, or "
            "leave --policy out"
        )
    return read_policy(path)


def to_measure(given: Sequence[str] | None, target: Target | None, policy: Policy | None) -> tuple[str, ...]:
    """Names of metrics to measure: those given, else the usual ones, and those that floors are of."""
    names = tuple(given or METRICS)
    held = policy.metrics if policy else frozenset[str]()
    floors = held | {target.metric} if isinstance(target, Floor) else held
    return names + tuple(sorted(floors - set(names)))


@policy_app.command()
def check(
    file: Annotated[str, typer.Argument(metavar="FILE", help="A policy: TOML.")],
    names: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[NAME]...",
            help="Sources as the manifest has them (source_name): relative to the folder or prefix that is compressed.",
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Check a policy's file, and say in plain words what it means; with NAMEs, what holds for each. Exits 2 when it is
    none.

    \b
    s2vc policy check policy.toml
    s2vc policy check policy.toml interviews/1988/anna.mov gate/cam1.mkv
    """
    policy = read_policy(file)
    sources = {name: _of(policy, name) for name in names or ()}
    if as_json:
        print_json({**_whole(policy), "of": sources})
        return
    for line in in_words(policy):
        typer.echo(line)
    for name, held in sources.items():
        typer.echo(f"{name}: {_said(held)}")
    decided = {held["where"] for held in sources.values()}
    for own in policy.where if sources else ():
        if own.name not in decided:
            typer.echo(f"where {own.name} holds for none of them")


def _of(policy: Policy, name: str) -> dict[str, str | None]:
    """What decides about the source of this name: the pattern that excludes it, or its ``where`` and its digest."""
    if name.startswith("/") or "://" in name:
        raise ConfigError(
            f"{name}: policies go by names as the manifest has them (source_name), relative to the folder or prefix "
            "that is compressed: leave that out"
        )
    own = policy.of(name)
    excluded = policy.excludes(name)
    return {
        "excluded": excluded,
        "where": None if excluded else own.name or None,
        "sha256": None if excluded else own.sha256,
    }


def _said(held: Mapping[str, str | None]) -> str:
    if held["excluded"]:
        return f"not coded, for {held['excluded']} excludes it"
    where = f"where {held['where']}" if held["where"] else "no where matches, so what holds for all others"
    return f"{where} (policy {(held['sha256'] or '')[:12]})"


def _whole(policy: Policy) -> dict[str, Any]:
    where = [_whole(own) for own in policy.where]
    return {**asdict(policy), "where": where, "text": policy.text, "sha256": policy.sha256}
