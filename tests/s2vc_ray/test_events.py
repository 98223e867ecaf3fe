"""Structured logs: one JSON object a line, complete, bounded, without secrets, and never in the job's way."""

from __future__ import annotations

import json
import logging
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from s2vc_ray import events
from s2vc_ray.errors import ConfigError
from s2vc_ray.events import EventLog
from s2vc_ray.sources import Source
from tests.job_events import DEPTHS, POOL, ended, failure, gop, tell_job


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def logged(path: Path, level: str = "debug") -> list[dict[str, Any]]:
    log = EventLog(str(path), level)
    tell_job(log)
    log.close()
    return lines(path)


def test_every_event_is_one_object_a_line(tmp_path: Path) -> None:
    told = logged(tmp_path / "a.log")
    assert [line["event"] for line in told] == [
        "job_started",
        "pool",
        "video_planned",
        "flow",
        "gop_done",
        "gop_retried",
        "gop_done",
        "video_done",
        "video_planned",
        "gop_failed",
        "video_done",
        "video_done",
        "job_finished",
    ]
    for line in told:
        assert line["job"] == "job-1"
        assert datetime.fromisoformat(line["time"]).tzinfo is not None
        assert None not in line.values()


def test_a_gop_can_be_found_by_its_ids(tmp_path: Path) -> None:
    done = [line for line in logged(tmp_path / "a.log") if line["event"] == "gop_done"]
    assert [(line["video"], line["gop"], line["resumed"]) for line in done] == [
        ("v", 0, True),
        ("v", 1, False),
    ]
    assert {name: done[1][name] for name in ("attempt", "device", "bytes", "frames", "encode_seconds")} == {
        "attempt": 1,
        "device": "cpu",
        "bytes": 64,
        "frames": 10,
        "encode_seconds": 2.0,
    }


def test_failures_carry_their_class_and_level(tmp_path: Path) -> None:
    told = {line["event"]: line for line in logged(tmp_path / "a.log")}
    assert (told["gop_retried"]["level"], told["gop_failed"]["level"]) == ("warning", "error")
    assert (told["gop_failed"]["video"], told["gop_failed"]["gop"], told["gop_failed"]["error_class"]) == (
        "w",
        0,
        "BitstreamError",
    )
    failed = [line for line in logged(tmp_path / "b.log") if line.get("status") == "failed"]
    assert [(line["level"], line["error_class"]) for line in failed] == [("error", "SourceError")]
    assert failed[0]["video"] == Source(failed[0]["source"], failed[0]["name"]).video_id


@pytest.mark.parametrize(
    ("level", "first"), [("info", "job_started"), ("warning", "gop_retried"), ("error", "gop_failed")]
)
def test_levels_leave_out_what_is_below_them(tmp_path: Path, level: str, first: str) -> None:
    told = logged(tmp_path / "a.log", level)
    assert told[0]["event"] == first
    assert "gop_done" not in {line["event"] for line in told}


def test_the_flow_is_told_once_a_minute_and_the_pool_when_it_changes(tmp_path: Path) -> None:
    log = EventLog(str(tmp_path / "a.log"))
    for _ in range(100):
        log.flow(DEPTHS)
        log.pool(POOL)
    log.close()
    assert [line["event"] for line in lines(tmp_path / "a.log")] == ["flow", "pool"]


def test_files_are_rotated_and_only_a_few_are_kept(tmp_path: Path) -> None:
    log = EventLog(str(tmp_path / "a.log"), "debug", file_bytes=2000)
    for index in range(500):
        log.gop_done(gop(index), resumed=False)
    log.close()
    kept = sorted(path.name for path in tmp_path.iterdir())
    assert kept == ["a.log", "a.log.1", "a.log.2", "a.log.3", "a.log.4"]
    assert all(path.stat().st_size < 2500 for path in tmp_path.iterdir())
    assert lines(tmp_path / "a.log")[-1]["gop"] == 499


def test_a_second_run_appends(tmp_path: Path) -> None:
    assert len(logged(tmp_path / "a.log")) * 2 == len(logged(tmp_path / "a.log"))


def test_what_modules_log_comes_out_the_same_way(tmp_path: Path) -> None:
    log = EventLog(str(tmp_path / "a.log"))
    log.started("job-1", 1)
    try:
        raise OSError("no route to https://me:pw@host/")
    except OSError:
        logging.getLogger("s2vc_ray.storage").exception("put %s\nfailed", "a key")
    logging.getLogger("somebody.else").warning("not ours")
    log.close()
    (_, line) = lines(tmp_path / "a.log")
    assert (line["event"], line["logger"], line["message"]) == (
        "message",
        "s2vc_ray.storage",
        "put a key\nfailed",
    )
    assert (line["job"], line["level"], line["error_class"]) == ("job-1", "error", "OSError")
    assert "Traceback" in line["trace"]
    assert "pw" not in json.dumps(line)


def test_secrets_stay_out(tmp_path: Path) -> None:
    log = EventLog(str(tmp_path / "a.log"))
    secret = "aws_secret_access_key=wJalrXUtnFEMI https://me:hunter2@host/k?X-Amz-Signature=0af1"
    log.gop_failed(failure(0, error=secret), final=True)
    log.video_done(ended("https://me:hunter2@host/b.mp4", "failed", error=secret))
    log.planned("v", "https://me:hunter2@host/b.mp4", 1, 1)
    log.broken_off(OSError(secret))
    log.close()
    text = (tmp_path / "a.log").read_text()
    assert len(text.splitlines()) == 4
    assert not [word for word in ("hunter2", "wJalr", "0af1") if word in text]


def test_names_that_are_not_unicode_are_logged(tmp_path: Path) -> None:
    log = EventLog(str(tmp_path / "a.log"))
    log.planned("v", "caf\udce9\n.mp4", 1, 1)
    log.close()
    assert lines(tmp_path / "a.log")[0]["name"] == "caf\udce9\n.mp4"


def test_standard_error_takes_the_log_too(capsys: pytest.CaptureFixture[str]) -> None:
    log = EventLog("-")
    tell_job(log)
    log.close()
    captured = capsys.readouterr()
    assert captured.out == ""
    assert json.loads(captured.err.splitlines()[0])["event"] == "job_started"


def test_a_log_that_cannot_be_written_says_so_once_and_lets_the_job_go_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    class Full:
        def write(self, _: str) -> None:
            raise OSError(28, "No space left on device")

        def flush(self) -> None:
            pass

    log = EventLog("-")
    assert isinstance(log._handler, logging.StreamHandler)
    log._handler.setStream(Full())
    tell_job(log)
    log.close()
    assert capsys.readouterr().err.count("No space left on device") == 1


def test_logging_is_left_as_it_was_found(tmp_path: Path) -> None:
    ours = logging.getLogger("s2vc_ray")
    before = (ours.level, ours.propagate, list(ours.handlers))
    logged(tmp_path / "a.log")
    assert (ours.level, ours.propagate, list(ours.handlers)) == before


def test_what_cannot_be_logged_to_is_refused_at_once(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be written"):
        EventLog(str(tmp_path / "no" / "such" / "a.log"))
    with pytest.raises(ConfigError, match="choose one of debug, info"):
        EventLog(str(tmp_path / "a.log"), "loud")
    assert set(events.LEVELS) == {"debug", "info", "warning", "error"}
