"""A destination for reports: two small archives, figures that can be checked, and names that try to be markup."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from s2vc_ray.compress import compress
from s2vc_ray.config import JobConfig, MetricPolicy
from s2vc_ray.storage import Storage, open_storage
from tests import media
from tests.audited import video
from tests.fakes import load_fake

SCRIPT = "<script>window.hacked=1</script>.mp4"
IMAGE = "\"><img src=x onerror='window.hacked=2'>.mp4"
TURNED = "film\u202e4pm.exe.mp4"
CLOSING = "</script><script>window.hacked=3</script><!-- & ' \""
LATER = datetime(2100, 1, 1, tzinfo=UTC)


def archives(folder: Path) -> Storage:
    """Compress two clips of 24 frames, ``a.mp4`` and ``b.mp4``, and describe them once more, with figures."""
    (folder / "in").mkdir()
    for seed, name in enumerate(("a.mp4", "b.mp4")):
        media.make_clip(folder / "in" / name, frames=24, size=(96, 64), seed=seed)
    metrics = MetricPolicy.parse("none")
    config = JobConfig(
        model="fake", executor="local", gop=8, scene_cuts=False, metrics=metrics, allow_larger=True
    )
    assert compress([str(folder / "in")], str(folder / "out"), config, load_codec=load_fake).clean
    storage = open_storage(str(folder / "out"))
    for name, worse in (("a.mp4", 0.0), ("b.mp4", 5.0)):
        source = folder / "in" / name
        gops = [
            {
                "payload_bytes": 1000 + 500 * at,
                "psnr_mean": 30 + at - worse,
                "psnr_worst": 25 + at - worse,
                "psnr_worst_frame": 3,
                "pts_first": 8 * at,
            }
            for at in range(3)
        ]
        video(
            storage,
            name,
            gops,
            archive=f"{name}.s2vc",
            archive_bytes=(folder / "out" / f"{name}.s2vc").stat().st_size,
            source_uri=str(source),
            source_size=source.stat().st_size,
            created=LATER,
            config='{"quality": 20, "metrics": "full"}',
        )
    return storage


def hostile(storage: Storage) -> None:
    """Videos whose names and errors are markup, one of them failed and one partial."""
    video(storage, SCRIPT, [{"psnr_worst": 1.0}, {}])
    video(storage, IMAGE, status="partial", error=CLOSING, error_class="IncompleteSource")
    video(storage, TURNED, status="failed", error=CLOSING, error_class="<b>SourceError</b>")
