"""What happened to a destination's archives, as events in the sense of PREMIS: one table of all that was done.

Compressions are read off the manifest. Verifications are written by `EventLog`, one immutable Parquet part for each
run, under ``events/``. ``docs/audit.md`` has the schema; like the manifest's, columns are only ever added. Knows
nothing of Ray or torch.
"""

from __future__ import annotations

import io
import json
import re
import tempfile
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from s2vc_ray.errors import ObjectExists, StorageError
from s2vc_ray.manifest import read_manifest
from s2vc_ray.storage import Storage, open_storage
from s2vc_ray.survey import EVENTS
from s2vc_ray.verify_report import Verdict
from s2vc_ray.words import ranges

COMPRESSION, REENCODING, FIXITY, DECODING, MEASUREMENT = (
    "compression",
    "re-encoding",
    "fixity check",
    "decoding check",
    "measurement",
)
_PART = re.compile(rf"{EVENTS}/[0-9]{{8}}T[0-9]{{6}}Z-[0-9a-f]{{6}}\.parquet")
_ROWS = 10_000
_SPACE = uuid.UUID("5a3c86f1-6c0e-4f0e-9f5b-5b1b0d7f2f4e")


@dataclass(frozen=True, slots=True)
class Event:
    """One event.

    Attributes:
        event_id: a UUID. That of a compression follows from its job and video, so it is the same whenever it is read.
        event_type: ``compression``, ``re-encoding`` (of some GOPs), ``fixity check``, ``decoding check`` or
            ``measurement``.
        time: UTC.
        run: the job, or the verification, that it was part of.
        agent, agent_version: the program.
        model_id, weights_sha256, device: what decoded or coded; None where nothing was.
        depth: of a verification: ``structure``, ``bytes``, ``symbols`` or ``pixels``.
        object: key of the archive under the destination.
        object_sha256: of the archive's bytes at that time; None when they were not all read, or not there.
        outcome: ``success``, ``failure`` or ``not measured``.
        detail: what was found.
    """

    event_id: str
    event_type: str
    time: datetime
    run: str
    agent: str
    agent_version: str | None
    model_id: str | None
    weights_sha256: str | None
    device: str | None
    depth: str | None
    object: str | None
    object_sha256: str | None
    outcome: str
    detail: str


SCHEMA = pa.schema(
    [
        pa.field(name, pa.timestamp("us", tz="UTC") if kind == "datetime" else pa.string(), "None" in kind)
        for name, kind in Event.__annotations__.items()
    ],
    metadata={"s2vc.events_version": "1"},
)


@dataclass(frozen=True, slots=True)
class Agent:
    """Who acts: the program, and the model it decodes with, if any."""

    program: str
    version: str | None
    model_id: str | None = None
    weights_sha256: str | None = None
    device: str | None = None


def this_program() -> tuple[str, str | None]:
    """Name and version of this installation."""
    try:
        return "s2vc-ray", version("s2vc-ray")
    except PackageNotFoundError:
        return "s2vc-ray", None


class EventLog:
    """The events of one verification: collected on disk, and put as one part at the end.

    Used with ``with``: leaving it puts what there is, also when the verification broke off.
    """

    def __init__(self, storage: Storage, depth: str) -> None:
        begun = datetime.now(UTC)
        self.run = f"{begun:%Y%m%dT%H%M%SZ}-{uuid.uuid4().hex[:6]}"
        self._storage = storage
        self._depth = depth
        self._rows: list[dict[str, Any]] = []
        self._folder = tempfile.TemporaryDirectory(prefix="s2vc-")
        self._path = Path(self._folder.name, "events.parquet")
        self._writer: pq.ParquetWriter | None = None

    def __enter__(self) -> EventLog:
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self.close()
        finally:
            self._folder.cleanup()

    def add(self, verdict: Verdict, agent: Agent) -> None:
        """One event for each check of a verdict."""
        now = datetime.now(UTC)
        for check in verdict.checks:
            event = Event(
                event_id=str(uuid.uuid4()),
                event_type=check.kind,
                time=now,
                run=self.run,
                agent=agent.program,
                agent_version=agent.version,
                model_id=agent.model_id,
                weights_sha256=agent.weights_sha256,
                device=agent.device,
                depth=self._depth,
                object=verdict.key,
                object_sha256=verdict.sha256,
                outcome=check.outcome,
                detail=check.detail,
            )
            self._rows.append(asdict(event))
        if len(self._rows) >= _ROWS:
            self._flush()

    def _flush(self) -> None:
        if self._writer is None:
            self._writer = pq.ParquetWriter(self._path, SCHEMA, compression="zstd")
        self._writer.write_table(pa.Table.from_pylist(self._rows, schema=SCHEMA))
        self._rows.clear()

    def close(self) -> str | None:
        """Put the part, and return its key; None when nothing was added, or it was put before.

        Raises:
            StorageError: the store refused.
        """
        if self._rows:
            self._flush()
        if self._writer is None:
            return None
        self._writer.close()
        self._writer = None
        key = f"{EVENTS}/{self.run}.parquet"
        if not self._storage.put_file(key, self._path):
            raise ObjectExists(f"events {key} exist already: verify again")
        return key


def read_events(destination: Storage | str) -> pa.Table:
    """All events of a destination in order of time: compressions from the manifest, and every verification.

    Raises:
        StorageError: a part cannot be read; the message names it.
    """
    storage = open_storage(destination) if isinstance(destination, str) else destination
    compressions = pa.Table.from_pylist(list(_compressions(storage)), schema=SCHEMA)
    table = pa.concat_tables([compressions, read_verifications(storage)], promote_options="default")
    return table.sort_by([(name, "ascending") for name in ("time", "object", "event_type")])


def read_verifications(storage: Storage) -> pa.Table:
    """The events of every verification.

    Raises:
        StorageError: a part cannot be read; the message names it.
    """
    tables = [SCHEMA.empty_table()]
    for item in storage.list(f"{EVENTS}/"):
        if _PART.fullmatch(item.key):
            try:
                tables.append(pq.ParquetFile(io.BytesIO(storage.read(item.key))).read())
            except pa.ArrowException as error:
                raise StorageError(f"events {item.key} cannot be read: {error}") from error
    return pa.concat_tables(tables, promote_options="default")


def _compressions(storage: Storage) -> Iterator[dict[str, Any]]:
    """One event for each job and video that the manifest tells of."""
    rows: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for row in read_manifest(storage).to_pylist():
        if row["status"] == "excluded":  # nothing was done
            continue
        rows.setdefault((row["job"], row["video_id"]), []).append(row)
    for (job, video), gops in rows.items():
        first = gops[0]
        failed = first["status"] == "failed"
        where = _where(first["config"])
        said = "" if failed else _again(gops, where) if where else _coded(gops)
        said = ": ".join(part for part in (said, first["error_class"], first["error"]) if part)
        program, _, number = (first["creator"] or "s2vc-ray").partition(" ")
        yield asdict(
            Event(
                event_id=str(uuid.uuid5(_SPACE, f"{job}/{video}")),
                event_type=REENCODING if where else COMPRESSION,
                time=first["created"],
                run=job,
                agent=program,
                agent_version=number or None,
                model_id=first["model_id"],
                weights_sha256=first["weights_sha256"],
                device=first["device"],
                depth=None,
                object=first["archive"] or f"{first['source_name']}.s2vc",
                object_sha256=first["archive_sha256"],
                outcome="failure" if failed else "success",
                detail=said,
            )
        )


def _where(config: str) -> str:
    """The condition of a job that codes GOPs again; empty for others."""
    options = json.loads(config)
    return str(options.get("where", "")) if isinstance(options, dict) else ""


def _coded(gops: Sequence[Mapping[str, Any]]) -> str:
    frames = sum(row["frames_encoded"] or 0 for row in gops)
    return f"{len(gops)} GOPs, {frames} frames of {gops[0]['source_uri']}"


def _again(gops: Sequence[Mapping[str, Any]], where: str) -> str:
    """Which GOPs were coded again and why, and where the others come from."""
    numbers = [row["gop_index"] for row in gops if row["coded_job"] == row["job"]]
    first = gops[0]
    return (
        f"GOPs {ranges(numbers)} of {len(gops)} coded again ({where}), from {first['source_uri']}; the others from "
        f"version {first['archive_version'] - 1}, SHA-256 {first['replaces']}"
    )
