"""The worst frames of an audit as pairs of pictures: out of the archive, and out of the source where it can be read.

Reads and decodes one GOP for each. Whatever is not to be had is a reason in words: a report is never lost for a
picture. Knows no HTML.
"""

from __future__ import annotations

import functools
import io
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Any

from s2vc_model.errors import ModelError
from s2vc_ray.access import Frame, OpenArchive, open_archive
from s2vc_ray.archive import ArchiveHeader
from s2vc_ray.audit import AuditReport
from s2vc_ray.errors import S2vcError, SourceError
from s2vc_ray.export import shown
from s2vc_ray.lanes import CodecLoader, load_s2vc
from s2vc_ray.moments import FrameNumber
from s2vc_ray.source_frames import SourceFrames
from s2vc_ray.storage import Storage, check_key, local_path
from s2vc_ray.verify_reference import find_source

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

SIDE = 960
"""Longest side of a still in pixels; larger pictures are scaled down."""
_QUALITY = 88


@dataclass(frozen=True, slots=True)
class Wanted:
    """A GOP among the worst by ``metric``: what an audit says of it, and its source's place by the manifest."""

    metric: str
    row: dict[str, Any]
    source_uri: str
    source_name: str


@dataclass(frozen=True, slots=True)
class StillPair:
    """One frame from both sides: JPEG bytes, or None and why not.

    Attributes:
        frame: its number in the video; None when the archive cannot be read.
        exact: whether it is the worst frame; else which one is was not recorded, and this is the GOP's middle one.
        width, height: of the frame as shown, before it was scaled down; 0 when there is none.
    """

    wanted: Wanted
    frame: int | None
    seconds: Fraction | None
    exact: bool
    decoded: bytes | None = None
    source: bytes | None = None
    decoded_reason: str = ""
    source_reason: str = ""
    width: int = 0
    height: int = 0


@dataclass(frozen=True, slots=True)
class StillOptions:
    """How stills are made.

    Attributes:
        count: most of them.
        sources: a folder or prefix in which sources lie now; None: where the manifest says.
        model, device: as `open_archive`.
    """

    count: int = 6
    sources: str | None = None
    model: str = "small"
    device: str = "auto"


def choose(report: AuditReport, count: int) -> list[tuple[str, dict[str, Any]]]:
    """The worst GOPs of each metric in turn, no GOP twice: (metric, row of ``report.worst``)."""
    chosen: list[tuple[str, dict[str, Any]]] = []
    seen: set[tuple[str, int]] = set()
    longest = max(map(len, report.worst.values()), default=0)
    for at in range(longest):
        for metric, rows in report.worst.items():
            if at < len(rows) and (key := (rows[at]["archive"], rows[at]["gop_index"])) not in seen:
                seen.add(key)
                chosen.append((metric, rows[at]))
    return chosen[:count]


def take_stills(
    storage: Storage,
    wanted: Sequence[Wanted],
    options: StillOptions,
    *,
    watch: Callable[[int], None] = lambda done: None,
    load_codec: CodecLoader = load_s2vc,
) -> Iterator[StillPair]:
    """Make the stills, in order; ``watch`` is told how many are done."""
    load = functools.cache(load_codec)
    sources: dict[str, SourceFrames] = {}
    for done, one in enumerate(wanted):
        watch(done)
        yield _pair(storage, one, options, load, sources)
    watch(len(wanted))


def _pair(
    storage: Storage,
    wanted: Wanted,
    options: StillOptions,
    load: CodecLoader,
    sources: dict[str, SourceFrames],
) -> StillPair:
    worst = wanted.row[f"{wanted.metric}_worst_frame"]
    try:
        uri = _uri(storage, wanted.row["archive"])
        archive = open_archive(uri, model=options.model, device=options.device, batch=1, load_codec=load)
    except (S2vcError, ModelError) as error:
        why = f"The archive cannot be read: {error}"
        return StillPair(wanted, None, None, worst is not None, decoded_reason=why, source_reason=why)
    with archive:
        try:
            number, pts, seconds = _place(archive, wanted.row["gop_index"], worst)
        except (S2vcError, ModelError) as error:
            why = f"The archive cannot be read: {error}"
            return StillPair(wanted, None, None, worst is not None, decoded_reason=why, source_reason=why)
        decoded, decoded_reason = _tried(lambda: _decoded(archive, number))
        source, source_reason = _tried(lambda: _source(archive.header, wanted, options.sources, pts, sources))
    height, width = next((one.shape[:2] for one in (decoded, source) if one is not None), (0, 0))
    return StillPair(
        wanted,
        number,
        seconds,
        worst is not None,
        None if decoded is None else _jpeg(decoded),
        None if source is None else _jpeg(source),
        decoded_reason,
        source_reason,
        width,
        height,
    )


def _uri(storage: Storage, key: str) -> str:
    """The archive under a key that a manifest names; a path is written as it is, since a URI would spell '%' otherwise.

    Raises:
        StorageError: it is no key under a destination.
    """
    check_key(key)
    return str(local_path(storage.uri) / key) if storage.uri.startswith("file://") else f"{storage.uri}/{key}"


def _place(archive: OpenArchive, gop: int, worst: int | None) -> tuple[int, int, Fraction]:
    """Number, pts and seconds of the frame to show."""
    entries = archive.reader.index.gops
    position = next((at for at, entry in enumerate(entries) if entry.index == gop), None)
    if position is None:
        raise SourceError(f"it holds no GOP {gop}")
    record = archive.reader.gop(position)
    at = min(len(record.pts) // 2 if worst is None else worst, len(record.pts) - 1)
    seconds = (record.pts[at] - entries[0].first_pts) * archive.header.time_base
    return record.first_frame + at, record.pts[at], seconds


def _tried(
    take: Callable[[], npt.NDArray[np.uint8]],
) -> tuple[npt.NDArray[np.uint8] | None, str]:
    try:
        return take(), ""
    except (S2vcError, ModelError, ImportError) as error:
        return None, str(error)


def _decoded(archive: OpenArchive, number: int) -> npt.NDArray[np.uint8]:
    return shown(next(archive.frames(FrameNumber(number))), archive.header)


def _source(
    header: ArchiveHeader,
    wanted: Wanted,
    root: str | None,
    pts: int,
    sources: dict[str, SourceFrames],
) -> npt.NDArray[np.uint8]:
    uri = find_source(root, wanted.source_uri, wanted.source_name)
    if uri not in sources:
        sources[uri] = SourceFrames(uri, header)
    rgb = sources[uri].frame(pts)
    return shown(Frame(0, pts, Fraction(0), rgb), header)


def _jpeg(rgb: npt.NDArray[np.uint8]) -> bytes:
    from PIL import Image

    picture = Image.fromarray(rgb)
    picture.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS)
    out = io.BytesIO()
    picture.save(out, "JPEG", quality=_QUALITY, subsampling=0)
    return out.getvalue()
