"""A destination's manifest and events as tables of a private DuckDB: what `s2vc audit` asks its questions.

    gops     a row for each GOP of the archives that stand, and one for each video that has none, for it failed or was
             excluded
    videos   a row for each video, summed up from those of its GOPs that a condition leaves
    jobs     a row for each job, summed up from its videos
    events   what `s2vc verify` did and found

The first and the last are `s2vc_ray.audit_parts`'s; here the rest is added up. All of it lies in a scratch folder, and
`s2vc_ray.fenced_duckdb` sees nothing but that folder, which goes with it.
"""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Collection, Iterator
from pathlib import Path

from s2vc_ray.audit_parts import fill_tables
from s2vc_ray.fenced_duckdb import FencedDatabase, expression, open_fenced
from s2vc_ray.manifest import QUALITY
from s2vc_ray.storage import Storage
from s2vc_ray.storage_local import local_errors

_SLICE = 4_000_000
"""Rows of whose values percentiles are taken at once."""

_SUMS = """
    job, video_id, count(payload_bytes) AS gops, sum(frames_encoded)::BIGINT AS frames,
    sum(frames_expected)::BIGINT AS frames_expected, sum(frames_corrupt)::BIGINT AS frames_corrupt,
    sum(seconds) AS seconds, sum(pixels)::BIGINT AS pixels, sum(payload_bytes)::BIGINT AS payload_bytes,
    8 * sum(payload_bytes) / sum(pixels) AS bpp, 8e-3 * sum(payload_bytes) / sum(seconds) AS kbps,
    min(q) AS q_min, max(q) AS q_max, sum(metric_frames)::BIGINT AS metric_frames,
    sum(encode_seconds) AS encode_seconds, sum(decode_seconds) AS decode_seconds,
    sum(frames_encoded) / nullif(sum(encode_seconds), 0) AS encode_fps,
    sum(pixels) / 1e6 / nullif(sum(encode_seconds), 0) AS encode_mpps, max(attempts) AS attempts
"""
_VIDEOS = """
    CREATE TABLE videos AS
    SELECT w.source_name, w.status, w.source_bytes, w.archive_bytes,
        w.source_bytes - w.archive_bytes AS saved_bytes, w.source_bytes / nullif(w.archive_bytes, 0) AS ratio,
        f.* EXCLUDE (job, video_id), s.* EXCLUDE (job, video_id), w.archive, w.video_id, w.job, w.created,
        w.config_hash, w.device, w.error_class, w.error, l.job AS later_job, l.error_class AS later_error_class,
        l.error AS later_error, c.checked, c.check_outcome
    FROM figures AS f JOIN words AS w USING (job, video_id) LEFT JOIN shares AS s USING (job, video_id)
    LEFT JOIN (FROM words SEMI JOIN (FROM ranked WHERE standing = 'later') USING (job, video_id)) AS l
        ON l.video_id = w.video_id
    LEFT JOIN checks AS c ON c.archive = w.archive
"""


class AuditTables:
    """The tables of one destination, while they are open. See `open_tables`.

    Attributes:
        ask, stream, stream_freely, columns: of the `FencedDatabase` that they lie in.
        left_out: manifest parts that cannot be read, and why.
        measured: metrics that any chosen GOP has a figure of.
    """

    def __init__(self, database: FencedDatabase, left_out: tuple[str, ...]) -> None:
        self._database = database
        self.ask, self.stream, self.stream_freely = database.ask, database.stream, database.stream_freely
        self.columns = database.columns
        self.left_out = left_out
        self.measured: tuple[str, ...] = ()

    def sum_up(self, where: str = "", *, percentiles: bool = True) -> None:
        """Make ``videos`` and ``jobs`` of the GOPs for which the condition ``where`` holds.

        Without ``percentiles`` those of videos are null: they take a third of the time.

        Raises:
            ConfigError: the condition makes no sense.
        """
        condition = expression(where) if where else "TRUE"
        with self._database.understanding():
            self._database.execute(f"CREATE VIEW chosen AS SELECT * FROM gops WHERE ({condition})")  # noqa: S608
            self.measured = self._measured()
            self._database.execute(_figures(self.measured))
            self._take_percentiles(of_videos=percentiles)
            self._database.execute(_VIDEOS)
            for summed in ("figures", "shares"):
                self._database.execute(f"DROP TABLE {summed}")
            self._database.told.append("videos")
            self._database.execute(_jobs(self.measured))
            self._database.told.append("jobs")

    def _take_percentiles(self, *, of_videos: bool) -> None:
        """Of each metric, for videos and jobs. Percentiles hold all their values in memory, so it is done in slices."""
        ((rows,),) = self._database.execute("SELECT coalesce(sum(gops), 0) FROM figures")
        slices = (-(-int(rows) // _SLICE) or 1) if of_videos else 0
        said = ", ".join(["job", "video_id", *map(_percentile, QUALITY)])
        empty = f"SELECT {said} FROM chosen WHERE false GROUP BY job, video_id"  # noqa: S608
        self._database.execute(f"CREATE TABLE shares AS {empty}")
        for number in range(slices):
            query = (
                f"SELECT {said} FROM chosen WHERE hash(video_id) % {slices} = {number} GROUP BY job, video_id"  # noqa: S608
            )
            self._database.execute(f"INSERT INTO shares {query}")
        for name in self.measured:
            query = f"SELECT job, {_percentile(name)} FROM chosen GROUP BY job"  # noqa: S608
            self._database.execute(f"CREATE TABLE share_{name} AS {query}")

    def _measured(self) -> tuple[str, ...]:
        # One GOP is enough, and of columns without any Parquet's statistics tell.
        there = ", ".join(f"EXISTS (FROM chosen WHERE {name}_mean IS NOT NULL)" for name in QUALITY)
        (found,) = self._database.execute(f"SELECT {there}")
        return tuple(name for name, any_there in zip(QUALITY, found, strict=True) if any_there)


@contextlib.contextmanager
def open_tables(storage: Storage) -> Iterator[AuditTables]:
    """Copy a destination's manifest and events into scratch, and open them. `AuditTables.sum_up` comes next.

    Raises:
        ObjectMissing: there is no manifest.
        StorageError: the store refused or failed, or the scratch folder is full.
    """
    with (
        local_errors("copy the manifest into the scratch folder (TMPDIR)"),
        tempfile.TemporaryDirectory(prefix="s2vc-") as name,
    ):
        folder = Path(name)
        with open_fenced(folder, ["gops"]) as database:
            yield AuditTables(database, fill_tables(database, storage, folder))


def _figures(measured: Collection[str]) -> str:
    """Sums over each video's chosen GOPs; of each metric the mean over measured frames and the worst frame."""
    said = [
        f"{_mean(name)}, {_worst(name)}"
        if name in measured
        else f"NULL::DOUBLE AS {name}_mean, NULL::DOUBLE AS {name}_worst"
        for name in QUALITY
    ]
    return f"CREATE TABLE figures AS SELECT {_SUMS}, {', '.join(said)} FROM chosen GROUP BY job, video_id"  # noqa: S608


def _mean(name: str) -> str:
    # A filter would take twice the time.
    weight = f"sum(CASE WHEN {name}_mean IS NOT NULL THEN metric_frames END)"
    return f"sum({name}_mean * metric_frames) / {weight} AS {name}_mean"


def _percentile(name: str) -> str:
    return f"quantile_cont({name}_mean, {0.05 if QUALITY[name] else 0.95}) AS {name}_gops_p5"


def _worst(name: str) -> str:
    return f"{'min' if QUALITY[name] else 'max'}({name}_worst) AS {name}_worst"


def _jobs(measured: Collection[str]) -> str:
    """Sums over each job's videos. Percentiles are over GOPs, and so asked of them."""
    sums = ", ".join(f"{_mean(name)}, {_worst(name)}" for name in QUALITY)
    joins = " ".join(f"LEFT JOIN share_{name} USING (job)" for name in measured)
    rest = [f"NULL::DOUBLE AS {name}_gops_p5" for name in QUALITY if name not in measured]
    return f"""
        CREATE TABLE jobs AS
        SELECT {", ".join(["*", *rest])} FROM (
            SELECT job, min(created) AS created, count(*) AS videos,
                count(*) FILTER (WHERE status = 'partial') AS partial,
                count(*) FILTER (WHERE status = 'failed') AS failed,
                sum(source_bytes) FILTER (WHERE status <> 'failed')::BIGINT AS source_bytes,
                sum(archive_bytes)::BIGINT AS archive_bytes, sum(saved_bytes)::BIGINT AS saved_bytes,
                sum(source_bytes) FILTER (WHERE status <> 'failed') / nullif(sum(archive_bytes), 0) AS ratio,
                sum(gops)::BIGINT AS gops, sum(frames)::BIGINT AS frames, sum(seconds) AS seconds,
                sum(pixels)::BIGINT AS pixels, sum(payload_bytes)::BIGINT AS payload_bytes,
                8 * sum(payload_bytes) / sum(pixels) AS bpp, 8e-3 * sum(payload_bytes) / sum(seconds) AS kbps,
                min(q_min) AS q_min, max(q_max) AS q_max, sum(metric_frames)::BIGINT AS metric_frames,
                {sums},
                sum(encode_seconds) AS encode_seconds,
                sum(frames) / nullif(sum(encode_seconds), 0) AS encode_fps,
                sum(pixels) / 1e6 / nullif(sum(encode_seconds), 0) AS encode_mpps
            FROM videos GROUP BY job
        ) {joins}
    """  # noqa: S608
