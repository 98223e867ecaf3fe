"""What the commands do with a policy's file: ``--policy``, and ``s2vc policy check``."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from s2vc_ray.cli_options import Json, print_json
from s2vc_ray.errors import ConfigError
from s2vc_ray.policy import Policy
from s2vc_ray.policy_file import in_words, read_policy

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


@policy_app.command()
def check(
    file: Annotated[str, typer.Argument(metavar="FILE", help="A policy: TOML.")], as_json: Json = False
) -> None:
    """Check a policy's file, and say in plain words what it means. Exits 2 when it is none.

    \b
    s2vc policy check policy.toml
    """
    policy = read_policy(file)
    if as_json:
        print_json({**asdict(policy), "text": policy.text, "sha256": policy.sha256})
        return
    for line in in_words(policy):
        typer.echo(line)
