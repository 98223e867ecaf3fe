"""Which rows of a destination's manifest stand, as tables of a database: the rule of `s2vc_ray.manifest` in SQL.

    parts    a view of all rows, read from copies where these hold them
    words    what each part says of its video, a row for each
    ranked   which of those stand, and as what
    gops     a view of the rows of GOPs that stand
    events   what `s2vc verify` did and found; ``checks`` is the last of each archive

Everything is put into the database's folder first.
"""

from __future__ import annotations

import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import BinaryIO

import duckdb
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from s2vc_ray.errors import ObjectMissing
from s2vc_ray.fenced_duckdb import FencedDatabase, first_line
from s2vc_ray.manifest import ROOT
from s2vc_ray.manifest_compact import copies, copy_parts, named_parts
from s2vc_ray.provenance import read_verifications
from s2vc_ray.storage import Storage

_BLOCK = 256 << 10
"""Bytes copied at once: with 4 MiB, which no core's cache holds, it took twice the time."""
_BATCH = 10_000
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


def fill_tables(database: FencedDatabase, storage: Storage, folder: Path) -> tuple[str, ...]:
    """Make ``gops`` and ``events``, and what else is said of videos; returns what is left out, and why.

    Raises:
        ObjectMissing: there is no manifest.
        StorageError: the store refused or failed.
    """
    database.execute("CREATE TABLE copied (job VARCHAR, video_id VARCHAR)")
    # A store lists names while others of its bytes are fetched; the two take about as long.
    with ThreadPoolExecutor(1, "listing") as beside:
        listing = beside.submit(_write_listing, storage, folder / "listed.parquet")
        files, damaged = _fetch_copies(database, storage, folder)
        strange = listing.result()
    database.execute(f"CREATE TABLE listed AS FROM read_parquet('{folder}/listed.parquet')")
    if not database.count("listed"):
        raise ObjectMissing(f"no manifest under {storage.uri}: is that the destination of a compress job?")
    rest = "SELECT job, video_id FROM listed ANTI JOIN copied USING (job, video_id) ORDER BY ALL"
    files.append(folder / "parts.parquet")
    fetched = copy_parts(storage, database.stream_pairs(rest), files[-1])
    # A copied row whose part is gone stands for nothing.
    database.execute("CREATE TABLE gone AS FROM copied ANTI JOIN listed USING (job, video_id)")
    names = ", ".join(f"'{path}'" for path in files)
    rows = f"read_parquet([{names}], union_by_name = true)"
    database.execute(f"CREATE VIEW parts AS FROM {rows} {_without(database, 'gone')}")
    for table in ("listed", "copied"):
        database.execute(f"DROP TABLE {table}")
    database.execute(_WORDS)
    database.execute(_RANKED)
    database.execute(
        "CREATE TABLE superseded AS SELECT job, video_id FROM words ANTI JOIN "
        "(FROM ranked WHERE standing <> 'later') USING (job, video_id)"
    )
    derived = ", ".join(f"{meaning} AS {name}" for name, meaning in DERIVED.items())
    database.execute(
        f"CREATE VIEW gops AS SELECT *, {derived} FROM parts {_without(database, 'superseded')}"  # noqa: S608
    )
    pq.write_table(read_verifications(storage), folder / "events.parquet")
    database.execute(f"CREATE TABLE events AS FROM read_parquet('{folder}/events.parquet')")
    database.execute(_CHECKS)
    return (*strange, *damaged, *fetched.left_out)


def _without(database: FencedDatabase, table: str) -> str:
    """The join that leaves out the videos in ``table``; none where that is empty, as it usually is. Even with nothing,
    a join reads the names of all rows, and keeps DuckDB from looking for the worst rows by their figure alone."""
    return f"ANTI JOIN {table} USING (job, video_id)" if database.count(table) else ""


def _fetch_copies(database: FencedDatabase, storage: Storage, folder: Path) -> tuple[list[Path], list[str]]:
    """Fetch compact copies and note in ``copied`` which parts they hold; those that cannot be read are named.

    Of copies that share a part, as two that were made at once may, the larger is taken.
    """
    files: list[Path] = []
    damaged: list[str] = []
    there = sorted(copies(storage), key=lambda item: (-item.size, item.key))
    for number, item in enumerate(there):
        path = folder / f"copy-{number}.parquet"
        try:
            with storage.open(item.key) as stream:
                _take(stream, path)
            held = f"SELECT DISTINCT job, video_id FROM read_parquet('{path}')"  # noqa: S608
            database.execute(f"CREATE OR REPLACE TABLE held AS {held}")
        except ObjectMissing:
            continue
        except duckdb.Error as error:
            damaged.append(f"{item.key}: cannot be read: {first_line(error)}: remove it, and compact again")
            continue
        if database.count("held SEMI JOIN copied USING (job, video_id)"):
            path.unlink()
            continue
        database.execute("INSERT INTO copied FROM held")
        files.append(path)
    return files, damaged


def _take(stream: BinaryIO, path: Path) -> None:
    """Make a file of a stream's bytes: a second name for it where it is one, on the same disk; else a copy."""
    try:
        os.link(os.path.realpath(stream.name), path)
    except (AttributeError, OSError):
        with path.open("wb") as out:
            shutil.copyfileobj(stream, out, _BLOCK)


def _write_listing(storage: Storage, path: Path) -> list[str]:
    """Write job and video id of every part to a file; returns what else lies among them."""
    strange: list[str] = []
    keys = storage.keys(f"{ROOT}/")
    with pq.ParquetWriter(path, _PART) as writer:
        while page := list(islice(keys, _BATCH)):
            parts = named_parts(page)
            named = parts.drop_null()
            writer.write_table(pa.table(named.flatten(), schema=_PART))
            strange += [
                f"{page[at]}: not the name of a manifest part"
                for at in pc.indices_nonzero(parts.is_null()).to_pylist()
                if page[at].endswith(".parquet")
            ]
    return strange
