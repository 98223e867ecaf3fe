"""manifest-sha256.txt: derived from the manifest, read by sha256sum, rewritten whole, also by several jobs at once."""

from __future__ import annotations

import hashlib
import io
import subprocess
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

import s2vc_ray.compress
from s2vc_ray.bag import bag_line, read_bag, write_bag
from s2vc_ray.compress import compress
from s2vc_ray.config import JobConfig, MetricPolicy
from s2vc_ray.errors import ObjectMissing, StorageError
from s2vc_ray.manifest import read_manifest
from s2vc_ray.storage import open_storage
from s2vc_ray.survey import BAG
from tests import media
from tests.destinations import describe
from tests.fakes import load_fake
from tests.memory_storage import MemoryStorage

CONFIG = JobConfig(
    model="fake", executor="local", allow_larger=True, gop=8, metrics=MetricPolicy.parse("none")
)


def run(sources: list[Path], out: Path) -> None:
    compress([str(path) for path in sources], str(out), CONFIG, load_codec=load_fake)


def entries(storage: MemoryStorage) -> dict[str, str]:
    return dict(read_bag(io.BytesIO(storage.read(BAG))))


def sha256sum(out: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["sha256sum", "-c", BAG], cwd=out, capture_output=True, text=True)


def test_a_job_leaves_a_list_that_sha256sum_checks(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    names = ["plain.mp4", "100 % später.mp4", "two\nlines.mp4"]
    clips = [media.make_clip(folder / name, frames=9, seed=at) for at, name in enumerate(names)]
    run([folder], tmp_path / "out")
    checked = sha256sum(tmp_path / "out")
    assert (checked.returncode, checked.stderr) == (0, "")
    assert checked.stdout.count(": OK") == 2 * len(clips)
    archive = tmp_path / "out" / "plain.mp4.s2vc"
    archive.write_bytes(archive.read_bytes()[:-1] + b"?")
    assert "plain.mp4.s2vc: FAILED" in sha256sum(tmp_path / "out").stdout


def test_every_job_renews_it_and_a_job_that_does_nothing_leaves_it(tmp_path: Path) -> None:
    out = tmp_path / "out"
    run([media.make_clip(tmp_path / "a.mp4", frames=4)], out)
    first = (out / BAG).read_bytes()
    run([media.make_clip(tmp_path / "b.mp4", frames=4, seed=1)], out)
    both = (out / BAG).stat()
    assert (out / BAG).read_bytes().startswith(first)
    assert [path for path, _ in read_bag(io.BytesIO((out / BAG).read_bytes()))] == [
        "a.mp4.s2vc",
        "a.mp4.framemd5",
        "b.mp4.s2vc",
        "b.mp4.framemd5",
    ]
    run([tmp_path / "a.mp4"], out)
    assert (out / BAG).stat().st_ino == both.st_ino
    (out / BAG).unlink()
    run([tmp_path / "a.mp4"], out)
    assert (out / BAG).stat().st_size == both.st_size


def test_the_latest_compression_counts_and_failures_do_not() -> None:
    storage = MemoryStorage()
    old, new, other = "1" * 64, "2" * 64, "3" * 64
    describe(storage, "a.mp4", "ok", job=1, archive_sha256=old)
    describe(storage, "a.mp4", "partial", job=2, archive_sha256=new, framemd5_sha256=other, gops=3)
    describe(storage, "a.mp4", "failed", job=3)
    describe(storage, "b.mp4", "ok", job=1, archive_sha256=other)
    describe(storage, "c.mp4", "failed", job=1)
    report = write_bag(storage)
    assert (report.entries, report.parts, report.unreadable) == (3, 5, ())
    assert entries(storage) == {"a.mp4.s2vc": new, "a.mp4.framemd5": other, "b.mp4.s2vc": other}


def test_a_video_that_moved_is_listed_where_it_is_now() -> None:
    storage = MemoryStorage()
    describe(storage, "a.mp4", "ok", job=1, archive_sha256="1" * 64)
    describe(storage, "a.mp4", "ok", job=2, archive="deeper/a.mp4.s2vc", archive_sha256="1" * 64)
    write_bag(storage)
    assert list(entries(storage)) == ["deeper/a.mp4.s2vc"]


def test_an_unreadable_part_is_left_out_and_named() -> None:
    storage = MemoryStorage()
    describe(storage, "a.mp4", "ok", archive_sha256="1" * 64)
    storage.put("manifest/job=j/0123456789abcdef.parquet", b"not parquet")
    (said,) = write_bag(storage).unreadable
    assert "0123456789abcdef.parquet" in said
    assert list(entries(storage)) == ["a.mp4.s2vc"]


def test_a_folder_that_is_no_destination_gets_no_list(tmp_path: Path) -> None:
    with pytest.raises(ObjectMissing, match="no manifest"):
        write_bag(str(tmp_path))
    assert list(tmp_path.iterdir()) == []


class Meanwhile(MemoryStorage):
    """Another job ends right after this one's list was written, as often as there are ``arrivals``."""

    arrivals: list[Callable[[], Any]]

    def put_file(self, key: str, path: object, *, overwrite: bool = False) -> bool:
        written = super().put_file(key, path, overwrite=overwrite)
        if self.arrivals:
            self.arrivals.pop()()
        return written


def test_a_part_that_comes_while_it_is_written_is_not_lost() -> None:
    storage = Meanwhile()
    storage.arrivals = [lambda: describe(storage, "b.mp4", "ok", archive_sha256="2" * 64)]
    describe(storage, "a.mp4", "ok", archive_sha256="1" * 64)
    assert write_bag(storage).entries == 2
    assert list(entries(storage)) == ["a.mp4.s2vc", "b.mp4.s2vc"]


def test_it_does_not_run_after_a_manifest_for_ever() -> None:
    storage = Meanwhile()
    names = [f"{at}.mp4" for at in range(9)]
    storage.arrivals = [lambda n=n: describe(storage, n, "ok", archive_sha256="2" * 64) for n in names]  # type: ignore[misc]
    describe(storage, "a.mp4", "ok", archive_sha256="1" * 64)
    with pytest.raises(StorageError, match="s2vc bag again"):
        write_bag(storage)


def test_two_jobs_that_end_together_leave_a_whole_list(tmp_path: Path) -> None:
    clips = [media.make_clip(tmp_path / f"{seed}.mp4", frames=9, seed=seed) for seed in range(6)]
    out = tmp_path / "out"
    with ThreadPoolExecutor(2) as drivers:
        list(drivers.map(lambda part: run(part, out), [clips[:3], clips[3:]]))
    checked = sha256sum(out)
    assert (checked.returncode, checked.stdout.count(": OK")) == (0, 12)


def test_the_list_of_a_job_that_died_is_made_good_by_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, clips = (
        tmp_path / "out",
        [media.make_clip(tmp_path / f"{at}.mp4", frames=4, seed=at) for at in (0, 1)],
    )
    run(clips[:1], out)

    def dies(storage: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(s2vc_ray.compress, "write_bag", dies)
        with pytest.raises(KeyboardInterrupt):
            run(clips[1:], out)
    assert sha256sum(out).stdout.count(": OK") == 2
    run(clips, out)
    assert sha256sum(out).stdout.count(": OK") == 4


def test_a_list_that_cannot_be_written_is_no_failure_of_the_job(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """As under a policy that lets nothing be overwritten."""

    def refused(storage: object) -> None:
        raise StorageError("AccessDenied")

    monkeypatch.setattr(s2vc_ray.compress, "write_bag", refused)
    run([media.make_clip(tmp_path / "a.mp4", frames=4)], tmp_path / "out")
    assert "was not renewed: AccessDenied: run s2vc bag" in caplog.text
    assert len(read_manifest(open_storage(str(tmp_path / "out")))) == 1


@pytest.mark.parametrize("line", ["", "abc  a.s2vc\n", "0" * 64 + " a.s2vc\n", "0" * 64 + "  \n"])
def test_other_text_is_refused(line: str) -> None:
    good = bag_line("a.s2vc", hashlib.sha256(b"").hexdigest())
    with pytest.raises(ValueError, match="line 2"):
        list(read_bag(io.BytesIO(f"{good}{line or 'x'}".encode())))
