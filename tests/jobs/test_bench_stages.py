"""Stages add up, operations are those that are known, and nothing stays behind."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from jobs import bench_stages
from jobs.bench_speed import SpeedOptions, measure_speed
from jobs.bench_stages import STAGES, Stages, gflop, joules, matmul_gflops, stage_seconds
from s2vc_model import codec as codec_module
from s2vc_model.codec import S2vcCodec
from s2vc_model.entropy import StreamReader, StreamWriter
from tests.media import pictures
from tests.s2vc_model.networks import small_codec, tiny_codec

CPU = torch.device("cpu")


def test_stages_are_all_the_time_and_leave_nothing_behind() -> None:
    codec = tiny_codec()
    before = [S2vcCodec._upload, codec_module.encode_frame, codec_module.decode_frame, StreamReader.take]
    coded: list[Any] = []
    begun = time.perf_counter()
    encode = stage_seconds(codec, lambda: coded.extend(codec.encode_gops([pictures(4, 96, 64)], 50)))
    whole = time.perf_counter() - begun
    decode = stage_seconds(codec, lambda: codec.decode_gops(coded))
    assert set(encode) == set(decode) == set(STAGES)
    assert all(encode[stage] > 0 for stage in ("upload", "network", "prior", "entropy"))
    assert all(decode[stage] > 0 for stage in ("network", "prior", "entropy", "download"))
    assert sum(encode.values()) == pytest.approx(whole, rel=0.2)
    after = [S2vcCodec._upload, codec_module.encode_frame, codec_module.decode_frame, StreamReader.take]
    assert before == after


def test_what_is_inside_counts_once(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]

    def passes(seconds: float) -> None:
        now[0] += seconds

    monkeypatch.setattr(bench_stages.time, "perf_counter", lambda: now[0])
    monkeypatch.setattr(StreamWriter, "finish", lambda self: passes(5))

    def outer(*_: Any) -> None:
        passes(2)
        StreamWriter.finish(None)  # type: ignore[arg-type]

    monkeypatch.setattr(codec_module, "encode_frame", outer)
    stages = Stages(CPU)
    with stages.watching():
        for _ in range(3):
            codec_module.encode_frame()  # type: ignore[call-arg]
    assert (stages.seconds["entropy"], stages.seconds["prior"]) == (15, 6)


def test_operations_are_counted() -> None:
    a = torch.randn(64, 64)
    assert gflop(lambda: a @ a) == pytest.approx(2 * 64**3 / 1e9)
    assert matmul_gflops(CPU, 0.05) > 0.1
    assert joules(CPU) is None


def test_a_frame_of_small_takes_what_is_known() -> None:
    """38 and 83 thousand multiplications a pixel, less motion search, which multiplies nothing."""
    options = SpeedOptions(device="cpu", gop=2, rounds=1, batch=1)
    found = measure_speed(options, lambda *_: small_codec(), "synthetic", 96, 64)
    pixels = 96 * 64
    assert found.encode_gflop is not None
    assert found.decode_gflop is not None
    assert found.encode_gflop * 1e9 / 2 / pixels == pytest.approx(36_000, rel=0.1)
    assert found.decode_gflop * 1e9 / 2 / pixels == pytest.approx(83_000, rel=0.1)
    assert found.decode_share is not None
    assert 0 < found.decode_share < 1
    assert found.joules is None
    assert replace(found, peak_gflops=None).encode_share is None


def test_a_trace_is_written(tmp_path: Path) -> None:
    options = SpeedOptions(device="cpu", gop=2, rounds=1, batch=1, trace=tmp_path / "trace.json")
    measure_speed(options, lambda *_: tiny_codec(), "synthetic", 64, 32)
    assert '"traceEvents"' in (tmp_path / "trace.json").read_text()
