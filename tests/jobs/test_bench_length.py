"""The bench of lengths runs whole jobs, on sources that are as long as they say."""

from __future__ import annotations

from pathlib import Path

import av
import pytest

from jobs.bench_length import PIECE, repeat, run_lengths
from s2vc_ray.errors import ConfigError
from s2vc_ray.probe import probe
from tests.media import make_clip


@pytest.mark.slow
def test_memory_does_not_follow_the_length() -> None:
    """Six times as long; the figures of two hours are in docs/scaling.md."""
    short, longer = run_lengths((PIECE, 6 * PIECE), ".mkv")
    assert (short.frames, longer.frames) == (250, 1500)
    assert longer.gops == 47
    assert 20 < longer.driver_mb < short.driver_mb + 20
    assert 20 < longer.worker_mb < short.worker_mb + 20


def test_repeated_packets_are_one_even_clip(tmp_path: Path) -> None:
    piece = make_clip(tmp_path / "piece.mp4", frames=PIECE * 25, audio="aac", gop=25, b_frames=0)
    repeat(piece, tmp_path / "long.mkv", 3)
    info = probe(tmp_path / "long.mkv")
    assert info.frames == 3 * PIECE * 25
    assert {later - earlier for earlier, later in zip(info.pts, info.pts[1:])} == {40}
    with av.open(str(tmp_path / "long.mkv")) as file:
        times = [packet.pts for packet in file.demux(audio=0) if packet.size]
    assert times == sorted(times)
    assert len(times) > 1300


def test_lengths_are_whole_pieces() -> None:
    with pytest.raises(ConfigError, match="multiples of 10"):
        list(run_lengths((15,), ".mkv"))
