"""A whole job on a store that fails every few requests, in every way: nothing lost, nothing twice, nothing else."""

from __future__ import annotations

import random
import threading
from collections import Counter
from pathlib import Path

import pytest

from s2vc_ray import counters
from s2vc_ray.archive import ArchiveReader
from s2vc_ray.compress import compress
from s2vc_ray.config import JobConfig, MetricPolicy
from s2vc_ray.gc import collect
from s2vc_ray.manifest import read_manifest
from s2vc_ray.status import status
from s2vc_ray.storage import open_storage
from tests import media
from tests.fakes import load_fake
from tests.faulty_s3 import (
    Answer,
    Exchange,
    answer,
    corrupt_answer,
    corrupt_request,
    cut,
    cut_body,
    fail_after,
    faulty_s3,
    lose_answer,
    shorten,
)
from tests.seaweed import SeaweedServer

CONFIG = JobConfig(
    model="fake",
    executor="local",
    allow_larger=True,
    gop=8,
    metrics=MetricPolicy.parse("sample:1", ("psnr",)),
)
ANYWHERE = (
    answer(500, "InternalError"),
    answer(503, "SlowDown"),
    cut,
    lose_answer,
    fail_after(502, "BadGateway"),
)
EVERY = 4


class Misfortune:
    """Strikes every fourth request of each method with something picked from a seed."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)
        self._lock = threading.Lock()
        self._seen: Counter[str] = Counter()
        self.befallen: Counter[str] = Counter()

    def __call__(self, exchange: Exchange) -> Answer | None:
        with self._lock:
            self._seen[exchange.method] += 1
            struck = self._seen[exchange.method] % EVERY == 2
            choices = [*ANYWHERE]
            if exchange.method == "GET":
                # A range has no checksum but its receiver's; what is read whole has ours.
                choices += [cut_body(10), shorten(1) if "Range" in exchange.headers else corrupt_answer]
            if exchange.method == "PUT":
                choices.append(corrupt_request)
            fault = self._random.choice(choices)
            self.befallen[exchange.method] += struck
        if struck and (exchange.body or exchange.method not in ("PUT", "POST")):
            return fault(exchange)
        return exchange.forward()


@pytest.mark.s3
@pytest.mark.parametrize("seed", [1, 2])
def test_a_job_on_a_failing_store_ends_as_on_a_good_one(
    seaweed_server: SeaweedServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    for name, value in seaweed_server.env.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("botocore.retries.standard.ExponentialBackoff.delay_amount", lambda *_: 0.01)
    monkeypatch.setattr(counters, "_counts", Counter())
    (tmp_path / "in").mkdir()
    bucket = f"s3://{seaweed_server.new_bucket()}"
    for name, frames in (("a.mp4", 20), ("b.mp4", 9), ("c.mp4", 33)):
        clip = media.make_clip(tmp_path / "in" / name, frames=frames, audio="aac" if frames == 20 else None)
        open_storage(f"{bucket}/raw").put_file(name, clip)
    undisturbed = compress([str(tmp_path / "in")], str(tmp_path / "good"), CONFIG, load_codec=load_fake)

    with faulty_s3(seaweed_server.endpoint) as proxy:
        misfortune = Misfortune(seed)
        proxy.always("ANY", misfortune)
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.endpoint)
        report = compress([f"{bucket}/raw"], f"{bucket}/out", CONFIG, load_codec=load_fake)
        state = status(f"{bucket}/out", older_than=0)
        removed = collect(f"{bucket}/out", older_than=0)
    monkeypatch.setenv("AWS_ENDPOINT_URL", seaweed_server.endpoint)

    assert misfortune.befallen["PUT"] >= 3
    assert counters.total("s3_retries") >= 10
    assert (
        [video.status for video in report.videos]
        == [video.status for video in undisturbed.videos]
        == ["ok"] * 3
    )
    out = open_storage(f"{bucket}/out")
    for name in ("a.mp4", "b.mp4", "c.mp4"):
        made = out.read(f"{name}.s2vc")
        ArchiveReader(made).verify()
        assert made == (tmp_path / "good" / f"{name}.s2vc").read_bytes()
    rows = Counter((row["source_name"], row["gop_index"]) for row in read_manifest(out).to_pylist())
    assert rows == Counter(
        {(n, i): 1 for n, count in (("a.mp4", 3), ("b.mp4", 2), ("c.mp4", 5)) for i in range(count)}
    )
    assert (state.counts["done"], state.clean) == (3, True)
    assert removed.objects == state.counts["orphaned"] + state.counts["dangling"]
    assert sorted(found.key for found in out.list() if not found.key.startswith("manifest/")) == [
        "a.mp4.framemd5",
        "a.mp4.s2vc",
        "b.mp4.framemd5",
        "b.mp4.s2vc",
        "c.mp4.framemd5",
        "c.mp4.s2vc",
        "manifest-sha256.txt",
    ]
