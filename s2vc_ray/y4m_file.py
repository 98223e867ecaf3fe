"""Decoded pictures as one y4m file or pipe, and what that could not say. Knows no container."""

from __future__ import annotations

from collections.abc import Iterable
from fractions import Fraction
from typing import IO

from s2vc_ray import y4m
from s2vc_ray.colour import FULL, UNSPECIFIED, effective_matrix
from s2vc_ray.mux_report import MuxReport, mux_report
from s2vc_ray.passthrough_format import Passthrough
from s2vc_ray.passthrough_head import Omitted
from s2vc_ray.pictures import TimedFrame, VideoHeader, YuvConverter, checked
from s2vc_ray.stream_tags import not_written


def write_y4m(
    file: IO[bytes], frames: Iterable[TimedFrame], header: VideoHeader, passthrough: Passthrough | None
) -> MuxReport:
    """Write ``frames`` to ``file`` and flush it; of ``passthrough`` it is said that it is not there.

    Raises:
        StorageError: no frames came, or their sizes or order are wrong.
        OSError: the file takes no more.
    """
    rate = header.average_rate or Fraction(25)
    full = header.colour.range == FULL
    fields = header.tags.field_order
    file.write(y4m.header_line(header.width, header.height, rate, header.sample_aspect, full, fields))
    convert = YuvConverter(header, y4m.FORMAT)
    count, first, error = 0, 0, Fraction(0)
    for pts, rgb in checked(frames, header):
        first = pts if count == 0 else first
        error = max(error, abs((pts - first) * header.time_base - count / rate))
        y4m.write_frame(file, convert(rgb))
        count += 1
    file.flush()
    notes = [f"y4m shows every frame for {1 / rate} s"] if error else []
    notes += not_written("y4m", header.tags, header.height)
    if first:
        notes.append("y4m begins at time 0")
    if header.rotation:
        notes.append(f"y4m cannot say that the picture is rotated by {header.rotation} degrees")
    matrix = effective_matrix(header.colour.matrix, header.width, header.height)
    if matrix != effective_matrix(UNSPECIFIED, header.width, header.height):
        notes.append(f"y4m cannot name the colour matrix: tell the reader that it is {matrix} (ITU-T H.273)")
    omitted: list[Omitted] = []
    if passthrough is not None:
        head = passthrough.head
        omitted += head.omitted
        omitted += [
            Omitted(one.index, one.kind, one.codec, "y4m holds only pictures") for one in head.streams
        ]
        omitted += [
            Omitted(one.index, "attachment", one.name, "y4m holds only pictures") for one in head.attachments
        ]
        if head.metadata or head.chapters:
            notes.append("y4m holds no tags and no chapters")
    return mux_report(count, error, omitted=omitted, notes=notes)
