"""What lies at a destination, joined: archives, what the manifest says, staged GOPs, unfinished writes.

One listing of the destination and one read of each manifest part go into a private SQLite database that
spills to disk, so memory stays flat however many objects there are. `status` reports it, `gc` acts on it.
Ages are by the store's clock. Reads only; knows nothing of Ray, torch or the codec.
"""

from __future__ import annotations

import contextlib
import re
import sqlite3
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from typing import Any

import pyarrow as pa

from s2vc_ray.errors import ConfigError, ObjectMissing
from s2vc_ray.manifest import ROOT as MANIFEST
from s2vc_ray.manifest import read_columns
from s2vc_ray.manifest_compact import COMPACT
from s2vc_ray.staging import STAGING
from s2vc_ray.storage import ObjectStat, Storage, Unfinished
from s2vc_ray.versions import ARCHIVE_SUFFIX, FRAME_LIST_SUFFIX, archive_key

BAG = "manifest-sha256.txt"
EVENTS = "events"
_STAGED = re.compile(rf"{STAGING}/([0-9a-f]{{16}})/(.+)")
_FINGERPRINT = r"[0-9a-f]{16}-[0-9a-f]{16}-[0-9a-f]{8}(?:-v([0-9]{1,9}))?"
_GOP = re.compile(rf"{_FINGERPRINT}/[0-9]{{6,}}\.gop")
_PART = re.compile(r"/([0-9a-f]{16})\.parquet$")
_COLUMNS = (
    "created",
    "video_id",
    "source_name",
    "status",
    "archive",
    "archive_bytes",
    "error_class",
    "error",
    "archive_sha256",
    "framemd5_sha256",
    "archive_version",
    "replaces",
)
_TABLES_AT = (f"{MANIFEST}/job=", f"{COMPACT}/", f"{EVENTS}/")
_READERS = 16
_READ_AHEAD = 256
_AGE = re.compile(r"(\d+(?:\.\d+)?)([smhdw]?)")
_UNITS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
_TABLES = """
    CREATE TABLE archives (key TEXT PRIMARY KEY, size INTEGER) WITHOUT ROWID;
    CREATE TABLE frame_lists (key TEXT PRIMARY KEY, archive TEXT, size INTEGER) WITHOUT ROWID;
    CREATE TABLE parts (key TEXT PRIMARY KEY, video TEXT) WITHOUT ROWID;
    CREATE TABLE unreadable (key TEXT PRIMARY KEY, error TEXT) WITHOUT ROWID;
    CREATE TABLE staged (
        video TEXT, version INTEGER, gops INTEGER, bytes INTEGER, oldest REAL, newest REAL, PRIMARY KEY (video, version)
    ) WITHOUT ROWID;
    CREATE TABLE words (
        video TEXT, created REAL, job TEXT, name TEXT, status TEXT, archive TEXT, bytes INTEGER,
        error_class TEXT, error TEXT, sha256 TEXT, frames_sha256 TEXT, version INTEGER, replaces TEXT,
        PRIMARY KEY (video, created, job)
    ) WITHOUT ROWID;
    CREATE INDEX described ON words (archive);
    CREATE INDEX replaced ON words (replaces);
    CREATE VIEW published AS
        SELECT video, archive, bytes, coalesce(version, 1) AS version
        FROM words JOIN archives ON key = archive AND size = bytes
        WHERE status <> 'failed';
    CREATE VIEW videos AS
        SELECT w.video, w.name, w.archive, w.bytes, w.error_class, w.error,
            CASE WHEN w.status IN ('failed', 'excluded') THEN w.status WHEN a.key IS NULL THEN 'missing'
                WHEN w.status = 'ok' THEN 'done' ELSE 'partial' END AS state
        FROM words AS w LEFT JOIN archives AS a ON a.key = w.archive AND a.size = w.bytes
        WHERE NOT EXISTS (
            SELECT 1 FROM words AS later
            WHERE later.video = w.video AND (later.created, later.job) > (w.created, w.job)
        );
    CREATE VIEW compressed AS
        SELECT w.video, w.job, w.name, w.archive, w.bytes, w.sha256, w.frames_sha256, w.version,
            max(w.created) AS created
        FROM words AS w WHERE w.status NOT IN ('failed', 'excluded') AND NOT EXISTS (
            SELECT 1 FROM words AS later WHERE later.status NOT IN ('failed', 'excluded')
            AND later.video = w.video AND (later.created, later.job) > (w.created, w.job)
        ) AND NOT EXISTS (
            SELECT 1 FROM words AS later WHERE later.status <> 'failed'
            AND later.replaces = w.sha256 AND (later.created, later.job) > (w.created, w.job)
        ) GROUP BY w.archive;
    CREATE VIEW undescribed AS
        SELECT key, size FROM archives AS a WHERE NOT EXISTS (
            SELECT 1 FROM words WHERE archive = a.key AND bytes = a.size AND status <> 'failed'
        );
"""


@dataclass(frozen=True, slots=True)
class StagedVideo:
    """What is staged of a version of one video: GOPs, their bytes, and the POSIX times of its oldest and newest object.

    ``archive`` is the described archive that lies whole at its place and makes the staging useless, if any;
    ``archive_bytes`` its size.
    """

    video_id: str
    version: int
    name: str | None
    gops: int
    bytes: int
    oldest: float
    newest: float
    archive: str | None
    archive_bytes: int | None

    @property
    def prefix(self) -> str:
        """Where it lies."""
        return f"{STAGING}/{self.video_id}/"


class Survey:
    """A destination as it was listed. See `survey`."""

    def __init__(self, storage: Storage, database: sqlite3.Connection, now: float) -> None:
        self.storage = storage
        self.now = now
        self._database = database

    def rows(self, query: str, *values: object) -> Iterator[tuple[Any, ...]]:
        """Rows of a query of the tables and views above."""
        yield from self._database.execute(query, values)

    def staged(self) -> Iterator[StagedVideo]:
        """Every video and version of which something is staged, in order of id."""
        query = """
            SELECT s.video, s.version, (SELECT max(name) FROM words WHERE video = s.video), gops, s.bytes, oldest,
                newest, p.archive, max(p.bytes)
            FROM staged AS s LEFT JOIN published AS p ON p.video = s.video AND p.version >= s.version
            GROUP BY s.video, s.version ORDER BY s.video, s.version
        """
        for row in self.rows(query):
            yield StagedVideo(*row)

    def fill(self, under: str, *, only_staged: bool) -> None:
        """List what lies ``under`` a prefix and read its manifest; of ``only_staged`` videos: only theirs."""
        listed = self.storage.list(under)
        while page := list(islice(listed, 10_000)):
            self._add_page(page)
        wanted = "SELECT key FROM parts"
        if only_staged:
            # A part is named for its video; one that is not may be about any.
            wanted += " WHERE video IS NULL OR video IN (SELECT video FROM staged)"
        keys = (key for (key,) in self._database.execute(wanted))
        with ThreadPoolExecutor(_READERS, "manifest") as readers:
            while batch := list(islice(keys, _READ_AHEAD)):
                for words in readers.map(self._read_part, batch):
                    self._add_words(words)

    def _add_page(self, page: Iterable[ObjectStat]) -> None:
        archives, lists, parts, staged = [], [], [], []
        for found in page:
            if inside := _STAGED.fullmatch(found.key):
                gop = is_staged_gop(found.key)
                version = staged_version(found.key)
                staged.append((inside[1], version, int(gop), gop * found.size, found.mtime, found.mtime))
            elif found.key.endswith(ARCHIVE_SUFFIX):
                archives.append((found.key, found.size))
            elif found.key.endswith(FRAME_LIST_SUFFIX):
                archive = archive_key(found.key.removesuffix(FRAME_LIST_SUFFIX))
                lists.append((found.key, archive, found.size))
            elif found.key.startswith(f"{MANIFEST}/") and found.key.endswith(".parquet"):
                named = _PART.search(found.key)
                parts.append((found.key, named and named[1]))
        self._database.executemany("INSERT OR REPLACE INTO archives VALUES (?, ?)", archives)
        self._database.executemany("INSERT OR REPLACE INTO frame_lists VALUES (?, ?, ?)", lists)
        self._database.executemany("INSERT OR REPLACE INTO parts VALUES (?, ?)", parts)
        self._database.executemany(
            """INSERT INTO staged VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT (video, version) DO UPDATE SET
            gops = gops + excluded.gops, bytes = bytes + excluded.bytes,
            oldest = min(oldest, excluded.oldest), newest = max(newest, excluded.newest)""",
            staged,
        )

    def _read_part(self, key: str) -> list[tuple[Any, ...]] | tuple[str, str]:
        """The words of one part, or its key and what is wrong with it."""
        try:
            table = read_columns(self.storage.read(key), _COLUMNS)
            job = key.split("/")[-2].removeprefix("job=")
            # A row for each GOP says the same of its video.
            rows = set(zip(*(column.to_pylist() for column in table.columns), strict=True))
            return [(video, created.timestamp(), job, *rest) for created, video, *rest in rows]
        except ObjectMissing:
            return []
        except (pa.ArrowException, KeyError, AttributeError) as error:
            return key, f"{type(error).__name__}: {error}"

    def _add_words(self, words: list[tuple[Any, ...]] | tuple[str, str]) -> None:
        if isinstance(words, tuple):
            self._database.execute("INSERT OR REPLACE INTO unreadable VALUES (?, ?)", words)
        else:
            self._database.executemany(
                "INSERT OR REPLACE INTO words VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", words
            )


@contextlib.contextmanager
def survey(storage: Storage, *, under: str = "", only_staged: bool = False) -> Iterator[Survey]:
    """List a destination, or what lies ``under`` a prefix of it, and read the manifest found there.

    ``only_staged`` reads only what is said of staged videos.

    Raises:
        StorageError: the destination cannot be listed or read.
    """
    # An empty name makes SQLite's own temporary file, which goes with the connection.
    with contextlib.closing(sqlite3.connect("", isolation_level=None)) as database:
        database.executescript("PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF;" + _TABLES)
        found = Survey(storage, database, storage.now())
        found.fill(under, only_staged=only_staged)
        yield found


def is_staged_gop(key: str) -> bool:
    """Whether ``key`` is exactly what `s2vc_ray.staging.staging_key` makes."""
    inside = _STAGED.fullmatch(key)
    return inside is not None and _GOP.fullmatch(inside[2]) is not None


def staged_version(key: str) -> int:
    """Which version of its video's archive a staged object is for."""
    inside = _STAGED.fullmatch(key)
    found = inside and re.match(_FINGERPRINT, inside[2])
    return int(found[1] or 1) if found else 1


def is_our_write(write: Unfinished) -> bool:
    """Whether an unfinished write would become an object of ours, rather than somebody else's upload."""
    ours = (ARCHIVE_SUFFIX, FRAME_LIST_SUFFIX, ".s2vc-tmp", BAG)
    return (
        write.key.endswith(ours)
        or is_staged_gop(write.key)
        or (write.key.startswith(_TABLES_AT) and write.key.endswith(".parquet"))
    )


def parse_age(text: str) -> float:
    """Seconds of ``7d``, ``12h``, ``30m``, ``90s``, ``2w`` or a plain number.

    Raises:
        ConfigError: anything else.
    """
    matched = _AGE.fullmatch(text.strip())
    if matched is None:
        raise ConfigError(f"{text!r} is no age: give a number and a unit, such as 7d, 12h or 30m")
    return float(matched[1]) * _UNITS[matched[2]]
