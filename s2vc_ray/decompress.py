"""The decompress job: one archive, or a stretch of it, in; one playable file out, in flat memory.

Needs the archive and the model, nothing else: no source, no manifest, no Ray. Pictures come from `access`,
files are `mux`'s affair.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import pairwise

from s2vc_ray.access import Frame, OpenArchive, Stretch, open_archive
from s2vc_ray.archive import ArchiveHeader
from s2vc_ray.colour import LIMITED
from s2vc_ray.encoders import Encoder
from s2vc_ray.errors import ConfigError, CorruptArchive
from s2vc_ray.excerpt import Excerpt
from s2vc_ray.gop_decoder import told_of_weights
from s2vc_ray.lanes import CodecLoader, load_s2vc
from s2vc_ray.moments import Moment, clock
from s2vc_ray.mux import MuxReport, VideoHeader, check_output, write_video
from s2vc_ray.passthrough import Passthrough
from s2vc_ray.upright import Turn

SEE_EXTRACT = "s2vc extract writes the archive's streams that are left out here to files of their own"


@dataclass(frozen=True, slots=True)
class DecompressReport:
    """What came out.

    Attributes:
        frames, gops: decoded and written.
        frames_lost: frames of the source that the archive does not hold, or that its damage took; of a stretch,
            those lost inside it.
        notes: whatever else differs from the source, one sentence each.
    """

    out: str
    frames: int
    gops: int
    frames_lost: int
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a decoding is: ``done`` of ``frames`` pictures, from ``gops`` GOPs of ``payload_bytes``."""

    done: int
    frames: int
    gops: int
    payload_bytes: int


Watch = Callable[[Progress], None]
"""Told once before the first picture, and after each."""


def decompress(
    archive: str,
    out: str,
    *,
    model: str = "small",
    device: str = "auto",
    salvage: bool = False,
    batch: int = 0,
    start: Moment | None = None,
    duration: Fraction | None = None,
    passthrough: bool = True,
    encoder: Encoder | None = None,
    overwrite: bool = False,
    watch: Watch | None = None,
    load_codec: CodecLoader = load_s2vc,
) -> DecompressReport:
    """Decode ``archive`` (a path or ``s3://`` object) to .mp4, .mov, .mkv, .y4m, or ``-``: standard output.

    Args:
        model, device, salvage, batch: as `open_archive`.
        start, duration: the stretch to decode: from the picture that is on screen at ``start``, for
            ``duration`` seconds from ``start`` on. Its times are counted from its first picture.
        passthrough: write audio, subtitles and tags too.
        encoder, overwrite: as `write_video`.
        watch: told how far it is.

    Raises:
        ObjectMissing: there is no such archive.
        ArchiveError: not an archive, damaged, or (`WrongWeights`) coded by another model.
        ModelError: the model cannot be loaded, or decoded symbols are not those that were coded.
        ObjectExists: ``out`` exists and ``overwrite`` is false.
        ConfigError: ``out``'s format is unknown or does not fit the encoder, or there is no such stretch.
    """
    with open_archive(
        archive, model=model, device=device, salvage=salvage, batch=batch, load_codec=load_codec
    ) as opened:
        y4m = check_output(out, encoder, overwrite=overwrite) == "y4m"
        stretch = find_stretch(opened, start, duration)
        _ = opened.codec  # refused before anything is read for it
        carried, notes = _carried(opened, stretch, salvage, y4m) if passthrough else (None, [])
        turn = (upright(opened.header) if y4m else None) or Turn()
        header = _turned(_video_header(opened.header, stretch, encoder), turn)
        if turn:
            notes.append("y4m cannot say how pictures are to be turned: they are upright")
        pictures = (
            (frame.pts - (stretch.begin or 0), turn(frame.rgb))
            for frame in watched(opened.decode(stretch), stretch, watch)
        )
        written = write_video(out, pictures, header, carried, encoder=encoder, overwrite=overwrite)
        lost = frames_lost(opened, stretch, written.frames)
        notes += [*_differences(written, carried), *told_of_weights(opened.header, opened.codec)]
        return DecompressReport(out, written.frames, len(stretch.gops), lost, (*opened.reader.damage, *notes))


def find_stretch(archive: OpenArchive, start: Moment | None, duration: Fraction | None) -> Stretch:
    """The stretch of ``duration`` seconds from ``start``; None is from the beginning, or to the end.

    Raises:
        ConfigError: the archive has no such stretch.
    """
    if duration is None:
        return archive.stretch(start)
    if duration <= 0:
        raise ConfigError(f"a duration of {clock(duration)} holds no picture: give more than 0")
    return archive.stretch(start, (0 if start is None else archive.seconds_at(start)) + duration)


def watched(frames: Iterator[Frame], stretch: Stretch, watch: Watch | None) -> Iterator[Frame]:
    """``frames`` as they come, each counted for ``watch``."""
    done = Progress(0, stretch.frames, len(stretch.gops), stretch.payload_bytes)
    tell = watch or (lambda progress: None)
    tell(done)
    for frame in frames:
        yield frame
        done = replace(done, done=done.done + 1)
        tell(done)


def frames_lost(archive: OpenArchive, stretch: Stretch, frames: int) -> int:
    """How many frames of the source ``frames`` pictures of a stretch fall short of it."""
    if stretch.whole:
        return archive.header.frames - frames
    entries = archive.reader.index.gops[stretch.gops[0] : stretch.gops[-1] + 1]
    return sum(b.first_frame - a.first_frame - a.frames for a, b in pairwise(entries))


def _carried(
    archive: OpenArchive, stretch: Stretch, salvage: bool, head_only: bool
) -> tuple[Passthrough | None, list[str]]:
    reader = archive.reader
    if not reader.index.passthrough_bytes:
        return None, []
    try:
        if head_only:
            return Passthrough.read(reader.open_passthrough(), salvage=salvage), []
        if stretch.whole:
            return Passthrough.from_chunks(reader.passthrough(), salvage=salvage), []
        source = Passthrough.read(reader.open_passthrough(), salvage=salvage)
        unit = archive.header.time_base
        begin, end = (None if pts is None else pts * unit for pts in (stretch.begin, stretch.end))
        excerpt = Excerpt(begin, end)
        carried = excerpt.take(source)
        return carried, excerpt.notes
    except CorruptArchive as error:
        if not salvage:
            raise
        return None, [f"audio and other streams could not be salvaged: {error}"]


def upright(header: ArchiveHeader) -> Turn | None:
    """How an archive's pictures are turned for display; None when it is by no quarter of a turn."""
    return Turn.of(header.rotation, header.tags.display_matrix)


def _video_header(header: ArchiveHeader, stretch: Stretch, encoder: Encoder | None) -> VideoHeader:
    colour = header.colour
    if encoder is not None and not encoder.keeps_range:
        colour = replace(colour, range=LIMITED)
    return VideoHeader(
        width=header.width,
        height=header.height,
        time_base=header.time_base,
        rotation=header.rotation,
        sample_aspect=header.sample_aspect,
        colour=colour,
        average_rate=header.average_rate,
        last_duration=stretch.last_duration,
        tags=header.tags,
        durations=header.durations,
    )


def _turned(header: VideoHeader, turn: Turn) -> VideoHeader:
    """The header of the same pictures after ``turn``."""
    if not turn:
        return header
    made = replace(header, rotation=0, tags=replace(header.tags, display_matrix=None))
    if not turn.transposed:
        return made
    aspect = 1 / header.sample_aspect if header.sample_aspect else header.sample_aspect
    return replace(made, width=header.height, height=header.width, sample_aspect=aspect)


def _differences(written: MuxReport, carried: Passthrough | None) -> list[str]:
    left_out = [f"{one.kind} {one.index} ({one.codec}) left out: {one.reason}" for one in written.omitted]
    never_held = len(carried.head.omitted) if carried is not None else 0
    if len(left_out) > never_held:
        left_out.append(SEE_EXTRACT)
    return [*left_out, *written.notes]
