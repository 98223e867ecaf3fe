"""``s2vc verify``, ``bag`` and ``events``: what they print, as what, and with which exit code."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import s2vc_ray.verify
from s2vc_ray import cli
from s2vc_ray.compress import compress
from s2vc_ray.config import JobConfig, MetricPolicy
from tests import media
from tests.fakes import load_fake


def s2vc(*arguments: object) -> int:
    with pytest.raises(SystemExit) as ended:
        cli.main([str(argument) for argument in arguments])
    return int(ended.value.code or 0)


@pytest.fixture
def out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(s2vc_ray.verify.verify, "__kwdefaults__", {"watch": None, "load_codec": load_fake})
    config = JobConfig(
        model="fake", executor="local", allow_larger=True, gop=8, metrics=MetricPolicy.parse("none")
    )
    clip = media.make_clip(tmp_path / "a.mp4", frames=12)
    compress([str(clip)], str(tmp_path / "out"), config, load_codec=load_fake)
    return tmp_path / "out"


def test_verify_says_what_it_found_and_what_to_do(out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert s2vc("verify", out) == 0
    assert "1 ok" in capsys.readouterr().out
    archive = out / "a.mp4.s2vc"
    data = bytearray(archive.read_bytes())
    data[-60] ^= 4
    archive.write_bytes(data)
    assert s2vc("verify", out, "--depth", "structure") == 1
    assert s2vc("verify", out) == 1
    text = capsys.readouterr().out
    assert "a.mp4.s2vc: damaged: bytes of it have changed" in text
    assert "damaged: restore it from a copy" in text
    archive.unlink()
    assert s2vc("verify", out, "--json") == 1
    (report,) = json.loads(capsys.readouterr().out)
    assert (report["counts"], report["clean"]) == ({"missing": 1}, False)
    assert report["problems"][0]["key"] == "a.mp4.s2vc"


def test_verify_decodes_and_says_what_was_not_measured(out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert s2vc("verify", out, "--depth", "symbols", "--model", "fake") == 0
    assert "2 GOPs and 12 frames decoded" in capsys.readouterr().out
    assert s2vc("verify", out, "--depth", "pixels", "--model", "fake") == 1
    text = capsys.readouterr().out
    assert "1 not measured" in text
    assert "nothing was measured when it was compressed" in text
    assert s2vc("verify", out / "a.mp4.s2vc") == 0


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("--depth", "deep"), 2, "choose one of structure, bytes, symbols, pixels"),
        (("--source", "x"), 2, "--depth pixels"),
        (("--sample", "half"), 2, "give a percentage"),
        (("--sample", "101%"), 2, "at most 100%"),
        (("--depth", "symbols", "--model", "none"), 3, "no model"),
    ],
)
def test_bad_options_end_as_everywhere(
    out: Path, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], code: int, said: str
) -> None:
    assert s2vc("verify", out, *arguments) == code
    assert said in capsys.readouterr().err


def test_a_place_that_is_no_destination(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for command in ("verify", "bag", "events"):
        assert s2vc(command, tmp_path) == 4
        text = capsys.readouterr().err
        assert f"under {tmp_path}" in text.replace("file://", "")
        assert "compress job" in text


def test_bag_writes_the_list_anew(out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = (out / "manifest-sha256.txt").read_bytes()
    (out / "manifest-sha256.txt").unlink()
    assert s2vc("bag", out) == 0
    assert "2 entries from 1 manifest parts" in capsys.readouterr().out
    assert (out / "manifest-sha256.txt").read_bytes() == before
    next((out / "manifest").rglob("*.parquet")).write_bytes(b"no")
    assert s2vc("bag", out, "--json") == 1
    assert json.loads(capsys.readouterr().out)["entries"] == 0


def test_events_tell_what_was_done(out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    s2vc("verify", out)
    capsys.readouterr()
    assert s2vc("events", out, "--json") == 0
    rows = json.loads(capsys.readouterr().out)
    assert [row["event_type"] for row in rows] == ["compression", "fixity check"]
    assert s2vc("events", out) == 0
    text = capsys.readouterr().out
    assert "fixity check" in text
    assert "every CRC" in text
