"""The manifest: one Parquet schema, one immutable part file per video and job, written last.

Parts lie at ``manifest/job=<job>/<video id>.parquet`` under the destination, the folder being the ``job``
column, so that DuckDB, Polars, pandas and Spark read them as one hive-partitioned table. A video that was
compressed, in full or in part, has one row per GOP; a video that failed has one row with
``status = 'failed'``, the error, and the GOP where it happened if one is known; one that a policy excludes has one with
``status = 'excluded'``, and ``error`` says by which pattern.

Several jobs may describe one video: a failed one and the one that made it good, or two drivers that ran side by
side. The rule, for everybody who reads it: the archive that lies there is described by the rows of the latest job (by
``created``, then ``job``) that compressed it; of several videos that name one archive, by the latest of theirs. A later
failure is told beside it. A video that never was compressed is described by its latest failure or exclusion.

Columns are only ever added, never renamed or given another meaning; ``schema_version`` counts the additions. Knows
nothing of Ray or torch.
"""

from __future__ import annotations

import io
import re
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from itertools import chain, islice
from types import MappingProxyType
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from s2vc_ray.errors import ObjectExists, StorageError
from s2vc_ray.storage import Storage, open_storage

SCHEMA_VERSION = 7
ROOT = "manifest"
UNCODED = ("failed", "excluded")
"""``status`` of rows that describe no archive."""
_ROW_GROUP = 1024
"""Rows of a part that are in memory."""

_VIDEO_ID = re.compile(r"[0-9a-f]{16}")

QUALITY: Mapping[str, bool] = MappingProxyType(
    {
        "psnr": True,
        "ms_ssim": True,
        "lpips_alex": False,
        "dists": False,
        "vmaf": True,
        "vmaf_neg": True,
        "flicker": False,
    }
)
"""Metrics that the manifest has columns for, and whether higher is better."""


@dataclass(frozen=True, slots=True)
class ManifestRow:
    """One GOP, or one failed video. None where a figure does not exist; sizes in bytes, times in seconds.

    Attributes:
        job, created: the run that wrote the row, and when (UTC).
        config_hash, config: hash of what decides the archive's bytes; all options as JSON.
        source_*: where the source lay, and its size, store tag and SHA-256 when it was read.
        source_notes: what was decided or noticed about the source's pictures, such as their bit depth, or that a GOP
            was not where the source's index says.
        archive, archive_bytes, archive_sha256: key under the destination, and the published archive's fixity.
        framemd5_sha256: of ``<source_name>.framemd5``, the list of decoded source frames beside the archive; None
            where none was made (before version 2) or none is left.
        creator: program and version that wrote the archive.
        archive_version, replaces: which version of the video's archive this is, and the SHA-256 of the one before it,
            from which it has the GOPs that were not coded again; None in the first. See ``docs/reencode.md``.
        coded_job: the job that described this GOP first; of a later version's GOPs that were coded again it is ``job``.
            None, like ``archive_version``, before version 4.
        status: ``ok``; ``partial`` when the source was truncated or damaged and what could be read of it was
            compressed (``error`` says what is missing); ``failed``; ``excluded`` by a policy. One for all rows of a
            video and job.
        frames_declared: of the whole video, by the source's header or, where that says nothing, its packets.
        frames_expected, frames_encoded, frames_corrupt: of this GOP's frames: there; coded; damaged.
        pts_first, pts_last: of the coded frames; the unit is ``time_base_num / time_base_den`` seconds.
        payload_offset: of the GOP's payload in the archive.
        bpp, kbps: payload bits per true pixel, and per millisecond of the GOP's duration.
        codec: ``s2vc`` or ``av1``, the fallback codec; before version 4 always ``s2vc``.
        q, crf: of ``s2vc`` the quality index; of ``av1`` the constant rate factor, 0 (best) .. 63. None of others.
        q_fine: quarters, 0..3, of a quality index above ``q``; None of ``av1`` and before version 6.
        enlarged: how many times as large as they are its pictures were coded, 1, 1.5 or 2; None of ``av1`` and before
            version 7.
        target: what each GOP's q was searched for, as `JobConfig.target_text`; None where it was given. See
            ``docs/targets.md``. ``target_value`` is what this GOP was held to: a metric's value, or bits per pixel;
            ``target_met`` whether what was measured of it holds; ``probes`` how many q it was coded at. None of them is
            known of an archive that was described without its staged GOPs, but for ``target``.
        *_mean, *_worst: over the ``metric_frames`` frames chosen by ``metric_policy``.
        *_p5: their 5th percentile on the bad side, so that 95 % of them are better; interpolated.
        *_worst_frame: which frame of the GOP is the worst, from 0; of ``flicker`` the second of the pair. None, like
            ``*_p5``, before version 3.
        tile_*, text_*, face*: of the measured frames, where something may have been invented that a mean passes over;
            see `s2vc_ray.risk.Risk`. None before version 4.
        policy_sha256, policy_rule: the policy that the GOP was coded under, and which of its rules applied; None
            without, and before version 5. See ``docs/policy.md``.
        verify: ``decoded`` when the payload was decoded again with every symbol checksum matching; ``crc``
            when only the published archive's checksums were verified.
        device, torch: where the GOP was coded.
        source_seconds, encode_seconds, decode_seconds: decoding the source, coding, decoding the payload
            again.
    """

    job: str
    created: datetime
    config_hash: str
    config: str
    video_id: str
    source_uri: str
    source_name: str
    status: str
    schema_version: int = SCHEMA_VERSION
    source_size: int | None = None
    source_etag: str | None = None
    source_sha256: str | None = None
    archive: str | None = None
    archive_bytes: int | None = None
    archive_sha256: str | None = None
    gop_index: int | None = None
    frames_expected: int | None = None
    frames_encoded: int | None = None
    frames_corrupt: int | None = None
    frames_declared: int | None = None
    pts_first: int | None = None
    pts_last: int | None = None
    time_base_num: int | None = None
    time_base_den: int | None = None
    width: int | None = None
    height: int | None = None
    payload_offset: int | None = None
    payload_bytes: int | None = None
    payload_sha256: str | None = None
    bits_i: int | None = None
    bits_p: int | None = None
    bpp: float | None = None
    kbps: float | None = None
    q: int | None = None
    codec: str | None = None
    psnr_mean: float | None = None
    psnr_worst: float | None = None
    ms_ssim_mean: float | None = None
    ms_ssim_worst: float | None = None
    lpips_alex_mean: float | None = None
    lpips_alex_worst: float | None = None
    metric_policy: str | None = None
    metric_frames: int | None = None
    verify: str | None = None
    model_id: str | None = None
    weights_sha256: str | None = None
    preset: str | None = None
    device: str | None = None
    torch: str | None = None
    source_seconds: float | None = None
    encode_seconds: float | None = None
    decode_seconds: float | None = None
    attempts: int | None = None
    error_class: str | None = None
    error: str | None = None
    source_notes: str | None = None
    framemd5_sha256: str | None = None
    creator: str | None = None
    psnr_p5: float | None = None
    psnr_worst_frame: int | None = None
    ms_ssim_p5: float | None = None
    ms_ssim_worst_frame: int | None = None
    lpips_alex_p5: float | None = None
    lpips_alex_worst_frame: int | None = None
    dists_mean: float | None = None
    dists_worst: float | None = None
    dists_p5: float | None = None
    dists_worst_frame: int | None = None
    vmaf_mean: float | None = None
    vmaf_worst: float | None = None
    vmaf_p5: float | None = None
    vmaf_worst_frame: int | None = None
    vmaf_neg_mean: float | None = None
    vmaf_neg_worst: float | None = None
    vmaf_neg_p5: float | None = None
    vmaf_neg_worst_frame: int | None = None
    flicker_mean: float | None = None
    flicker_worst: float | None = None
    flicker_p5: float | None = None
    flicker_worst_frame: int | None = None
    archive_version: int | None = None
    replaces: str | None = None
    coded_job: str | None = None
    crf: int | None = None
    target: str | None = None
    target_value: float | None = None
    target_met: bool | None = None
    probes: int | None = None
    tile_worst: float | None = None
    tile_worst_frame: int | None = None
    tile_worst_x: int | None = None
    tile_worst_y: int | None = None
    text_density: float | None = None
    text_worst: float | None = None
    faces: int | None = None
    face_worst: float | None = None
    policy_sha256: str | None = None
    policy_rule: str | None = None
    q_fine: int | None = None
    enlarged: float | None = None


_TYPES = {
    "int": pa.int64(),
    "int | None": pa.int64(),
    "float | None": pa.float64(),
    "bool | None": pa.bool_(),
    "str": pa.string(),
    "str | None": pa.string(),
    "datetime": pa.timestamp("us", tz="UTC"),
}
SCHEMA = pa.schema(
    [pa.field(name, _TYPES[kind], "None" in kind) for name, kind in ManifestRow.__annotations__.items()],
    metadata={"s2vc.schema_version": str(SCHEMA_VERSION)},
)


def part_key(job: str, video_id: str) -> str:
    """Key of one video's part file."""
    return f"{ROOT}/job={job}/{video_id}.parquet"


def write_part(storage: Storage, rows: Iterable[ManifestRow]) -> str:
    """Write the rows of one video and job, one at least, as one part file, and return its key.

    Raises:
        ObjectExists: the part was written before; parts are immutable.
    """
    left = iter(rows)
    first = next(left)
    key, left = part_key(first.job, first.video_id), chain([first], left)
    sink = io.BytesIO()
    # The folder says the job, so the file must not: pyarrow, and pandas through it, refuse a column told twice.
    schema = SCHEMA.remove(SCHEMA.get_field_index("job"))
    with pq.ParquetWriter(sink, schema, compression="zstd") as writer:
        while some := list(islice(left, _ROW_GROUP)):
            # Column by column: rows as dictionaries take 4 kB each, and a long video has many.
            columns = [pa.array([getattr(row, field.name) for row in some], field.type) for field in schema]
            writer.write_table(pa.Table.from_arrays(columns, schema=schema))
    if not storage.put(key, sink.getvalue()):
        raise ObjectExists(
            f"manifest part {key} exists already: parts are written once; give the job another id"
        )
    return key


@dataclass(frozen=True, slots=True)
class Description:
    """What the manifest says of an archive: where it lies, ``status`` and, when that is ``partial``, why.

    ``targets_missed`` counts its GOPs that do not meet their target.
    """

    status: str
    error_class: str | None
    error: str | None
    source_size: int
    source_etag: str
    source_sha256: str
    archive: str
    archive_bytes: int
    targets_missed: int


class PartIndex:
    """Which videos the manifest has parts of: 12 bytes a part, so that millions fit a driver's memory."""

    def __init__(self, storage: Storage) -> None:
        videos, jobs = array("Q"), array("I")
        self._jobs: list[str] = []
        numbers: dict[str, int] = {}
        for key in _part_keys(storage):
            folder, _, name = key.rpartition("/")
            video = name.removesuffix(".parquet")
            if not _VIDEO_ID.fullmatch(video):
                continue
            if folder not in numbers:
                numbers[folder] = len(self._jobs)
                self._jobs.append(folder)
            videos.append(int(video, 16))
            jobs.append(numbers[folder])
        ids = np.frombuffer(videos, np.uint64) if videos else np.empty(0, np.uint64)
        order = np.argsort(ids, kind="stable")
        self._videos = ids[order]
        self._parts = (np.frombuffer(jobs, np.uint32) if jobs else np.empty(0, np.uint32))[order]

    def __len__(self) -> int:
        return len(self._videos)

    def keys(self, video_id: str) -> tuple[str, ...]:
        """Keys of the parts that tell of a video."""
        wanted = np.uint64(int(video_id, 16))
        first, last = (int(np.searchsorted(self._videos, wanted, side)) for side in ("left", "right"))
        return tuple(f"{self._jobs[at]}/{video_id}.parquet" for at in self._parts[first:last])


def describe(storage: Storage, parts: Iterable[str], *, archive: str, config_hash: str) -> Description | None:
    """What the latest of ``parts`` says of a source having become this archive under this configuration, or a later
    version of it."""
    rows = {key: row for key in parts if (row := _first_row(storage, key))["status"] not in UNCODED}
    made = {row["archive_sha256"]: row for row in rows.values()}
    latest: tuple[tuple[datetime, str], dict[str, Any]] | None = None
    for key, row in rows.items():
        first = _first_version(row, made)
        asked_for = first is not None and (first["archive"], first["config_hash"]) == (archive, config_hash)
        if asked_for and (latest is None or (row["created"], key) > latest[0]):
            latest = (row["created"], key), row
    return Description(**{name: latest[1][name] for name in Description.__annotations__}) if latest else None


def latest_word(storage: Storage, parts: Iterable[str]) -> tuple[str, str | None] | None:
    """``status`` and ``error`` of the latest of ``parts``."""
    rows = [((row := _first_row(storage, key))["created"], key, row) for key in parts]
    latest = max(rows, key=lambda found: found[:2], default=None)
    return (latest[2]["status"], latest[2]["error"]) if latest else None


def describe_archive(storage: Storage, parts: Iterable[str], archive: str) -> Description | None:
    """What the latest of ``parts`` says of the archive under this key."""
    rows = [
        (row["created"], key, row) for key in parts if (row := _first_row(storage, key))["archive"] == archive
    ]
    latest = max(rows, key=lambda found: found[:2], default=None)
    return Description(**{name: latest[2][name] for name in Description.__annotations__}) if latest else None


def _first_version(row: dict[str, Any], made: Mapping[str, dict[str, Any]]) -> dict[str, Any] | None:
    """The row of the version that all others began with; None when no row tells of it."""
    # As many steps as there are archives: what replaces itself, which only a forger could write, comes to an end.
    for _ in range(len(made)):
        if not row.get("replaces"):
            return row
        if row["replaces"] not in made:
            return None
        row = made[row["replaces"]]
    return None


def read_manifest(destination: Storage | str) -> pa.Table:
    """All rows under a destination, ordered by creation, job, name and GOP; columns as `SCHEMA`, and any added
    since.

    Raises:
        StorageError: a part cannot be read.
    """
    storage = open_storage(destination) if isinstance(destination, str) else destination
    parts = [read_part(storage, key) for key in _part_keys(storage)]
    table = pa.concat_tables([SCHEMA.empty_table(), *parts], promote_options="default")
    return table.sort_by([(name, "ascending") for name in ("created", "job", "source_name", "gop_index")])


def read_columns(data: bytes, columns: Sequence[str], *, compact: bool = False) -> pa.Table:
    """Columns of a part file as `SCHEMA` has them; nulls where the part is older than a column.

    Args:
        compact: hold each text once, however many rows say it.

    Raises:
        pyarrow.ArrowException: not a part file.
    """
    # Columns that the file does not have are passed over. Threads would cost more than such small files take.
    texts = [name for name in columns if SCHEMA.field(name).type == pa.string()] if compact else None
    file = pq.ParquetFile(pa.BufferReader(data), read_dictionary=texts)
    table = file.read(columns=list(columns), use_threads=False)
    for name in columns:
        if name not in table.column_names:
            field = SCHEMA.field(name)
            table = table.append_column(field, pa.nulls(len(table), field.type))
    return table.select(list(columns))


def _first_row(storage: Storage, key: str) -> dict[str, Any]:
    """What `describe` looks at, from the first row of a part, and ``targets_missed`` of all its rows."""
    columns = {
        "created",
        "config_hash",
        "archive_sha256",
        "replaces",
        "target_met",
        *Description.__annotations__,
    }
    with _reading(key):
        table = pq.ParquetFile(io.BytesIO(storage.read(key))).read(columns=sorted(columns))
    row: dict[str, Any] = table.slice(0, 1).to_pylist()[0]
    met = table["target_met"].to_pylist() if "target_met" in table.column_names else []
    return row | {"targets_missed": met.count(False)}


@contextmanager
def _reading(key: str) -> Iterator[None]:
    try:
        yield
    except (pa.ArrowInvalid, pa.ArrowKeyError, IndexError) as error:
        raise StorageError(f"manifest part {key} cannot be read: {error}") from error


def _part_keys(storage: Storage) -> Iterator[str]:
    return (key for key in storage.keys(f"{ROOT}/") if key.endswith(".parquet"))


def read_part(storage: Storage, key: str) -> pa.Table:
    with _reading(key):
        table = pq.ParquetFile(io.BytesIO(storage.read(key))).read()
    job = key.split("/")[-2].removeprefix("job=")
    return table.add_column(0, SCHEMA.field("job"), pa.array([job] * len(table), pa.string()))
