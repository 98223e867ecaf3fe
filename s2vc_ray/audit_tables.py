"""A destination's manifest and events as tables of a private DuckDB: what `s2vc audit` asks its questions.

    gops     a row for each GOP of the archives that stand, and one for each video that has none, for it failed or was
             excluded
    videos   a row for each video, summed up from those of its GOPs that a condition leaves
    jobs     a row for each job, summed up from its videos
    events   what `s2vc verify` did and found

Which rows stand is the rule that `s2vc_ray.manifest` states. Everything is copied into a scratch folder first, and
DuckDB sees nothing but that folder, which goes with it: whatever an expression or a query of a user says, it reads no
other file and leaves none behind. Parts that a compact copy holds are read from there.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Collection, Iterator
from itertools import islice
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from s2vc_ray.errors import ConfigError, ObjectMissing, StorageError
from s2vc_ray.manifest import QUALITY, ROOT
from s2vc_ray.manifest_compact import copies, copy_parts, named_part
from s2vc_ray.provenance import read_verifications
from s2vc_ray.storage import Storage
from s2vc_ray.storage_local import local_errors

_MEMORY = "500MB"
"""What DuckDB may hold before it spills into the scratch folder; Python and its libraries take 200 MB beside it."""
_THREADS = 4
_BLOCK = 4 << 20
_BATCH = 10_000
_SLICE = 4_000_000
"""Rows of whose values percentiles are taken at once."""
_PART = pa.schema([("job", pa.string()), ("video_id", pa.string())])

DERIVED = {
    "seconds": "8e-3 * payload_bytes / kbps",
    "pts_seconds": "pts_first * time_base_num / time_base_den",
    "pixels": "frames_encoded * width * height",
    "encode_fps": "frames_encoded / nullif(encode_seconds, 0)",
    "encode_mpps": "pixels / 1e6 / nullif(encode_seconds, 0)",
}
"""Columns of ``gops`` beside the manifest's: the GOP's duration, its first pts in seconds, true pixels coded, and
frames and megapixels coded a second."""

_WORDS = """
    CREATE TABLE words AS SELECT job, video_id, created, status, source_name, source_size AS source_bytes, archive,
        archive_bytes, archive_sha256, replaces, config_hash, device, error_class, error,
        pts_first * time_base_num / time_base_den AS begins
    FROM parts WHERE gop_index = 0 OR gop_index IS NULL OR status = 'failed'
"""
_RANKED = """
    CREATE TABLE ranked AS
    WITH latest AS (
        SELECT *, row_number() OVER (PARTITION BY video_id, failed ORDER BY created DESC, job DESC) AS place
        FROM (SELECT *, status IN ('failed', 'excluded') AS failed FROM words)
    ), replaced AS (
        SELECT DISTINCT w.job, w.video_id FROM words AS w JOIN words AS l ON l.replaces = w.archive_sha256
        WHERE l.status <> 'failed' AND (l.created, l.job) > (w.created, w.job)
    ), described AS (
        SELECT *, row_number() OVER (PARTITION BY archive ORDER BY created DESC, job DESC, video_id) AS turn
        FROM latest ANTI JOIN replaced USING (job, video_id) WHERE place = 1 AND NOT failed
    ), failures AS (
        SELECT f.*, d.job IS NULL AS alone, (f.created, f.job) > (d.created, d.job) AS later
        FROM latest AS f LEFT JOIN latest AS d ON d.video_id = f.video_id AND d.place = 1 AND NOT d.failed
        WHERE f.place = 1 AND f.failed
    )
    SELECT job, video_id, 'archive' AS standing FROM described WHERE turn = 1
    UNION ALL SELECT job, video_id, CASE WHEN alone THEN 'failed' ELSE 'later' END FROM failures
    WHERE alone OR (later AND status = 'failed')
"""
_CHECKS = """
    CREATE TABLE checks AS SELECT object AS archive, max(time) AS checked, arg_max(outcome, time) AS check_outcome
    FROM events WHERE event_type = 'fixity check' GROUP BY object
"""
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
        left_out: manifest parts that cannot be read, and why.
        measured: metrics that any chosen GOP has a figure of.
    """

    def __init__(self, database: duckdb.DuckDBPyConnection, left_out: tuple[str, ...]) -> None:
        self._database = database
        self._tables = ["gops"]
        self.left_out = left_out
        self.measured: tuple[str, ...] = ()

    def ask(self, query: str) -> pa.Table:
        """The answer to a query.

        Raises:
            ConfigError: it makes no sense; the message says why, and what columns there are.
            StorageError: the scratch folder is full.
        """
        with self._understanding():
            return self._database.sql(query).to_arrow_table()

    def stream(self, query: str) -> pa.RecordBatchReader:
        """The answer to a query that may be as long as the manifest, in pieces. Raises as `ask`."""
        with self._understanding():
            return self._database.sql(query).to_arrow_reader(_BATCH)

    def stream_freely(self, query: str) -> pa.RecordBatchReader:
        """The answer to a user's own query, in pieces.

        Raises:
            ConfigError: it is not one SELECT, or cannot be answered.
        """
        with self._understanding():
            kinds = [statement.type for statement in self._database.extract_statements(query)]
        if kinds != [duckdb.StatementType.SELECT]:
            raise ConfigError("--sql takes one SELECT, over the tables gops, videos, jobs and events")
        return self.stream(query)

    def columns(self, table: str) -> list[str]:
        """Names of a table's columns."""
        return [str(row[0]) for row in self._database.execute(f"DESCRIBE {table}").fetchall()]

    def sum_up(self, where: str = "", *, percentiles: bool = True) -> None:
        """Make ``videos`` and ``jobs`` of the GOPs for which the condition ``where`` holds.

        Without ``percentiles`` those of videos are null: they take a third of the time.

        Raises:
            ConfigError: the condition makes no sense.
        """
        condition = expression(where) if where else "TRUE"
        with self._understanding():
            self._database.execute(f"CREATE VIEW chosen AS SELECT * FROM gops WHERE ({condition})")  # noqa: S608
            self.measured = self._measured()
            self._database.execute(_figures(self.measured))
            self._take_percentiles(of_videos=percentiles)
            self._database.execute(_VIDEOS)
            self._tables.append("videos")
            self._database.execute(_jobs(self.measured))
            self._tables.append("jobs")

    def _take_percentiles(self, *, of_videos: bool) -> None:
        """Of each metric, for videos and jobs. Percentiles hold all their values in memory, so it is done in slices."""
        ((rows,),) = self._database.execute("SELECT coalesce(sum(gops), 0) FROM figures").fetchall()
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
        counts = ", ".join(f"count({name}_mean)" for name in QUALITY)
        (found,) = self._database.execute(f"SELECT {counts} FROM chosen").fetchall()  # noqa: S608
        return tuple(name for name, count in zip(QUALITY, found, strict=True) if count)

    @contextlib.contextmanager
    def _understanding(self) -> Iterator[None]:
        try:
            yield
        except (duckdb.IOException, duckdb.OutOfMemoryException) as error:
            raise StorageError(
                f"cannot query in the scratch folder (TMPDIR): {_first_line(error)}"
            ) from error
        except duckdb.BinderException as error:
            there = "; ".join(f"{name}: {', '.join(self.columns(name))}" for name in self._tables)
            raise ConfigError(f"{_first_line(error)}. There are, in {there}") from error
        except duckdb.Error as error:
            raise ConfigError(_first_line(error)) from error


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
        with contextlib.closing(_connect(folder)) as database:
            left_out = _fill(database, storage, folder)
            yield AuditTables(database, left_out)


def expression(text: str) -> str:
    """A user's expression, parsed and written out again, so that it can stand inside a query of ours.

    Raises:
        ConfigError: it is no single expression.
    """
    try:
        return str(duckdb.SQLExpression(text))
    except duckdb.Error as error:
        raise ConfigError(f"expression {text!r}: {_first_line(error)}") from error


def _connect(folder: Path) -> duckdb.DuckDBPyConnection:
    database = duckdb.connect(
        str(folder / "audit.duckdb"),
        config={
            "memory_limit": _MEMORY,
            "threads": min(os.cpu_count() or 1, _THREADS),
            "temp_directory": str(folder / "spill"),
            "preserve_insertion_order": False,
            "autoinstall_known_extensions": False,
            "autoload_known_extensions": False,
            "python_enable_replacements": False,
        },
    )
    database.execute("SET allowed_directories = [$folder]", {"folder": str(folder)})
    database.execute("SET enable_external_access = false")
    database.execute("SET lock_configuration = true")
    return database


def _fill(database: duckdb.DuckDBPyConnection, storage: Storage, folder: Path) -> tuple[str, ...]:
    """Make everything but ``videos`` and ``jobs``; returns what is left out."""
    strange = _write_listing(storage, folder / "listed.parquet")
    database.execute(f"CREATE TABLE listed AS FROM read_parquet('{folder}/listed.parquet')")
    if not _number(database, "listed"):
        raise ObjectMissing(f"no manifest under {storage.uri}: is that the destination of a compress job?")
    database.execute("CREATE TABLE copied (job VARCHAR, video_id VARCHAR)")
    files, damaged = _fetch_copies(database, storage, folder)
    rest = "SELECT job, video_id FROM listed ANTI JOIN copied USING (job, video_id) ORDER BY ALL"
    files.append(folder / "parts.parquet")
    fetched = copy_parts(storage, _pairs(database, rest), files[-1])
    # A copied row whose part is gone stands for nothing. Usually there is none, and to join nothing costs nothing.
    database.execute("CREATE TABLE gone AS FROM copied ANTI JOIN listed USING (job, video_id)")
    names = ", ".join(f"'{path}'" for path in files)
    database.execute(
        f"CREATE VIEW parts AS FROM read_parquet([{names}], union_by_name = true) "
        "ANTI JOIN gone USING (job, video_id)"
    )
    database.execute(_WORDS)
    database.execute(_RANKED)
    database.execute(
        "CREATE TABLE superseded AS SELECT job, video_id FROM words ANTI JOIN "
        "(FROM ranked WHERE standing <> 'later') USING (job, video_id)"
    )
    derived = ", ".join(f"{meaning} AS {name}" for name, meaning in DERIVED.items())
    database.execute(
        f"CREATE VIEW gops AS SELECT *, {derived} FROM parts "  # noqa: S608
        "ANTI JOIN superseded USING (job, video_id)"
    )
    pq.write_table(read_verifications(storage), folder / "events.parquet")
    database.execute(f"CREATE TABLE events AS FROM read_parquet('{folder}/events.parquet')")
    database.execute(_CHECKS)
    return (*strange, *damaged, *fetched.left_out)


def _fetch_copies(
    database: duckdb.DuckDBPyConnection, storage: Storage, folder: Path
) -> tuple[list[Path], list[str]]:
    """Fetch compact copies and note in ``copied`` which parts they hold; those that cannot be read are named.

    Of copies that share a part, as two that were made at once may, the larger is taken.
    """
    files: list[Path] = []
    damaged: list[str] = []
    there = sorted(copies(storage), key=lambda item: (-item.size, item.key))
    for number, item in enumerate(there):
        path = folder / f"copy-{number}.parquet"
        try:
            with storage.open(item.key) as stream, path.open("wb") as out:
                shutil.copyfileobj(stream, out, _BLOCK)
            held = f"SELECT DISTINCT job, video_id FROM read_parquet('{path}')"  # noqa: S608
            database.execute(f"CREATE OR REPLACE TABLE held AS {held}")
        except ObjectMissing:
            continue
        except duckdb.Error as error:
            damaged.append(f"{item.key}: cannot be read: {_first_line(error)}: remove it, and compact again")
            continue
        if _number(database, "held SEMI JOIN copied USING (job, video_id)"):
            path.unlink()
            continue
        database.execute("INSERT INTO copied FROM held")
        files.append(path)
    return files, damaged


def _write_listing(storage: Storage, path: Path) -> list[str]:
    """Write job and video id of every part to a file; returns what else lies among them."""
    strange: list[str] = []
    keys = storage.keys(f"{ROOT}/")
    with pq.ParquetWriter(path, _PART) as writer:
        while page := list(islice(keys, _BATCH)):
            parts = [named_part(key) for key in page]
            columns = zip(*(part for part in parts if part), strict=True)
            writer.write_table(pa.table([pa.array(one) for one in columns] or [[], []], schema=_PART))
            strange += [
                f"{key}: not the name of a manifest part"
                for key, part in zip(page, parts, strict=True)
                if not part and key.endswith(".parquet")
            ]
    return strange


def _pairs(database: duckdb.DuckDBPyConnection, query: str) -> Iterator[tuple[str, str]]:
    # A cursor of its own: others may be used while it is read.
    with contextlib.closing(database.cursor()) as cursor:
        found = cursor.execute(query)
        while page := found.fetchmany(_BATCH):
            yield from page


def _number(database: duckdb.DuckDBPyConnection, table: str) -> int:
    ((number,),) = database.execute(f"SELECT count(*) FROM {table}").fetchall()  # noqa: S608
    return int(number)


def _first_line(error: Exception) -> str:
    return str(error).split("\n", 1)[0].removesuffix("!")


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
    weight = f"sum(metric_frames) FILTER (WHERE {name}_mean IS NOT NULL)"
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
