"""The command that shows an archive in a browser."""

from __future__ import annotations

import signal
import webbrowser
from typing import TYPE_CHECKING, Annotated

import typer

from s2vc_ray.cli_options import Archive, Device, Model, Start

if TYPE_CHECKING:
    from types import FrameType

    from s2vc_ray.decompress import Progress


def view(
    archive: Archive,
    source: Annotated[
        str | None,
        typer.Option(help="The source, or a folder it lies in; else where the manifest beside ARCHIVE says."),
    ] = None,
    start: Start = None,
    duration: Annotated[
        str, typer.Option(help="How much to decode: 10 seconds, 1:30, …; 0: all from --start on.")
    ] = "20",
    port: Annotated[int, typer.Option(min=0, max=65535, help="On 127.0.0.1; 0 takes a free one.")] = 0,
    browser: Annotated[bool, typer.Option("--browser/--no-browser", help="Open a browser.")] = True,
    model: Model = "small",
    device: Device = "auto",
) -> None:
    """Show source and decoded pictures side by side in a browser, in step, with figures of every frame.

    Decodes the stretch first, which takes a while on a CPU. The page is for this machine alone; Ctrl-C ends it and
    removes what was decoded. Without the source it shows the decoded pictures and the manifest's figures.

    \b
    s2vc view out/film.mp4.s2vc
    s2vc view out/film.mp4.s2vc --source footage/film.mp4 --start 12:34 --duration 1:00
    s2vc view s3://bucket/compressed/film.mp4.s2vc --no-browser --port 8000
    """
    from rich.console import Console

    from s2vc_ray.moments import parse_moment, parse_time
    from s2vc_ray.view import ViewOptions, open_view

    seconds = parse_time(duration)
    options = ViewOptions(
        source=source,
        start=None if start is None else parse_moment(start),
        duration=seconds or None,
        model=model,
        device=device,
        port=port,
    )
    signal.signal(signal.SIGTERM, _interrupt)
    console = Console(stderr=True)
    status = console.status("opening the archive")

    def watch(progress: Progress) -> None:
        status.update(f"decoding: frame {progress.done} of {progress.frames}")

    shown = False
    try:
        status.start()
        with open_view(archive, options, watch=watch) as server:
            status.stop()
            shown = True
            typer.echo(server.url)
            console.print("Ctrl-C ends it", highlight=False)
            if browser and not webbrowser.open(server.url):
                console.print("no browser was found: open the address above", highlight=False)
            server.wait()
    except KeyboardInterrupt:
        raise typer.Exit(0 if shown else 130) from None
    finally:
        status.stop()


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt
