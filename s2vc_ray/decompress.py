"""The decompress job: one archive in, one playable file out, a few GOPs at a time, in flat memory.

Needs the archive and the model, nothing else: no source, no manifest, no Ray. Reaches the codec only when it
loads it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING

from s2vc_model.bitstream import EncodedGop
from s2vc_ray.archive import ArchiveHeader, ArchiveReader, GopRecord
from s2vc_ray.errors import ArchiveError, ConfigError, CorruptArchive, WrongWeights
from s2vc_ray.mux import MuxReport, VideoHeader, write_video
from s2vc_ray.passthrough import Passthrough
from s2vc_ray.storage import open_source
from s2vc_ray.worker import CodecLoader, LoadedCodec, load_s2vc

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

_CODEC = "s2vc"
_MEMORY = 4 << 30
"""What the GOPs decoded side by side may take, where the caller does not say how many."""
_WORKING = 600
"""Bytes that decoding takes for each pixel of a frame, buffers and activations together; measured on a CPU."""


@dataclass(frozen=True, slots=True)
class DecompressReport:
    """What came out.

    Attributes:
        frames, gops: decoded and written.
        frames_lost: frames of the source that the archive does not hold, or that its damage took.
        notes: whatever else differs from the source, one sentence each.
    """

    out: str
    frames: int
    gops: int
    frames_lost: int
    notes: tuple[str, ...]


def decompress(
    archive: str,
    out: str,
    *,
    model: str = "small",
    device: str = "auto",
    salvage: bool = False,
    batch: int = 0,
    overwrite: bool = False,
    on_gop: Callable[[int, int], None] | None = None,
    load_codec: CodecLoader = load_s2vc,
) -> DecompressReport:
    """Decode ``archive`` (a path or ``s3://`` object) to .mp4, .mkv, .y4m, or ``-``: y4m on stdout.

    Args:
        model: the packaged model's name, or the weights directory, that coded the archive.
        salvage: decode what is whole of a damaged or truncated archive.
        batch: GOPs decoded side by side, on a GPU in lockstep; 0 is as many as the codec likes and 4 GiB hold.
        overwrite: replace ``out``.
        on_gop: called with (GOPs done, GOPs in all) as decoding goes on.

    Raises:
        ObjectMissing: there is no such archive.
        ArchiveError: not an archive, damaged, or (`WrongWeights`) coded by another model.
        ModelError: the model cannot be loaded, or decoded symbols are not those that were coded.
        ObjectExists: ``out`` exists and ``overwrite`` is false.
        ConfigError: ``out``'s format is unknown.
    """
    if batch < 0:
        raise ConfigError(f"batch is {batch}: give 1 or more, or 0 to have it chosen")
    with open_source(archive) as stream:
        reader = ArchiveReader(stream, salvage=salvage)
        if not len(reader):
            raise CorruptArchive(f"{archive}: no whole GOP is left in it")
        codec = load_codec(model, device)
        check_weights(reader.header, codec, archive)
        passthrough, notes = _carried(reader, salvage)
        frames = _frames(reader, codec, batch or _fitting(reader, codec.parallel), on_gop)
        written = write_video(out, frames, _video_header(reader.header), passthrough, overwrite=overwrite)
        lost = reader.header.frames - written.frames
        return DecompressReport(
            out, written.frames, len(reader), lost, (*_damage(reader), *notes, *_differences(written))
        )


def check_weights(header: ArchiveHeader, codec: LoadedCodec, archive: str) -> None:
    """Refuse a codec that did not code the archive.

    Raises:
        WrongWeights: the digests differ; the message names both.
    """
    if header.weights_sha256 != codec.weights_sha256:
        raise WrongWeights(
            f"{archive} was coded by model {header.model_id!r} (preset {header.preset}, weights "
            f"{header.weights_sha256[:16]}); model {codec.model_id!r} has {codec.weights_sha256[:16]}: "
            "give the directory of the right ones with --model"
        )


def _fitting(reader: ArchiveReader, most: int) -> int:
    """As many GOPs, up to ``most``, as fit the memory: the frames held of each, and what decoding one takes."""
    frames = max(entry.frames for entry in reader.index.gops)
    one = reader.header.width * reader.header.height * (3 * frames + _WORKING)
    return max(1, min(most, _MEMORY // one))


def _frames(
    reader: ArchiveReader, codec: LoadedCodec, batch: int, on_gop: Callable[[int, int], None] | None
) -> Iterator[tuple[int, npt.NDArray[np.uint8]]]:
    records, done = reader.gops(), 0
    while group := list(islice(records, batch)):
        gops = [_payload(record, reader.header) for record in group]
        later: list[list[npt.NDArray[np.uint8]]] = [[] for _ in group]
        for at, pictures in enumerate(codec.iter_decode(gops)):
            for number, picture in pictures.items():
                if number:
                    later[number].append(picture)
                else:
                    yield group[0].pts[at], picture
        for record, held in zip(group, later, strict=True):
            yield from zip(record.pts, held, strict=record is not group[0])
            done += 1
            if on_gop is not None:
                on_gop(done, len(reader))


def _payload(record: GopRecord, header: ArchiveHeader) -> EncodedGop:
    if record.codec != _CODEC:
        raise ArchiveError(
            f"GOP {record.index} is coded by {record.codec!r}, which this version cannot decode"
        )
    gop = EncodedGop.from_payload(record.payload)
    if (gop.width, gop.height, gop.frames) != (header.width, header.height, record.frames):
        raise CorruptArchive(
            f"GOP {record.index}: its payload holds {gop.frames} frames of {gop.width}x{gop.height}, "
            f"its record {record.frames} of {header.width}x{header.height}"
        )
    return gop


def _carried(reader: ArchiveReader, salvage: bool) -> tuple[Passthrough | None, tuple[str, ...]]:
    if not reader.index.passthrough_bytes:
        return None, ()
    try:
        return Passthrough.from_chunks(reader.passthrough()), ()
    except CorruptArchive as error:
        if not salvage:
            raise
        return None, (f"audio and other streams could not be salvaged: {error}",)


def _video_header(header: ArchiveHeader) -> VideoHeader:
    return VideoHeader(
        width=header.width,
        height=header.height,
        time_base=header.time_base,
        rotation=header.rotation,
        sample_aspect=header.sample_aspect,
        colour=header.colour,
        average_rate=header.average_rate,
        last_duration=header.last_duration,
    )


def _damage(reader: ArchiveReader) -> tuple[str, ...]:
    return tuple(str(part) for part in reader.damage)


def _differences(written: MuxReport) -> tuple[str, ...]:
    left_out = tuple(
        f"{one.kind} {one.index} ({one.codec}) left out: {one.reason}" for one in written.omitted
    )
    return left_out + written.notes
