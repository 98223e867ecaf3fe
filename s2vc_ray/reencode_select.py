"""Which GOPs a condition names, as revisions: a question to the audit's tables, answered into a file. Codes nothing."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from s2vc_ray.audit_tables import open_tables
from s2vc_ray.config import JobConfig
from s2vc_ray.errors import ConfigError, StorageError
from s2vc_ray.fenced_duckdb import expression
from s2vc_ray.revision import Revision
from s2vc_ray.storage import Storage
from s2vc_ray.storage_local import local_errors

_BATCH = 1000
_OPTIONS = {"scene_cuts": False, "deinterlace": False, "enlarge": True, "refine": 0}
"""What was asked for where the manifest does not say: jobs of times before there were these options."""
_QUERY = """
    SELECT job, video_id, any_value(source_uri) AS uri, any_value(source_name) AS name, any_value(archive) AS base,
        any_value(archive_sha256) AS base_sha256, any_value(archive_bytes) AS base_bytes,
        coalesce(any_value(archive_version), 1) AS version, list(gop_index ORDER BY gop_index) AS gops,
        any_value(config) AS config,
        sum(frames_encoded)::BIGINT AS frames, sum(payload_bytes)::BIGINT AS bytes, min(q) AS q_min, max(q) AS q_max
    FROM gops WHERE status <> 'failed' AND gop_index IS NOT NULL AND ({condition}) AND NOT ({same})
    GROUP BY job, video_id ORDER BY name, video_id
"""


@dataclass(frozen=True, slots=True)
class Chosen:
    """A revision, and what of the archive it concerns: frames, payload bytes, and the least and greatest q of its GOPs
    (None where another codec coded all of them)."""

    revision: Revision
    frames: int
    bytes: int
    q_min: int | None
    q_max: int | None


class Selection:
    """Videos with GOPs to be coded again; on disk, so that there may be any number of them."""

    def __init__(self, path: Path, root: str | None) -> None:
        self._path = path
        self._root = root

    def __iter__(self) -> Iterator[Chosen]:
        with pq.ParquetFile(self._path) as file:
            for batch in file.iter_batches(_BATCH):
                for row in batch.to_pylist():
                    revision = Revision(
                        row["uri"],
                        row["name"],
                        video=row["video_id"],
                        job=row["job"],
                        base=row["base"],
                        base_sha256=row["base_sha256"],
                        base_bytes=row["base_bytes"],
                        version=row["version"] + 1,
                        gops=tuple(row["gops"]),
                        root=self._root,
                    )
                    yield Chosen(revision, row["frames"], row["bytes"], row["q_min"], row["q_max"])

    def options(self) -> dict[str, Any]:
        """The options that are one for all GOPs of an archive, as the manifest has them; empty when nothing is chosen.

        Raises:
            ConfigError: the archives were not all made with the same; one job has one set of them.
        """
        texts: set[str] = set()
        with pq.ParquetFile(self._path) as file:
            for batch in file.iter_batches(_BATCH, columns=["config"]):
                texts.update(batch.column(0).to_pylist())
        found = {
            json.dumps({name: json.loads(text).get(name, usual) for name, usual in _OPTIONS.items()})
            for text in texts
        }
        if len(found) > 1:
            raise ConfigError(
                f"archives made with different options ({'; '.join(sorted(found))}) cannot be treated alike: narrow "
                "--where, for instance by config_hash"
            )
        return json.loads(found.pop()) if found else {}

    def revisions(self) -> Iterator[Revision]:
        """The revisions alone, as a job lists its sources."""
        return (one.revision for one in self)


@contextmanager
def select(storage: Storage, where: str, config: JobConfig, root: str | None = None) -> Iterator[Selection]:
    """The GOPs for which ``where`` holds, of archives that count, but for those that have the quality asked for.

    Raises:
        ObjectMissing: there is no manifest.
        ConfigError: the condition makes no sense.
        StorageError: the store refused or failed, or a part cannot be read: an older archive would seem to count.
    """
    if not where.strip():
        raise ConfigError(
            "which GOPs? give a condition: --where \"lpips_alex_worst > 0.3\", or 'true' for all of them"
        )
    condition = expression(where)
    same = "FALSE" if config.target else f"coalesce(q = {config.quality:d}, FALSE)"
    with (
        local_errors("list GOPs in the scratch folder (TMPDIR)"),
        tempfile.TemporaryDirectory(prefix="s2vc-") as folder,
    ):
        path = Path(folder, "chosen.parquet")
        with open_tables(storage) as tables:
            if tables.left_out:
                raise StorageError(
                    f"parts of the manifest cannot be read, so which archives count is not known: {tables.left_out[0]}"
                )
            answer = tables.stream(_QUERY.format(condition=condition, same=same))
            with pq.ParquetWriter(path, answer.schema) as writer:
                for batch in answer:
                    writer.write_batch(batch)
        yield Selection(path, root)
