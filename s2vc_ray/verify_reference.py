"""What the manifest and the source still say of an archive that is to be measured again. Knows nothing of codecs."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, islice

from s2vc_ray.archive import ArchiveHeader
from s2vc_ray.config import METRICS
from s2vc_ray.errors import ObjectMissing, SourceError
from s2vc_ray.fixity import fixity
from s2vc_ray.framemd5 import read_frame_list
from s2vc_ray.manifest import part_key, read_columns
from s2vc_ray.plan import read_fixity
from s2vc_ray.probe import probe
from s2vc_ray.sources import open_media
from s2vc_ray.split import split_at
from s2vc_ray.storage import Storage, stat_source
from s2vc_ray.values import FrameDigest
from s2vc_ray.verify_decode import Reference, Row
from s2vc_ray.versions import frame_list_key

PLACES = ("payload_offset", "payload_bytes", "frames_encoded")
"""Columns that an archive's index answers for."""
_MEASURED = (
    "source_uri",
    "source_name",
    "frames_expected",
    "frames_encoded",
    "metric_policy",
    "metric_frames",
    *(f"{name}_{kind}" for name in METRICS for kind in ("mean", "worst")),
)


@dataclass(frozen=True, slots=True)
class Word:
    """What the manifest says of the archive under ``key``; all else is None when it says nothing."""

    key: str
    video: str | None = None
    job: str | None = None
    name: str | None = None
    size: int | None = None
    sha256: str | None = None
    frames_sha256: str | None = None
    version: int | None = None

    @property
    def frame_list_key(self) -> str:
        """Where the list of source frames lies."""
        return frame_list_key(self.key, self.version)


def rows_of(storage: Storage | None, word: Word, columns: Sequence[str]) -> dict[int, Row]:
    """Columns of the manifest's rows of an archive, by GOP; none when nobody described it."""
    if storage is None or word.job is None or word.video is None:
        return {}
    data = storage.read(part_key(word.job, word.video))
    table = read_columns(data, ["video_id", "gop_index", *columns])
    return {row["gop_index"]: row for row in table.to_pylist() if row["video_id"] == word.video}


def find_reference(header: ArchiveHeader, word: Word, storage: Storage | None, root: str | None) -> Reference:
    """The source of an archive, to compare with; looked for below ``root``, if that is given.

    Raises:
        SourceError: what is there is not the source or cannot be read, or nothing was measured before.
        ObjectMissing: it cannot be found.
    """
    rows = rows_of(storage, word, _MEASURED)
    if storage is None or not rows:
        raise SourceError("no manifest row says what was measured")
    if not any(row["metric_frames"] for row in rows.values()):
        raise SourceError("nothing was measured when it was compressed")
    first = next(iter(rows.values()))
    uri = find_source(root, first["source_uri"], first["source_name"])
    if stat_source(uri).size != header.source_size:
        raise SourceError(f"{uri} is not of the size that the source had, {header.source_size} bytes")
    if read_fixity(uri).sha256 != header.source_sha256:
        raise SourceError(f"{uri} is not the source: its SHA-256 is not {header.source_sha256}")
    with open_media(uri) as media:
        info = probe(media, uri=uri)
    # Where GOPs end need not follow from the header: the rows say how long each is.
    *starts, _ = accumulate((rows[index]["frames_expected"] for index in sorted(rows)), initial=0)
    specs = split_at(info, source_uri=uri, video_id=word.video or "", starts=starts)
    return Reference(uri, {spec.index: spec for spec in specs}, rows, _listed(storage, word, rows))


def find_source(root: str | None, uri: str, name: str) -> str:
    """Where a source is: as the manifest says, or below or at ``root``, if that is given.

    Raises:
        ObjectMissing: nowhere.
    """
    if root is None:
        stat_source(uri)
        return uri
    folder = root.rstrip("/")
    for candidate in (f"{folder}/{name}", f"{folder}/{name.rpartition('/')[2]}", root):
        with contextlib.suppress(ObjectMissing):
            stat_source(candidate)
            return candidate
    raise ObjectMissing(f"no {name} under {root}")


def _listed(storage: Storage, word: Word, rows: Mapping[int, Row]) -> dict[int, tuple[FrameDigest, ...]]:
    """The frame list cut into GOPs; empty where there is none that the manifest describes."""
    if word.frames_sha256 is None:
        return {}
    try:
        with storage.open(word.frame_list_key) as stream:
            if fixity(stream).sha256 != word.frames_sha256:
                return {}
            stream.seek(0)
            digests = (frame.digest for frame in read_frame_list(stream))
            return {index: tuple(islice(digests, rows[index]["frames_encoded"])) for index in sorted(rows)}
    except ObjectMissing:
        return {}
