"""VMAF and VMAF-NEG by libvmaf itself, inside the ffmpeg program that ``imageio-ffmpeg`` carries.

Models ``vmaf_v0.6.1`` and ``vmaf_v0.6.1neg`` ("no enhancement gain": sharpening beyond the source earns
nothing, which matters for a codec that invents detail). Both clips go through one conversion to 8-bit 4:2:0
BT.709, of which VMAF reads the luma. The models expect 1080 lines seen from three screen heights; pictures
are scored at the size they have, so compare scores at one size only.
"""

from __future__ import annotations

import json
import tempfile
from functools import partial
from pathlib import Path

import numpy as np

from s2vc_model.metrics.base import DEFAULT_RATE, Frames, Scores, SequenceFunction, as_clip
from s2vc_model.metrics.tools import ToolFailed, run_ffmpeg

MIN_SIDE = 32
"""libvmaf crashes on smaller pictures: its coarsest scale would be empty."""
_TO_YUV = (
    "scale=out_color_matrix=bt709:out_range=tv:flags=bicubic+accurate_rnd+full_chroma_int,format=yuv420p"
)


def _vmaf(model: str, reference: Frames, decoded: Frames, rate: float = DEFAULT_RATE) -> Scores:
    """Score per frame, 0..100, of consecutive frames (T, H, W, 3); ``rate`` plays no part.

    Raises:
        ValueError: a side is shorter than ``MIN_SIDE``.
        ToolMissing, ToolFailed: no ffmpeg program, or it failed.
    """
    clips = as_clip(reference), as_clip(decoded)
    frames, height, width, _ = clips[0].shape
    if min(height, width) < MIN_SIDE:
        raise ValueError(f"VMAF needs pictures of at least {MIN_SIDE} pixels a side, not {width}x{height}")
    with tempfile.TemporaryDirectory(prefix="s2vc-vmaf-") as name:
        folder = Path(name)
        inputs: list[str] = []
        for file, clip in zip(("decoded.rgb", "reference.rgb"), reversed(clips), strict=True):
            clip.contiguous().cpu().numpy().tofile(folder / file)
            inputs += ["-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{width}x{height}", "-i", file]
        graph = (
            f"[0:v]{_TO_YUV}[d];[1:v]{_TO_YUV}[r];"
            f"[d][r]libvmaf=model=version={model}:n_threads=1:log_fmt=json:log_path=scores.json"
        )
        run_ffmpeg([*inputs, "-lavfi", graph, "-f", "null", "-"], "VMAF", folder=folder)
        found = json.loads((folder / "scores.json").read_text())["frames"]
    if len(found) != frames:
        raise ToolFailed(f"VMAF: {frames} frames gave {len(found)} scores")
    return np.array([frame["metrics"]["vmaf"] for frame in found], np.float64)


vmaf: SequenceFunction = partial(_vmaf, "vmaf_v0.6.1")
vmaf_neg: SequenceFunction = partial(_vmaf, "vmaf_v0.6.1neg")
