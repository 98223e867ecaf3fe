"""Decoded pictures in the form that other tools want: another codec's file, a pipe, image files, one picture.

Decoding is `access`'s and `decompress`'s affair, files are `mux`'s and `stills`'.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np
import numpy.typing as npt

from s2vc_ray.access import Frame, OpenArchive, open_archive
from s2vc_ray.archive import ArchiveHeader
from s2vc_ray.decompress import (
    DecompressReport,
    Watch,
    decompress,
    find_stretch,
    frames_lost,
    upright,
    watched,
)
from s2vc_ray.encoders import CODECS, Encoder, encoder
from s2vc_ray.errors import ConfigError, ObjectExists
from s2vc_ray.gop_decoder import told_of_weights
from s2vc_ray.lanes import CodecLoader, load_s2vc
from s2vc_ray.moments import Moment
from s2vc_ray.stills import StillPattern, refuse_existing, write_sequence, write_still
from s2vc_ray.upright import Turn, square

Y4M, FRAMES = "y4m", "frames"
FORMATS = (*CODECS, Y4M, FRAMES)
_PICTURES = "%06d.png"


def export(
    archive: str,
    out: str,
    *,
    codec: str | None = None,
    crf: int | None = None,
    preset: str | None = None,
    model: str = "small",
    device: str = "auto",
    salvage: bool = False,
    batch: int = 0,
    start: Moment | None = None,
    duration: Fraction | None = None,
    passthrough: bool = True,
    overwrite: bool = False,
    watch: Watch | None = None,
    load_codec: CodecLoader = load_s2vc,
) -> DecompressReport:
    """Decode ``archive`` (a path or ``s3://`` object) into the codec of choice.

    Args:
        out: a file whose suffix names the container; a folder or a pattern such as ``shots/%06d.png`` for
            ``frames``; or ``-`` for standard output: y4m, or Matroska with any other codec.
        codec: one of `FORMATS`; None: what the suffix suggests.
        crf, preset: as `encoders.encoder`.

    The other arguments and the errors are those of `decompress`.
    """
    chosen = codec or _usual(out)
    if chosen not in FORMATS:
        raise ConfigError(f"unknown codec {chosen!r}; use one of {', '.join(FORMATS)}")
    if chosen in CODECS:
        with_encoder = _fitting(chosen, encoder(chosen, crf=crf, preset=preset), out)
    elif crf is not None or preset is not None:
        raise ConfigError(f"{chosen} stores pictures as they are: leave --crf and --preset out")
    else:
        with_encoder = None
    if chosen == FRAMES:
        with open_archive(
            archive, model=model, device=device, salvage=salvage, batch=batch, load_codec=load_codec
        ) as opened:
            return _export_frames(opened, out, start, duration, overwrite, watch)
    if chosen == Y4M and out != "-" and Path(out).suffix.lower() != ".y4m":
        raise ConfigError(f"{out}: y4m goes into a .y4m file, or to - for standard output")
    return decompress(
        archive,
        out,
        model=model,
        device=device,
        salvage=salvage,
        batch=batch,
        start=start,
        duration=duration,
        passthrough=passthrough,
        encoder=with_encoder,
        overwrite=overwrite,
        watch=watch,
        load_codec=load_codec,
    )


def _usual(out: str) -> str:
    """The codec that an output's name suggests."""
    suffix = Path(out).suffix.lower()
    if out == "-" or suffix == ".y4m":
        return Y4M
    if suffix in (".png", ".jpg", ".jpeg"):
        return FRAMES
    return "prores" if suffix == ".mov" else "h264"


def _fitting(codec: str, chosen: Encoder, out: str) -> Encoder:
    suffix = Path(out).suffix.lower()
    if out != "-" and suffix not in chosen.containers:
        raise ConfigError(
            f"{out}: {codec} goes into {' or '.join(chosen.containers)}, not into {suffix or 'a name without suffix'}"
        )
    return chosen


def _export_frames(
    archive: OpenArchive,
    out: str,
    start: Moment | None,
    duration: Fraction | None,
    overwrite: bool,
    watch: Watch | None,
) -> DecompressReport:
    if out == "-":
        raise ConfigError("frames are files: give a folder or a pattern such as shots/%06d.png, or take y4m")
    folder = out.endswith("/") or Path(out).is_dir() or not Path(out).suffix
    pattern = StillPattern.parse(str(Path(out) / _PICTURES) if folder else out)
    if not pattern.numbered:
        raise ConfigError(f"{out}: every frame needs a name of its own, such as {Path(out).stem}_%06d.png")
    if not overwrite:
        refuse_existing(pattern)
    header = archive.header
    stretch = find_stretch(archive, start, duration)
    turn = upright(header) or Turn()

    def pictures() -> Iterator[tuple[int, Fraction, npt.NDArray[np.uint8]]]:
        begin = None
        for frame in watched(archive.decode(stretch), stretch, watch):
            begin = frame.seconds if begin is None else begin
            yield frame.number, frame.seconds - begin, turn(frame.rgb)

    count = write_sequence(pattern, pictures(), overwrite=overwrite)
    notes = [f"files are named by frame number, from 0; their times are in {pattern.times}"]
    if turn:
        notes.append("image files cannot say how they are to be turned: they are upright")
    if header.sample_aspect not in (0, 1):
        notes.append(f"samples are {header.sample_aspect} as wide as high; pictures are not stretched")
    if archive.reader.index.passthrough_bytes:
        notes.append("audio and other streams are not in image files")
    lost = frames_lost(archive, stretch, count)
    notes += told_of_weights(header, archive.codec)
    return DecompressReport(out, count, len(stretch.gops), lost, (*archive.reader.damage, *notes))


@dataclass(frozen=True, slots=True)
class Still:
    """One picture that was written: where, which frame it is, its seconds since the first, its size in pixels."""

    out: str
    frame: int
    seconds: Fraction
    width: int
    height: int


def stills(
    archive: str,
    at: list[Moment],
    out: str,
    *,
    raw: bool = False,
    model: str = "small",
    device: str = "auto",
    overwrite: bool = False,
    load_codec: CodecLoader = load_s2vc,
) -> list[Still]:
    """Write the pictures that are on screen at the moments ``at``; reads and decodes only their GOPs.

    Args:
        out: a .png or .jpg file; with several moments a pattern such as ``shot_%06d.png``, filled in with the
            frames' numbers.
        raw: the picture as it was coded: neither turned for display nor stretched to square samples.

    Raises:
        ConfigError: ``out`` is of another kind, or the archive has no such moment.
        ObjectExists: a file is there and ``overwrite`` is false.

    Other errors are those of `open_archive` and `OpenArchive.frames`.
    """
    pattern = StillPattern.parse(out)
    if len(at) != 1 and not pattern.numbered:
        raise ConfigError(f"{out}: several pictures need several names, such as {Path(out).stem}_%06d.png")
    if not pattern.numbered and not overwrite:
        refuse_existing(pattern)
    written = []
    with open_archive(archive, model=model, device=device, batch=1, load_codec=load_codec) as opened:
        for moment in at:
            frame = next(opened.frames(moment))
            path = pattern.path(frame.number)
            if not overwrite and path.exists():
                raise ObjectExists(f"{path} exists; remove it, choose another name or say --overwrite")
            rgb = frame.rgb if raw else shown(frame, opened.header)
            write_still(path, rgb)
            written.append(Still(str(path), frame.number, frame.seconds, rgb.shape[1], rgb.shape[0]))
    return written


def shown(frame: Frame, header: ArchiveHeader) -> npt.NDArray[np.uint8]:
    """The picture as a player shows it: square samples, upright; uint8 (H, W, 3)."""
    return (upright(header) or Turn())(square(frame.rgb, header.sample_aspect))
