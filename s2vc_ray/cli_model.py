"""The commands about models: what one is, and making one from Stable Diffusion's parts."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from s2vc_ray.cli_options import Json, print_json

if TYPE_CHECKING:
    from s2vc_model.picture_scale import Enlarging

model_app = typer.Typer(help="Look at models and make them.", no_args_is_help=True)


@model_app.command()
def info(
    name: Annotated[str, typer.Argument(metavar="NAME|DIR", help="A packaged model, or a directory.")],
    as_json: Json = False,
) -> None:
    """Show a model's preset, size and identity.

    \b
    s2vc model info small
    s2vc model info weights/mine --json
    """
    from s2vc_model.weight_facts import weight_facts

    facts = weight_facts(name)
    if as_json:
        print_json(asdict(facts))
        return
    rows = {
        "model": facts.model_id,
        "preset": facts.preset,
        "sha256": facts.sha256,
        "directory": facts.directory,
        "bytes": f"{facts.bytes:,}",
        "parameters": f"{sum(facts.parameters.values()):,}",
        **{f"  {part}": f"{count:,}" for part, count in facts.parameters.items()},
        "coded larger": "; ".join(map(_larger, facts.scales.rules)) or "no pictures",
        "reads also": ", ".join(f"{facts.preset}-{sha256[:12]}" for sha256 in facts.reads) or "no other's streams",
        "rates": facts.rates or "not recorded",
        **{str(key): value for key, value in facts.notes.items() if key != "rates"},
    }
    width = max(map(len, rows))
    for key, value in rows.items():
        typer.echo(f"{key:<{width}}  {value}")


def _larger(rule: Enlarging) -> str:
    from s2vc_model.picture_scale import SCALES

    return f"up to {rule.lines} lines from quality {rule.quality} on {SCALES[rule.scale].halves / 2:g} times"


@model_app.command("import-sd")
def import_sd(
    out: Annotated[Path, typer.Argument(metavar="OUT", help="A new directory for the weights.")],
    unet: Annotated[Path, typer.Option(help="diffusers folder of Stable Diffusion 1.5's U-Net.")],
    vae: Annotated[Path, typer.Option(help="diffusers folder of Stable Diffusion 2.1's VAE.")],
    seed: Annotated[int, typer.Option(help="Of all that is drawn at random.")] = 0,
    width: Annotated[str, typer.Option(help="full, or tiny for folders of a test's size.")] = "full",
    as_json: Json = False,
) -> None:
    """Make a model of the paper's scale from local folders of Stable Diffusion, to be trained.

    \b
    s2vc model import-sd --unet sd15/unet --vae sd21/vae weights/sd15
    python -m jobs.train --init weights/sd15 --data clips/ --out runs/sd15 --export weights/sd15-trained
    """
    from s2vc_model.import_sd import import_sd as run

    made = run(unet, vae, out, seed=seed, width=width)
    if as_json:
        print_json(asdict(made))
        return
    typer.echo(f"{made.directory}: {made.preset}, sha256 {made.sha256}")
    typer.echo(
        f"NOT TRAINED: {made.warning}. Train it with python -m jobs.train --init {made.directory}", err=True
    )
