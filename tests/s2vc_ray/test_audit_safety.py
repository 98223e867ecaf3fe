"""Whatever a user's expression or query says, it writes nothing and reads nothing but the manifest."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pyarrow as pa
import pytest

from s2vc_ray.audit import AuditOptions, audit, audit_rows
from s2vc_ray.audit_tables import open_tables
from s2vc_ray.errors import ConfigError, S2vcError
from s2vc_ray.storage import Storage, open_storage
from tests.audited import video

rows_of_python = pa.table({"a": [1]})
"""What a query must not find."""


@pytest.fixture
def storage(tmp_path: Path) -> Storage:
    storage = open_storage(str(tmp_path / "out"))
    video(storage, "a.mp4", [{}, {}])
    (tmp_path / "secret.csv").write_text("secret\n42\n")
    (tmp_path / "out" / "notes.txt").write_text("mine")
    return storage


def files(folder: Path) -> dict[str, str]:
    found = (path for path in folder.rglob("*") if path.is_file())
    return {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in found}


QUERIES = [
    "copy (select 1) to '{folder}/made.csv'",
    "copy gops to '{folder}/made.parquet' (format parquet)",
    "with a as (copy (select 1) to '{folder}/made.csv') select 1",
    "with a as (copy (select 1) to '{part}') select 1",
    "with a as (copy (select 1) to '{folder}/out/made.csv') select 1",
    "select * from read_csv('{folder}/secret.csv')",
    "select * from '{folder}/secret.csv'",
    "select * from read_text('{folder}/out/notes.txt')",
    "select content from read_text('/etc/hostname')",
    "select * from glob('{folder}/*')",
    "select * from read_parquet('{part}')",
    "select * from read_parquet('s3://bucket/key.parquet')",
    "select * from read_csv('https://example.com/a.csv')",
    "select * from query('copy (select 1) to ''{folder}/made.csv''')",
    "attach '{folder}/made.db' as other",
    "export database '{folder}/made'",
    "install httpfs",
    "load '{folder}/evil.duckdb_extension'",
    "set enable_external_access = true",
    "set allowed_directories = ['/']",
    "pragma enable_profiling",
    "create secret (type s3, key_id 'a', secret 'b')",
    "select 1; copy (select 1) to '{folder}/made.csv'",
    "drop table videos",
    "select * from rows_of_python",
    "",
]


@pytest.mark.parametrize("query", QUERIES)
def test_queries_are_refused(storage: Storage, tmp_path: Path, query: str) -> None:
    (part,) = (tmp_path / "out").rglob("*.parquet")
    before = files(tmp_path)
    with (
        pytest.raises(S2vcError),
        audit_rows(storage, AuditOptions(), query.format(folder=tmp_path, part=part) or ";") as answer,
    ):
        list(answer.rows)
    assert files(tmp_path) == before


@pytest.mark.parametrize(
    "expression",
    [
        "(with a as (copy (select 1) to '{folder}/made.csv') select true)",
        "(with a as (copy (select 1) to '{part}') select true)",
        "exists (select * from read_csv('{folder}/secret.csv'))",
        "exists (select * from read_text('/etc/hostname'))",
        "true); copy (select 1) to '{folder}/made.csv'; select (true",
        "true) or (select count(*) from read_blob('{part}')) > (0",
        "bpp > 0, q > 1",
        "",
        "-- nothing",
    ],
)
def test_expressions_are_refused(storage: Storage, tmp_path: Path, expression: str) -> None:
    (part,) = (tmp_path / "out").rglob("*.parquet")
    before = files(tmp_path)
    text = expression.format(folder=tmp_path, part=part)
    with pytest.raises(S2vcError):
        audit(storage, AuditOptions(require=(text,)))
    if text:
        with pytest.raises(S2vcError):
            audit(storage, AuditOptions(where=text))
    assert files(tmp_path) == before


def test_what_is_asked_for_is_answered(storage: Storage) -> None:
    query = "with a as (from gops) select v.source_name, count(*) from a join videos v using (video_id) group by 1"
    with audit_rows(storage, AuditOptions(), query) as answer:
        assert [tuple(row.values()) for batch in answer.rows for row in batch.to_pylist()] == [("a.mp4", 2)]
    assert audit(storage, AuditOptions(where="bpp > 0 -- a remark")).totals["videos"] == 1


def test_every_fence_stands_before_the_first_query(storage: Storage) -> None:
    with open_tables(storage) as tables:
        tables.sum_up()
        asked = "select name, value from duckdb_settings()"
        settings = {row["name"]: row["value"] for row in tables.ask(asked).to_pylist()}
        with pytest.raises(ConfigError, match="SELECT"):
            tables.stream_freely("set threads = 1")
    for name, value in (
        ("enable_external_access", "false"),
        ("lock_configuration", "true"),
        ("autoinstall_known_extensions", "false"),
        ("autoload_known_extensions", "false"),
    ):
        assert settings[name] == value
