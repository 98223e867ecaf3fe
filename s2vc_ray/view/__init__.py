"""Source and decoded pictures of an archive beside one another, in a browser on this machine.

`clip` decodes a stretch into one video file that holds both pictures and measures it, `described` asks the manifest,
`server` shows it; here they are put together.

Both pictures are in one file, one above the other: a browser cannot hold two videos to one frame, and one video is in
step with itself.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from s2vc_ray.access import OpenArchive, open_archive
from s2vc_ray.decompress import Watch, find_stretch
from s2vc_ray.errors import ObjectMissing, SourceError, StorageError
from s2vc_ray.lanes import CodecLoader, load_s2vc
from s2vc_ray.manifest import QUALITY
from s2vc_ray.moments import Moment, clock
from s2vc_ray.report import LABELS, label, page
from s2vc_ray.source_frames import SourceFrames
from s2vc_ray.storage_local import local_errors
from s2vc_ray.verify_reference import find_source
from s2vc_ray.view.clip import Clip, make_clip
from s2vc_ray.view.described import Described, described
from s2vc_ray.view.server import ViewServer

DURATION = Fraction(20)
"""Seconds shown where nothing else is asked for: on two cores a CIF picture takes a sixth of a second to decode."""
METRICS = ("psnr", "ms_ssim", "lpips_alex")
"""What is measured of every frame, as far as it is installed."""


@dataclass(frozen=True, slots=True)
class ViewOptions:
    """What is shown, and where.

    Attributes:
        source: the source, or a folder in which it lies; None: where the manifest beside the archive says.
        start, duration: as `s2vc_ray.decompress.decompress`; a duration of None is to the end.
        metrics: what is measured where the source is there.
        port: on 127.0.0.1; 0 is a free one.
    """

    source: str | None = None
    start: Moment | None = None
    duration: Fraction | None = DURATION
    metrics: tuple[str, ...] = METRICS
    model: str = "small"
    device: str = "auto"
    port: int = 0


@dataclass(slots=True)
class _Found:
    """What a page can show beside the decoded pictures, and what it has to say about the rest."""

    source: SourceFrames | None = None
    described: Described | None = None
    notes: list[str] = field(default_factory=list)


@contextmanager
def open_view(
    archive: str, options: ViewOptions, *, watch: Watch | None = None, load_codec: CodecLoader = load_s2vc
) -> Iterator[ViewServer]:
    """Decode, measure, and open a server for as long as the context lasts; the decoded clip goes with it.

    Raises:
        ConfigError: there is no such stretch, or the port is taken.
        SourceError: the source that was named is not the archive's.

    Other errors are those of `open_archive` and `OpenArchive.frames`.
    """
    with (
        local_errors("write the clip into the scratch folder (TMPDIR)"),
        TemporaryDirectory(prefix="s2vc-view-") as folder,
    ):
        with open_archive(
            archive, model=options.model, device=options.device, batch=1, load_codec=load_codec
        ) as opened:
            found = _find(opened, options)
            stretch = find_stretch(opened, options.start, _duration(opened, options))
            clip = make_clip(
                opened, stretch, found.source, Path(folder) / "clip.mp4", options.metrics, watch=watch
            )
            made = _page(opened, clip, found)
        with ViewServer(made, clip.path, options.port) as server:
            yield server


def _duration(archive: OpenArchive, options: ViewOptions) -> Fraction | None:
    """None when what was asked for is all there is."""
    whole = options.start is None and options.duration is not None and options.duration >= archive.duration
    return None if whole else options.duration


def _find(archive: OpenArchive, options: ViewOptions) -> _Found:
    found = _Found()
    if options.source is not None:
        uri = find_source(options.source, "", archive.header.source_name)
        found.source = SourceFrames(uri, archive.header)
        return found
    try:
        found.described = described(archive.uri)
        found.source = SourceFrames(found.described.source_uri, archive.header)
    except (ObjectMissing, SourceError) as error:
        found.notes.append(f"Without the source: {error}. Name it with --source.")
    except StorageError as error:
        found.notes.append(
            f"Without the source: the manifest cannot be read: {error}. Name it with --source."
        )
    return found


def _page(archive: OpenArchive, clip: Clip, found: _Found) -> bytes:
    header = archive.header
    first, last = clip.frames[0], clip.frames[-1]
    notes = [*found.notes, *clip.notes]
    series = [_series(name, values) for name, values in clip.scores.items()]
    if clip.source_top is None and found.described is not None:
        series = _of_gops(clip, found.described)
        if series:
            notes.append("Figures are the manifest's, one for each GOP.")
    whole = len(clip.frames) == header.frames
    data = {
        "width": clip.width,
        "height": clip.height,
        "source_top": clip.source_top,
        "decoded_top": clip.decoded_top,
        "times": [float(one) for one in clip.times],
        "end": float(clip.end),
        "begin": float(clip.begin),
        "frames": list(clip.frames),
        "gops": list(clip.gops),
        "coded": list(clip.coded),
        "metrics": series,
    }
    values = {
        "name": header.source_name,
        "archive": archive.uri,
        "size": f"{header.width} × {header.height}",
        "model": header.model_id,
        "whole": whole,
        "count": len(clip.frames),
        "frames": header.frames,
        "first": first,
        "last": last,
        "begin": _time(clip.begin),
        "end": _time(clip.begin + clip.end),
        "duration": _time(archive.duration),
        "has_source": clip.source_top is not None,
        "notes": notes,
        "series": series,
    }
    return page.render(
        __name__,
        "view.html.j2",
        data,
        values,
        scripts=("s2vc_ray.report:charts.js", "s2vc_ray.report:compare.js", "view.js"),
        styles=("s2vc_ray.report:base.css", "view.css"),
        policy={"media-src": "'self'", "img-src": "data:"},
    )


def _time(seconds: Fraction) -> str:
    return clock(seconds).removeprefix("0:")


def _series(name: str, values: list[float | None]) -> dict[str, Any]:
    return {
        "name": name,
        "label": label(name),
        "unit": LABELS.get(name, ("", ""))[1],
        "higher": QUALITY[name],
        "values": values,
    }


def _of_gops(clip: Clip, told: Described) -> list[dict[str, Any]]:
    """The manifest's means, each for all frames of its GOP."""
    found = []
    for name in QUALITY:
        values = [told.gops.get(gop, {}).get(f"{name}_mean") for gop in clip.gops]
        if any(value is not None for value in values):
            found.append(_series(name, values))
    return found
