"""What the commands share: options that mean the same everywhere, and ways to print a result.

Imported by every start of ``s2vc``, so it imports nothing heavy.
"""

from __future__ import annotations

import json
from typing import Annotated

import typer

from s2vc_ray.backoff import Patience
from s2vc_ray.config import MEASURABLE

Json = Annotated[
    bool, typer.Option("--json", help="Print the result as one JSON document on standard output.")
]
OlderThan = Annotated[
    str, typer.Option(help="How long nothing must have been added to what counts as left over: 7d, 12h, 30m.")
]
Model = Annotated[str, typer.Option(help="A packaged model's name, or a directory with weights.")]
Device = Annotated[str, typer.Option(help="auto, cpu or cuda.")]
ExecutorName = Annotated[str, typer.Option(help="ray, or local: in this process.")]
RayAddress = Annotated[str | None, typer.Option(help="A running Ray cluster to join.")]
MeasuredFrames = Annotated[
    str, typer.Option(help="Frames of each GOP to decode again and measure: none, sample:N or full.")
]
MetricNames = Annotated[
    list[str] | None,
    typer.Option(help=f"What to measure; repeatable: {' '.join(MEASURABLE)}. Default: the first three."),
]
Faces = Annotated[
    bool, typer.Option("--faces", help="Look for faces in measured frames, and judge them (extra: guards).")
]
PolicyFile = Annotated[
    str | None,
    typer.Option(metavar="FILE", help="Hold GOPs to what this TOML file says: floors, rules, exclusions."),
]
Lockstep = Annotated[int, typer.Option(help="GOPs coded in lockstep; 0 chooses.")]
Threads = Annotated[int, typer.Option(help="CPU cores per worker; 0 chooses.")]
Attempts = Annotated[int, typer.Option(help="Tries before a GOP's video is given up.")]
AllowLarger = Annotated[
    bool, typer.Option("--allow-larger", help="Keep archives that are larger than their sources.")
]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace what is there of the output.")]
Salvage = Annotated[bool, typer.Option("--salvage", help="Decode what is whole of a damaged archive.")]
Batch = Annotated[int, typer.Option(help="GOPs decoded side by side; 0 chooses.")]
Start = Annotated[
    str | None, typer.Option(help="Where to begin: 1:02:03.5, 12:34, 754.2 seconds, or a frame as '#18105'.")
]
Duration = Annotated[str | None, typer.Option(help="How much: 10 seconds, 1:30, …; all when not given.")]
WithPassthrough = Annotated[
    bool, typer.Option("--passthrough/--no-passthrough", help="Write audio, subtitles and tags too.")
]
Archive = Annotated[str, typer.Argument(help="An .s2vc archive: a path or an s3:// object.")]
Destination = Annotated[str, typer.Argument(metavar="DST", help="The destination of a compress job.")]


def patience() -> Patience:
    """Somebody sits and waits for these commands: a store that is away is soon said to be."""
    return Patience.from_environment(seconds=30)


def print_json(value: object) -> None:
    """Print ``value`` as one indented JSON document on standard output."""
    typer.echo(json.dumps(value, indent=2, default=str))
