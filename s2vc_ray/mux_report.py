"""``MuxReport``: what a written file holds of what was to be written, fit to be shown."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from fractions import Fraction
from types import MappingProxyType

from s2vc_ray.passthrough_head import Omitted
from s2vc_ray.portable_tags import printable


@dataclass(frozen=True, slots=True)
class MuxReport:
    """What was written, and what could not be.

    Attributes:
        frames: pictures written.
        pts_error: largest difference in seconds between a frame's time and what the file says; 0 is exact.
        carried: source indices of the streams that are in the file.
        omitted: streams and attachments that are not, with reasons.
        rounded: source index of a carried stream to the largest rounding of its packets' times in seconds.
        notes: whatever else differs from the source, one sentence each: tags that were not kept,
            streams whose packets the container stores in another form (such as AAC without its ADTS headers).
    """

    frames: int
    pts_error: Fraction
    carried: tuple[int, ...]
    omitted: tuple[Omitted, ...]
    rounded: dict[int, Fraction]
    notes: tuple[str, ...]


def mux_report(
    frames: int,
    pts_error: Fraction,
    carried: Iterable[int] = (),
    omitted: Iterable[Omitted] = (),
    rounded: Mapping[int, Fraction] = MappingProxyType({}),
    notes: Iterable[str] = (),
) -> MuxReport:
    """The report with names and tags of the source made fit to be shown."""
    shown = [replace(one, codec=printable(one.codec), reason=printable(one.reason)) for one in omitted]
    return MuxReport(
        frames, pts_error, tuple(carried), tuple(shown), dict(rounded), tuple(map(printable, notes))
    )
