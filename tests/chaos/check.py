"""What a destination holds against what it must hold, from its bytes alone: ``python -m tests.chaos.check FILE``.

FILE is a `Truth` as JSON. Prints a `Report` as JSON and exits with 1 when anything is wrong. Runs in a fresh
process, shares nothing with the job but the archive reader and the codec, and reads the manifest's parts
itself, every row of them.

Which rows count when several jobs described one video: those of the job created last. (The
product passes over failures that came after an archive; a job that chaos struck may not end with one.)
"""

from __future__ import annotations

import hashlib
import io
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import boto3
import pyarrow.parquet as pq

from s2vc_model.errors import ModelError
from s2vc_ray.archive import ArchiveHeader, ArchiveReader, GopRecord
from s2vc_ray.errors import ArchiveError, ObjectMissing
from s2vc_ray.gop_decoder import coded_gop, iter_decode
from s2vc_ray.sources import Source
from s2vc_ray.staging import STAGING
from s2vc_ray.storage import open_storage
from s2vc_ray.worker import CodecLoader, LoadedCodec, load_s2vc
from tests.chaos.footage import Clip

_PRIVATE = "_s2vc/"
_MANIFEST = "manifest/"
_SUFFIX = ".s2vc"
_LIST = ".framemd5"
_BAG = "manifest-sha256.txt"
Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Truth:
    """What must be there.

    Attributes:
        destination, sources: URIs of the job's destination and of the one folder or prefix it was given.
        clips: every source.
        digests: SHA-256 of each source before the job.
        archives: SHA-256 of each archive of an undisturbed run; empty when there was none yet.
        model: which codec decodes.
    """

    destination: str
    sources: str
    clips: tuple[Clip, ...]
    digests: dict[str, str]
    archives: dict[str, str] = field(default_factory=dict)
    model: str = "small"

    def to_json(self) -> str:
        """For the checking process."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Truth:
        """Back from `to_json`."""
        fields = json.loads(text)
        return cls(**{**fields, "clips": tuple(Clip(**clip) for clip in fields["clips"])})


@dataclass(slots=True)
class Report:
    """What was found. ``violations`` is empty when all is well; the rest says how much was looked at.

    Attributes:
        archives: SHA-256 of each archive.
        gops, frames: decoded from all archives, every symbol checksum matching.
        lost, duplicated: GOPs missing from archives or rows; GOPs more than once in an archive or in the rows
            that count.
        described_again: videos that more than one job described as compressed.
        failed_before: parts that called a healthy video failed, and were overruled later.
        attempts: tries beyond the first of the GOPs that count.
    """

    violations: list[str] = field(default_factory=list)
    archives: dict[str, str] = field(default_factory=dict)
    gops: int = 0
    frames: int = 0
    lost: int = 0
    duplicated: int = 0
    described_again: int = 0
    failed_before: int = 0
    attempts: int = 0


def check(truth: Truth, load: CodecLoader = load_s2vc) -> Report:
    """Look at everything; a violation is a line of text."""
    return _Check(truth, load(truth.model, "cpu")).run()


def digests_of(uri: str) -> dict[str, str]:
    """SHA-256 of every object below ``uri``, by key."""
    storage = open_storage(uri)
    return {item.key: hashlib.sha256(storage.read(item.key)).hexdigest() for item in storage.list()}


class _Check:
    def __init__(self, truth: Truth, codec: LoadedCodec) -> None:
        self._truth = truth
        self._codec = codec
        self._storage = open_storage(truth.destination)
        self._report = Report()
        self._parts = list(self._read_parts())

    def run(self) -> Report:
        self._sources()
        keys = {item.key for item in self._storage.list()}
        self._objects(keys)
        for clip in self._truth.clips:
            parts = self._parts_of(clip)
            if clip.status == "failed":
                self._failure(clip, parts)
            else:
                self._compressed(clip, parts)
        self._bag()
        self._uploads()
        return self._report

    def _say(self, text: str) -> None:
        self._report.violations.append(text)

    def _sources(self) -> None:
        if digests_of(self._truth.sources) != self._truth.digests:
            self._say("sources: not the objects and bytes that they were")

    def _objects(self, keys: set[str]) -> None:
        """Nothing at the destination but archives, a frame list beside each, the bag manifest and the manifest."""
        names = [clip.name for clip in self._truth.clips if clip.status != "failed"]
        wanted = {_BAG, *(name + suffix for name in names for suffix in (_SUFFIX, _LIST))}
        there = {key for key in keys if not key.startswith((_PRIVATE, _MANIFEST))}
        for key in sorted(there - wanted):
            self._say(f"{key}: nobody should have written this")
        if staged := sorted(key for key in keys if key.startswith(STAGING)):
            self._say(f"staging: {len(staged)} objects are left, such as {staged[0]}")

    def _bag(self) -> None:
        """One line for each archive and each frame list, with the digest of what is there."""
        wanted = sorted(
            f"{hashlib.sha256(data).hexdigest()}  {name}{suffix}"
            for name in self._report.archives
            for suffix in (_SUFFIX, _LIST)
            if (data := self._read(name + suffix)) is not None
        )
        if sorted((self._read(_BAG) or b"").decode().splitlines()) != wanted:
            self._say(f"{_BAG}: not the digests of what is there")

    def _uploads(self) -> None:
        if self._truth.destination.startswith("s3://"):
            bucket = self._truth.destination.removeprefix("s3://").partition("/")[0]
            for upload in boto3.client("s3").list_multipart_uploads(Bucket=bucket).get("Uploads", ()):
                self._say(f"{upload['Key']}: a multipart upload was left open")

    def _failure(self, clip: Clip, parts: Sequence[Sequence[Row]]) -> None:
        """One failure row, saying why, and nothing else."""
        for rows in parts:
            found = [(row["status"], row["error_class"], row["gop_index"]) for row in rows]
            if found != [("failed", clip.error_class, clip.error_gop)]:
                self._say(f"{clip.name}: rows {found} instead of one failure")
        if not parts:
            self._say(f"{clip.name}: no failure row")

    def _compressed(self, clip: Clip, parts: Sequence[Sequence[Row]]) -> None:
        data = self._archive_bytes(clip)
        if data is None:
            self._report.lost += clip.gops
            return
        digest = self._report.archives[clip.name] = hashlib.sha256(data).hexdigest()
        if self._truth.archives.get(clip.name, digest) != digest:
            self._say(f"{clip.name}: its archive differs from that of an undisturbed run")
        self._archive(clip, data)
        described = [rows for rows in parts if rows[0]["status"] != "failed"]
        self._report.described_again += len(described) > 1
        if not parts or parts[-1] not in described:
            self._report.lost += clip.gops
            self._say(f"{clip.name}: the manifest's last word is {_last_word(parts)}")
        else:
            self._report.failed_before += len(parts) - len(described)
            self._report.attempts += sum(row["attempts"] - 1 for row in parts[-1] if row["attempts"])
        for rows in described:
            self._rows(clip, rows, data, digest)

    def _archive_bytes(self, clip: Clip) -> bytes | None:
        data = self._read(clip.name + _SUFFIX)
        if data is None:
            self._say(f"{clip.name}: no archive")
        return data

    def _read(self, key: str) -> bytes | None:
        try:
            return self._storage.read(key)
        except ObjectMissing:
            return None

    def _archive(self, clip: Clip, data: bytes) -> None:
        """Opens, every CRC holds, each GOP is there once, and all of it decodes."""
        try:
            reader = ArchiveReader(data)
            reader.verify()
            records = list(reader.gops())
            frames = sum(self._decode(record, reader.header) for record in records)
        except (ArchiveError, ModelError) as error:
            self._say(f"{clip.name}: archive: {error}")
            return
        self._report.gops += len(records)
        self._report.frames += frames
        self._once(clip, "archive", [record.index for record in records])
        if frames != clip.frames:
            self._say(f"{clip.name}: archive of {frames} frames instead of {clip.frames}")

    def _decode(self, record: GopRecord, header: ArchiveHeader) -> int:
        """Frames of a GOP that decode; a symbol checksum that does not match raises."""
        frames = sum(1 for _ in iter_decode(self._codec, [coded_gop(record, header)]))
        if frames != record.frames:
            self._say(f"GOP {record.index}: {frames} frames decode, {record.frames} have time stamps")
        return frames

    def _rows(self, clip: Clip, rows: Sequence[Row], data: bytes, digest: str) -> None:
        """One job's rows of a video describe the archive that is there, each GOP once."""
        place = f"{clip.name}: job {rows[0]['job']}"
        self._once(clip, place.removeprefix(f"{clip.name}: "), [row["gop_index"] for row in rows])
        if {(row["archive_sha256"], row["archive_bytes"]) for row in rows} != {(digest, len(data))}:
            self._say(f"{place}: describes another archive than is there")
        if {(row["status"], row["error_class"]) for row in rows} != {(clip.status, clip.error_class)}:
            self._say(f"{place}: status {rows[0]['status']} ({rows[0]['error_class']}), not {clip.status}")
        listed = self._read(clip.name + _LIST)
        if listed is None or {row["framemd5_sha256"] for row in rows} != {hashlib.sha256(listed).hexdigest()}:
            self._say(f"{place}: describes another frame list than is there")
        elif sum(1 for line in listed.splitlines() if not line.startswith(b"#")) != clip.frames:
            self._say(f"{place}: its frame list is not of {clip.frames} frames")
        if sum(row["frames_encoded"] for row in rows) != clip.frames:
            self._say(f"{place}: rows do not add up to {clip.frames} frames")
        for row in rows:
            start, length = row["payload_offset"], row["payload_bytes"]
            if hashlib.sha256(data[start : start + length]).hexdigest() != row["payload_sha256"]:
                self._say(f"{place}: GOP {row['gop_index']}: the payload's digest is not the row's")

    def _once(self, clip: Clip, where: str, indices: Sequence[int]) -> None:
        lost = len(set(range(clip.gops)) - set(indices))
        again = len(indices) - len(set(indices))
        self._report.lost += lost
        self._report.duplicated += again
        if sorted(indices) != list(range(clip.gops)):
            self._say(f"{clip.name}: {where}: GOPs {sorted(indices)} instead of 0..{clip.gops - 1}")

    def _source(self, clip: Clip) -> Source:
        return Source(f"{self._truth.sources.rstrip('/')}/{clip.name}", clip.name)

    def _parts_of(self, clip: Clip) -> list[list[Row]]:
        """The video's parts, the one that counts last."""
        video = self._source(clip).video_id
        return sorted(
            (rows for rows in self._parts if rows[0]["video_id"] == video),
            key=lambda rows: rows[0]["created"],
        )

    def _read_parts(self) -> Iterator[list[Row]]:
        for item in self._storage.list(_MANIFEST):
            if item.key.endswith(".parquet"):
                job = item.key.split("/")[-2].removeprefix("job=")
                table = pq.ParquetFile(io.BytesIO(self._storage.read(item.key))).read()
                yield [{**row, "job": job} for row in table.to_pylist()]


def _last_word(parts: Sequence[Sequence[Row]]) -> str:
    if not parts:
        return "nothing"
    row = parts[-1][0]
    return f"{row['status']} ({row['error_class']}: {row['error']})"


def main(arguments: Sequence[str]) -> int:
    """See the module."""
    report = check(Truth.from_json(Path(arguments[0]).read_text()))
    print(json.dumps(asdict(report)))
    return 1 if report.violations else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
