"""Decoded pictures and a passthrough in, one playable file out: .mp4, .mov, .mkv, .y4m, or a pipe.

Owns encoding, time stamps, rotation, aspect and colour tags of the written file. It writes under a temporary
name, reads the result's time stamps back, and only then renames it. It must not know archives or the codec.

Time stamps: .mp4 and .mov use the source's own time base as the track's timescale, so every one is kept
exactly. Matroska counts milliseconds: times are rounded to the nearest, and the report says by how much. y4m
has only a frame rate. What a codec stores of a picture is its `Encoder`'s affair.
"""

from __future__ import annotations

import os
import sys
import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from fractions import Fraction
from itertools import chain
from pathlib import Path

import av
from av.container import OutputContainer

from s2vc_ray.encoders import Encoder
from s2vc_ray.encoders import encoder as h264
from s2vc_ray.errors import ConfigError, ObjectExists, StorageError
from s2vc_ray.mux_report import MuxReport, mux_report
from s2vc_ray.passthrough_format import Passthrough
from s2vc_ray.pictures import Clock, TimedFrame, VideoHeader, add_video, checked, encode
from s2vc_ray.portable_tags import free_form
from s2vc_ray.priority import ordinary_priority
from s2vc_ray.readback import check_carried
from s2vc_ray.remux import Remux
from s2vc_ray.source_io import TAG_ERRORS
from s2vc_ray.storage_local import local_errors
from s2vc_ray.stream_tags import not_written
from s2vc_ray.tracks import REFUSALS
from s2vc_ray.y4m_file import write_y4m

__all__ = ["MuxReport", "VideoHeader", "check_output", "write_video"]

_WITHOUT = "a carried stream may be the reason: write it without them (--no-passthrough)"

_FORMATS = {".mp4": "mp4", ".mov": "mov", ".mkv": "matroska", ".y4m": "y4m"}


def write_video(
    out: str | os.PathLike[str],
    frames: Iterable[TimedFrame],
    header: VideoHeader,
    passthrough: Passthrough | None = None,
    *,
    encoder: Encoder | None = None,
    overwrite: bool = False,
) -> MuxReport:
    """Write pictures and carried streams to ``out``.

    Args:
        out: a path ending in .mp4, .mov, .mkv or .y4m, or "-" for standard output.
        frames: (pts in ``header.time_base`` units, uint8 RGB (H, W, 3)), pts ascending.
        passthrough: audio, subtitles and the rest, stream-copied as far as the container can hold them.
        encoder: None is H.264, and y4m on standard output, which carries Matroska for any other.
        overwrite: replace an existing file.

    Raises:
        ConfigError: an unknown suffix or encoder, a container or picture size that the encoder does not take, or
            times that the container cannot express.
        ObjectExists: ``out`` exists and ``overwrite`` is false.
        StorageError: no frames came, their sizes or order are wrong, the output cannot be written, or the written
            file reads back wrong.
        BrokenPipeError: whoever reads standard output has gone.
    """
    kind = check_output(out, encoder, overwrite=overwrite)
    chosen = encoder or h264()
    if os.fspath(out) == "-":
        try:
            if kind == "y4m":
                return write_y4m(sys.stdout.buffer, frames, header, passthrough)
            return _write_container(None, kind, frames, header, passthrough, chosen)
        except BrokenPipeError:
            raise
        except OSError as error:
            raise StorageError(f"cannot write to standard output: {error.strerror}") from error

    def write(temporary: Path) -> MuxReport:
        if kind == "y4m":
            with temporary.open("wb") as file:
                return write_y4m(file, frames, header, passthrough)
        return _write_container(temporary, kind, frames, header, passthrough, chosen)

    return _renamed_on_success(Path(out), write)


def check_output(out: str | os.PathLike[str], encoder: Encoder | None, *, overwrite: bool = False) -> str:
    """The format that `write_video` of the same arguments will write: "y4m" or FFmpeg's name of a container.

    Raises:
        ConfigError: an unknown suffix, one that the encoder does not go into, or no folder to write to.
        ObjectExists: ``out`` exists and ``overwrite`` is false.
    """
    if os.fspath(out) == "-":
        return "y4m" if encoder is None else "matroska"
    path, chosen = Path(out), encoder or h264()
    suffix = path.suffix.lower()
    kind = _FORMATS.get(suffix)
    if kind is None:
        raise ConfigError(f"{path}: unknown output format; use one of {', '.join(_FORMATS)} or -")
    if kind != "y4m" and suffix not in chosen.containers:
        raise ConfigError(f"{path}: {suffix} cannot hold {chosen.name}; use {' or '.join(chosen.containers)}")
    if not path.parent.is_dir():
        raise ConfigError(f"{path.parent} is no folder: make it first")
    if path.is_dir():
        raise ConfigError(f"{path} is a folder: name a file in it")
    if path.exists() and not overwrite:
        raise ObjectExists(f"{path} exists; remove it, choose another name or say --overwrite")
    return kind


def _renamed_on_success(path: Path, write: Callable[[Path], MuxReport]) -> MuxReport:
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.partial")
    with local_errors(f"write {path}"):
        try:
            report = write(temporary)
            with temporary.open("rb+") as file:
                os.fsync(file.fileno())
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
    return report


def _write_container(
    target: Path | None,
    kind: str,
    frames: Iterable[TimedFrame],
    header: VideoHeader,
    passthrough: Passthrough | None,
    encoder: Encoder,
) -> MuxReport:
    timed = checked(frames, header)
    first = next(timed)
    # No container is safe with pictures before time 0: everything moves later by the same amount.
    shift = max(Fraction(0), -first[0] * header.time_base)
    clock = Clock.of(kind, header, shift)
    written: list[int] = []
    if kind != "matroska":
        options = {"movie_timescale": str(clock.rate), "video_track_timescale": str(clock.rate)}
        # Its bit rate box would be appended to the extradata of carried subtitles.
        options["write_btrt"] = "0"
        if passthrough is not None and free_form(passthrough.head):
            options["movflags"] = "use_metadata_tags"
    else:
        # Audio may begin before time 0 (codec priming); making room for it would change every time.
        options = {"avoid_negative_ts": "disabled"}
    # Muxers queue packets: what one of a carried stream is refused for may be said of a picture, or at the end.
    # Reading the file back tells then whether every picture is there.
    forgiven = () if passthrough is None or target is None else REFUSALS
    out = av.open(
        "pipe:1" if target is None else str(target),
        "w",
        format=kind,
        container_options=options,
        metadata_errors=TAG_ERRORS,
    )
    with _closing(out, forgiven):
        remux = None if passthrough is None else Remux(out, passthrough, shift)
        if remux is not None and passthrough is not None:
            remux.add_streams(before=passthrough.head.video_index)
        place = len(remux.tracks) if remux else 0
        video = add_video(out, header, encoder, clock)
        if remux is not None:
            remux.add_streams()
            remux.describe(video)
        try:
            with ordinary_priority():  # this opens encoders
                out.start_encoding()
        except (av.FFmpegError, ValueError) as refused:
            size = f"{header.width}x{header.height}"
            raise ConfigError(f"cannot write {encoder.name} of {size} into {kind} ({refused})") from refused
        for packet in encode(video, _noting(chain([first], timed), written), header, clock):
            if remux is not None and packet.dts is not None:
                remux.write_until(packet.dts * Fraction(1, clock.rate))
            with suppress(*forgiven):
                out.mux(packet)
        if remux is not None:
            remux.write_until(None)
    notes = [f"all times are {float(shift):.6f} s later than in the source"] if shift else []
    if remux is not None:
        notes += remux.notes
        if remux.passthrough.damage:
            notes.append(f"audio and other streams end early: {remux.passthrough.damage}")
    notes += not_written(encoder.name, header.tags, header.height)
    if kind == "matroska" and not encoder.keeps_aspect and header.sample_aspect not in (0, 1):
        notes.append(f"nothing in the file says that samples are {header.sample_aspect} as wide as high")
    expected = [pts * header.time_base + shift for pts in written]
    rounded: dict[int, Fraction] = {}
    if target is not None:
        error = _check_times(target, place, expected)
        if remux is not None:
            rounded, changes = check_carried(target, remux, place)
            notes += changes
    else:  # a pipe: nothing can be read back
        notes += remux.refusals() if remux else []
        error = max(abs(Fraction(clock.tick(pts), clock.rate) - at) for pts, at in zip(written, expected))
    if remux is None:
        return mux_report(len(written), error, notes=notes)
    return mux_report(len(written), error, remux.carried, remux.omitted, rounded, notes)


@contextmanager
def _closing(out: OutputContainer, forgiven: tuple[type[Exception], ...]) -> Iterator[None]:
    try:
        yield
    finally:
        with suppress(*forgiven):
            out.close()


def _noting(frames: Iterator[TimedFrame], written: list[int]) -> Iterator[TimedFrame]:
    for pts, rgb in frames:
        written.append(pts)
        yield pts, rgb


def _check_times(path: Path, video: int, expected: list[Fraction]) -> Fraction:
    """Largest difference in seconds between the times of the file's stream ``video`` and ``expected``.

    Raises:
        StorageError: the file cannot be read, or does not hold as many frames as were written.
    """
    try:
        with av.open(str(path), metadata_errors=TAG_ERRORS) as file:
            stream = file.streams[video]
            unit = stream.time_base or Fraction(1)
            times = sorted(packet.pts * unit for packet in file.demux(stream) if packet.pts is not None)
    except (av.FFmpegError, IndexError) as error:
        raise StorageError(
            f"{path.name}: what was written cannot be read back ({error}); {_WITHOUT}"
        ) from error
    if len(times) != len(expected):
        raise StorageError(
            f"{path.name}: {len(expected)} frames were written, {len(times)} read back; {_WITHOUT}"
        )
    return max(abs(a - b) for a, b in zip(times, expected, strict=True))
