"""``s2vc status`` and ``s2vc gc``: what they print, as what, and with which exit code."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest

from s2vc_ray import cli
from s2vc_ray.storage_local import LocalStorage
from tests.destinations import DAY, describe, gop_key, video_id


def s2vc(*arguments: object) -> int:
    with pytest.raises(SystemExit) as ended:
        cli.main([str(argument) for argument in arguments])
    return int(ended.value.code or 0)


@pytest.fixture
def out(tmp_path: Path) -> LocalStorage:
    """One video done, and old staging of another."""
    storage = LocalStorage(tmp_path / "out")
    storage.put("a.mp4.s2vc", b"x" * 1500)
    describe(storage, "a.mp4", "ok", size=1500)
    storage.put(gop_key("b.mp4", 0), b"gop")
    os.utime(storage.root / gop_key("b.mp4", 0), (time.time() - 5 * DAY,) * 2)
    return storage


def test_status_exits_1_until_every_video_is_done(
    out: LocalStorage, capsys: pytest.CaptureFixture[str]
) -> None:
    assert s2vc("status", out.root) == 1
    text = capsys.readouterr().out
    assert "1.5 kB" in text
    assert f"{video_id('b.mp4')}" in text
    assert "last added 5.0 d ago" in text
    assert s2vc("status", out.root, "--older-than", "3d") == 0
    capsys.readouterr()
    assert s2vc("status", out.root, "--json", "--older-than", "3d") == 0
    report = json.loads(capsys.readouterr().out)
    assert (report["counts"]["done"], report["counts"]["orphaned"], report["clean"]) == (1, 1, True)
    describe(out, "c.mp4", "failed")
    assert s2vc("status", out.root) == 1
    assert "c.mp4" in capsys.readouterr().out


def test_gc_says_what_it_removes(out: LocalStorage, capsys: pytest.CaptureFixture[str]) -> None:
    assert s2vc("gc", out.root) == 0
    assert "removed 0 objects" in capsys.readouterr().out
    assert s2vc("gc", out.root, "--older-than", "3d", "--dry-run") == 0
    assert f"would remove _s2vc/staging/{video_id('b.mp4')}/: 1 objects, 3 B" in capsys.readouterr().out
    assert out.stat(gop_key("b.mp4", 0)) is not None
    assert s2vc("gc", out.root, "--older-than", "3d", "--json") == 0
    report = json.loads(capsys.readouterr().out)
    assert (report["objects"], report["bytes"], report["dry_run"]) == (1, 3, False)
    assert [found.key for found in out.list("_s2vc")] == []
    assert out.stat("a.mp4.s2vc") is not None


@pytest.mark.parametrize("command", ["status", "gc"])
def test_bad_usage_exits_2_and_trouble_4(
    command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert s2vc(command, tmp_path, "--older-than", "soon") == 2
    assert "7d, 12h or 30m" in capsys.readouterr().err
    assert s2vc(command, "gs://bucket/out") == 2
    monkeypatch.setenv("S2VC_S3_PATIENCE", "0")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    monkeypatch.setattr("time.sleep", lambda _: None)
    assert s2vc(command, "s3://bucket/out") == 4
    assert "cannot reach http://127.0.0.1:9" in capsys.readouterr().err


def test_status_of_nothing_exits_4(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert s2vc("status", tmp_path) == 4
    assert "nothing of a compress job" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["status", "gc"])
def test_help_has_examples(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert s2vc(command, "--help") == 0
    text = capsys.readouterr().out
    assert f"\n  s2vc {command} " in text
    assert "--json" in text
