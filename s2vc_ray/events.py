"""A job's events as structured logs: one JSON object a line, for machines that collect them.

Every line has ``time`` (RFC 3339, UTC), ``level``, ``event`` and, once it is known, ``job``; the rest depends on the
event and is listed in ``docs/observability.md``. What other modules log through `logging` below ``s2vc_ray`` comes out
the same way, as the event ``message``. A file is rotated before it fills a disk, text goes through `redacted`, and
a log that cannot be written says so once and never stops the job.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import time
import traceback
from datetime import UTC, datetime
from logging.handlers import RotatingFileHandler
from typing import Any

from s2vc_ray.errors import ConfigError
from s2vc_ray.executor import GopFailure
from s2vc_ray.pool import WorkerPool
from s2vc_ray.redact import redacted
from s2vc_ray.results import FlowDepths, JobReport, VideoResult
from s2vc_ray.sources import Source
from s2vc_ray.staging import StagedGop

LEVELS = ("debug", "info", "warning", "error")
_ROOT = "s2vc_ray"
_FILE_BYTES = 64 << 20
_FILES = 4
"""Rotated files kept beside the current one."""
_FLOW_SECONDS = 60.0
_ENCODER = json.JSONEncoder(separators=(",", ":"), default=str)


class EventLog:
    """Writes what happens in a job. Each GOP at ``debug``; videos, retries, failures and the flow from ``info`` up.

    Args:
        target: a file to append to, or ``-`` for standard error.
        level: the least that is written, one of `LEVELS`.
        file_bytes: the file is rotated when it is so long; four older ones are kept.

    Raises:
        ConfigError: an unknown level, or a file that cannot be written.
    """

    def __init__(self, target: str, level: str = "info", file_bytes: int = _FILE_BYTES) -> None:
        if level not in LEVELS:
            raise ConfigError(f"log level is {level!r}: choose one of {', '.join(LEVELS)}")
        self._log = logging.getLogger(_ROOT)
        self._handler = _handler(target, file_bytes)
        self._lines = JsonLines()
        self._handler.setFormatter(self._lines)
        self._before = (self._log.level, self._log.propagate)
        self._log.setLevel(level.upper())
        self._log.propagate = False
        self._log.addHandler(self._handler)
        self._each_gop = self._log.isEnabledFor(logging.DEBUG)
        self._flowed = -_FLOW_SECONDS
        self._pool = (0, 0, 0.0)

    def started(self, job: str, sources: int) -> None:
        """``job_started``."""
        self._lines.job = job
        self._write(logging.INFO, "job_started", sources=sources or None)

    def planned(self, video_id: str, name: str, frames: int, gops: int, seconds: float | None = None) -> None:
        """``video_planned``."""
        self._write(
            logging.INFO,
            "video_planned",
            video=video_id,
            name=redacted(name),
            frames=frames,
            gops=gops,
            video_seconds=seconds,
        )

    def gop_done(self, gop: StagedGop, *, resumed: bool) -> None:
        """``gop_done``."""
        if not self._each_gop:
            return
        self._write(
            logging.DEBUG,
            "gop_done",
            video=gop.video_id,
            gop=gop.index,
            attempt=gop.attempts,
            device=gop.device,
            resumed=resumed,
            frames=gop.frames,
            bytes=gop.payload_bytes,
            q=gop.q,
            **({"probes": gop.probes, "target_met": gop.target_met} if gop.target else {}),
            source_seconds=round(gop.source_seconds, 6),
            encode_seconds=round(gop.encode_seconds, 6),
            decode_seconds=round(gop.decode_seconds, 6),
        )

    def gop_failed(self, failure: GopFailure, *, final: bool) -> None:
        """``gop_failed`` when it is given up, else ``gop_retried``."""
        self._write(
            logging.ERROR if final else logging.WARNING,
            "gop_failed" if final else "gop_retried",
            video=failure.task.spec.video_id,
            gop=failure.task.spec.index,
            attempt=failure.attempts,
            source=redacted(failure.task.spec.source_uri),
            error_class=failure.error_class,
            error=redacted(failure.error),
        )

    def flow(self, depths: FlowDepths) -> None:
        """``flow``, once a minute; always at ``debug``."""
        now = time.monotonic()
        if self._each_gop or now - self._flowed >= _FLOW_SECONDS:
            self._flowed = now
            self._write(
                logging.INFO,
                "flow",
                planning=depths.planning,
                queued=depths.queued,
                coding=depths.coding,
                window=depths.window,
                committing=depths.committing,
            )

    def pool(self, pool: WorkerPool) -> None:
        """``pool``, when workers come or go."""
        now = (pool.workers, pool.lanes, pool.gpus)
        if now != self._pool:
            self._pool = now
            self._write(logging.INFO, "pool", workers=pool.workers, lanes=pool.lanes, gpus=pool.gpus)

    def video_done(self, result: VideoResult) -> None:
        """``video_done``."""
        failed = result.status == "failed"
        self._write(
            logging.ERROR if failed else logging.WARNING if result.error_class else logging.INFO,
            "video_done",
            video=Source(result.uri, result.name).video_id,
            source=redacted(result.uri),
            name=redacted(result.name),
            status=result.status,
            archive=result.archive,
            source_bytes=result.source_bytes,
            archive_bytes=result.archive_bytes,
            bytes=result.payload_bytes,
            frames=result.frames,
            frames_lost=result.frames_lost,
            gops=result.gops,
            error_class=result.error_class,
            error=redacted(result.error) if result.error else None,
            notes=[redacted(note) for note in result.notes],
        )

    def finished(self, report: JobReport) -> None:
        """``job_finished``."""
        totals = report.totals
        self._write(
            logging.INFO,
            "job_finished",
            seconds=round(report.seconds, 3),
            config=report.config_hash,
            ok=totals.ok,
            partial=totals.partial,
            skipped=totals.skipped,
            failed=totals.failed,
            excluded=totals.excluded,
            frames=totals.frames,
            gops=totals.gops,
            source_bytes=totals.source_bytes,
            archive_bytes=totals.archive_bytes,
        )

    def broken_off(self, error: BaseException) -> None:
        """``job_broken_off``: the driver ends by an exception."""
        self._write(
            logging.ERROR, "job_broken_off", error_class=type(error).__name__, error=redacted(str(error))
        )

    def close(self) -> None:
        """Leave `logging` as it was found."""
        self._log.removeHandler(self._handler)
        self._handler.close()
        level, self._log.propagate = self._before
        self._log.setLevel(level)

    def _write(self, level: int, event: str, **fields: Any) -> None:
        if self._log.isEnabledFor(level):
            # Not through `Logger.log`, which would look up who called: an event says what it is.
            record = logging.LogRecord(_ROOT, level, "", 0, event, None, None)
            record.fields = fields
            self._log.handle(record)


class JsonLines(logging.Formatter):
    """Log records as JSON objects, one a line; fields that are None are left out."""

    job = ""

    def format(self, record: logging.LogRecord) -> str:
        """One line, without its end."""
        out: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
        }
        fields = getattr(record, "fields", None)
        if fields is None:
            out |= {"event": "message", "logger": record.name, "message": redacted(record.getMessage())}
            if record.exc_info and record.exc_info[1] is not None:
                error = record.exc_info[1]
                trace = "".join(traceback.format_exception(error))
                out |= {"error_class": type(error).__name__, "error": redacted(str(error))}
                out["trace"] = redacted(trace[-2000:])
            fields = {}
        else:
            out["event"] = record.msg
        if self.job:
            out["job"] = self.job
        out |= {name: value for name, value in fields.items() if value is not None}
        return _ENCODER.encode(out)


def _handler(target: str, file_bytes: int) -> logging.Handler:
    if target == "-":
        return _StandardError(sys.stderr)
    try:
        return _File(target, maxBytes=file_bytes, backupCount=_FILES, encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"log file {target!r} cannot be written: {error.strerror or error}") from error


class _SaysOnce(logging.Handler):
    """A handler that cannot write says so once; every line after it would only repeat it."""

    _said = False

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802
        """Say it, and leave the job alone."""
        if not self._said:
            self._said = True
            error = sys.exception()
            sys.stderr.write(f"s2vc: the log cannot be written, lines are lost: {error}\n")


class _StandardError(_SaysOnce, logging.StreamHandler[Any]):
    pass


class _File(_SaysOnce, RotatingFileHandler):
    def shouldRollover(self, record: logging.LogRecord) -> int:  # noqa: N802
        """By what is written: the base class would format every record twice to foresee it."""
        return int(self.stream is not None and os.fstat(self.stream.fileno()).st_size >= self.maxBytes)
