"""What is told of the worst place: a small smear shows, means pass over it, and text is known by its look."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image, ImageDraw, ImageFont

from s2vc_ray.compress import compress
from s2vc_ray.config import JobConfig, MetricPolicy
from s2vc_ray.manifest import read_manifest
from s2vc_ray.risk import TEXT_TILE, TILE, assess, look
from tests.fakes import load_fake
from tests.media import make_clip, pictures

Frames = npt.NDArray[np.uint8]


def scene(height: int = 192, width: int = 256) -> Frames:
    """A ramp with noise, whose levels follow a bell curve: a picture without text."""
    rng = np.random.default_rng(1)
    ramp = np.linspace(60, 180, width) + np.linspace(-20, 20, height)[:, None]
    noisy = ramp[..., None] + rng.normal(0, 12, (height, width, 1))
    return np.repeat(noisy, 3, 2).clip(0, 255).astype(np.uint8)[None]


def captioned(frames: Frames, size: int = 22) -> Frames:
    """With two words in white on black in the lower left."""
    drawn = []
    for frame in frames:
        image = Image.fromarray(frame)
        draw = ImageDraw.Draw(image)
        draw.rectangle((0, 128, 128, 192), fill=(0, 0, 0))
        for line, text in enumerate(("Invented", "letters")):
            draw.text((4, 130 + 30 * line), text, fill=(255, 255, 255), font=ImageFont.load_default(size))
        drawn.append(np.asarray(image))
    return np.stack(drawn)


def smeared(frames: Frames, left: int, top: int, side: int) -> Frames:
    out = frames.copy()
    part = out[:, top : top + side, left : left + side]
    part[:] = part.mean((1, 2), keepdims=True).astype(np.uint8)
    return out


def test_equal_frames_are_equal_everywhere() -> None:
    frames = captioned(scene())
    risk = assess(look(frames), frames, frames, [0])
    assert risk is not None
    assert risk.tile_worst == pytest.approx(1, abs=1e-4)
    assert risk.text_worst == pytest.approx(1, abs=1e-4)
    assert (risk.faces, risk.face_worst) == (None, None)


def test_a_small_smear_shows_where_a_mean_hides_it() -> None:
    frames = np.concatenate([scene(384, 512)] * 3)
    decoded = frames.copy()
    decoded[1] = smeared(frames[1:2], 256, 128, 64)[0]
    risk = assess(look(frames), frames, decoded, [3, 11, 19])
    assert risk is not None
    error = np.square(frames.astype(float) - decoded).mean()
    assert 10 * np.log10(255**2 / error) > 40, "the mean looks fine"
    assert risk.tile_worst < 0.4
    # Tiles are of whole windows, so they begin up to a window before.
    assert (risk.tile_worst_frame, risk.tile_worst_x, risk.tile_worst_y) == (11, 252, 124)


def test_similarity_is_that_of_the_definition() -> None:
    before, after = pictures(1, 64, 64)[:1], pictures(1, 64, 64, seed=3)[:1]
    risk = assess(look(before), before, after, [0])
    luma = [frame[0].astype(float) @ (0.299, 0.587, 0.114) for frame in (before, after)]
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    values = []
    for top in range(0, 57, 4):
        for left in range(0, 57, 4):
            a, b = (plane[top : top + 8, left : left + 8] for plane in luma)
            covariance = ((a - a.mean()) * (b - b.mean())).mean()
            values.append(
                (2 * a.mean() * b.mean() + c1)
                * (2 * covariance + c2)
                / ((a.mean() ** 2 + b.mean() ** 2 + c1) * (a.var() + b.var() + c2))
            )
    assert risk is not None
    assert risk.tile_worst == pytest.approx(np.mean(values), abs=0.01)


@pytest.mark.parametrize("size", [18, 22, 28])
def test_captions_look_like_text_and_scenes_do_not(size: int) -> None:
    plain, text = look(scene()).text[0], look(captioned(scene(), size)).text[0]
    assert not plain.any()
    rows = 128 // TEXT_TILE
    assert text[rows:, :4].sum() >= 4
    assert text[:rows].sum() == text[:, 5:].sum() == 0
    stripes = np.zeros((1, 128, 128, 3), np.uint8)
    stripes[:, :, 64:] = 255
    assert not look(stripes).text[0].any(), "one edge is no text"


def test_a_smeared_caption_shows_and_other_smears_do_not_count_as_one() -> None:
    frames = captioned(scene())
    sight = look(frames)
    elsewhere = assess(sight, frames, smeared(frames, 160, 0, 64), [0])
    there = assess(sight, frames, smeared(frames, 0, 128, 64), [0])
    assert elsewhere is not None
    assert there is not None
    assert elsewhere.text_worst == pytest.approx(1, abs=1e-4)
    assert there.text_worst is not None
    assert there.text_worst < 0.2
    assert elsewhere.text_density == there.text_density == sight.text[0].mean() > 0


def test_faces_that_were_found_are_judged_by_themselves() -> None:
    frames = scene()
    sight = look(frames, faces=[[(32, 32, 96, 96), (160, 96, 200, 130)]])
    risk = assess(sight, frames, smeared(frames, 160, 96, 40), [0])
    assert risk is not None
    assert risk.faces == 2
    assert risk.face_worst is not None
    assert risk.face_worst < 0.4
    fine = assess(sight, frames, smeared(frames, 0, 128, 32), [0])
    assert fine is not None
    assert fine.face_worst == pytest.approx(1, abs=1e-4)


@pytest.mark.parametrize(("height", "width"), [(8, 8), (9, 131), (63, 65), (100, 1000), (15, 8)])
def test_any_size(height: int, width: int) -> None:
    rng = np.random.default_rng(2)
    a, b = rng.integers(0, 256, (2, 1, height, width, 3), dtype=np.uint8)
    risk = assess(look(a, faces=[[(0, 0, width, height)]]), a, b, [0])
    assert risk is not None
    assert -1 <= risk.tile_worst < 0.5
    assert 0 <= risk.tile_worst_x <= max(0, width - TILE // 2)
    assert 0 <= risk.tile_worst_y <= max(0, height - TILE // 2)


def test_nothing_measured_or_too_small_is_nothing() -> None:
    none = np.zeros((0, 64, 64, 3), np.uint8)
    assert assess(look(none), none, none, []) is None
    small = np.zeros((1, 7, 64, 3), np.uint8)
    assert assess(look(small), small, small, [0]) is None


def test_a_job_records_it_where_it_measures(tmp_path: Path) -> None:
    clip = make_clip(tmp_path / "a.mp4", frames=10)
    for policy in ("sample:2", "none"):
        metrics = MetricPolicy.parse(policy, ("psnr",))
        config = JobConfig(model="fake", executor="local", gop=8, allow_larger=True, metrics=metrics)
        assert compress([str(clip)], str(tmp_path / policy), config, load_codec=load_fake).clean
    measured, unmeasured = (
        read_manifest(str(tmp_path / policy)).to_pylist() for policy in ("sample:2", "none")
    )
    for row in measured:
        assert -1 <= row["tile_worst"] < 0.9
        assert 0 <= row["tile_worst_frame"] < row["frames_encoded"]
        assert row["text_density"] is not None
        assert row["faces"] is None
    assert {row["tile_worst"] for row in unmeasured} == {row["text_density"] for row in unmeasured} == {None}
