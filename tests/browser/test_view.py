"""The player page in a browser: both sides are always of one frame, and every frame can be had."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from s2vc_ray.compress import compress
from s2vc_ray.config import JobConfig, MetricPolicy
from s2vc_ray.view import ViewOptions, open_view
from tests import media
from tests.browser.conftest import Browser
from tests.fakes import load_fake

FRAMES = 40
FIRST = 5
"""The first frame shown."""


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every frame of it is of one grey, six levels brighter than the one before."""
    folder = tmp_path_factory.mktemp("view")
    greys = np.empty((FRAMES, 48, 65, 3), np.uint8)
    greys[:] = (10 + 6 * np.arange(FRAMES))[:, None, None, None]
    (folder / "in").mkdir()
    media.make_clip(
        folder / "in" / "<b>grey.mp4",
        size=(65, 48),
        frames=FRAMES,
        rgb=greys,
        pix_fmt="yuv444p",
        options={"crf": "4"},
    )
    metrics = MetricPolicy.parse("none")
    config = JobConfig(
        model="fake", executor="local", gop=8, scene_cuts=False, metrics=metrics, allow_larger=True
    )
    assert compress([str(folder / "in")], str(folder / "out"), config, load_codec=load_fake).clean
    return folder / "out" / "<b>grey.mp4.s2vc"


@pytest.fixture(scope="module")
def url(archive: Path) -> Iterator[str]:
    options = ViewOptions(
        start=Fraction(FIRST, media.RATE), duration=Fraction(30, media.RATE), metrics=("psnr",), model="fake"
    )
    with open_view(str(archive), options, load_codec=load_fake) as server:
        yield server.url


@pytest.fixture
def opened(browser: Browser, url: str) -> Browser:
    browser.open(url)
    return browser


GREYS = """
    const pixel = document.createElement("canvas"), context = pixel.getContext("2d", { willReadFrequently: true });
    return ["source", "decoded"].map((id) => {
        const canvas = document.getElementById(id);
        context.drawImage(canvas, -canvas.width / 2, -canvas.height / 2);
        return [+canvas.dataset.frame, context.getImageData(0, 0, 1, 1).data[1]];
    });
"""
"""What each side says its frame is, and the level of the pixel in its middle."""


def at(browser: Browser, frame: int) -> None:
    """Wait until a frame is shown; both sides must be of it, by what they say and by their pixels."""
    browser.until("return +document.getElementById('decoded').dataset.frame === arguments[0]", frame)
    for said, grey in browser.run(GREYS):
        assert said == frame
        assert abs(grey - (10 + 6 * frame)) <= 2


def test_it_begins_where_it_was_asked_to(opened: Browser, url: str) -> None:
    at(opened, FIRST)
    assert opened.find("#where").text == "Frame 5 · 0:00.2 · GOP 0 · q 56"
    assert opened.complaints() == []
    assert set(opened.requests()) == {url, f"{url}clip.mp4"}
    assert opened.find("h1").text == "<b>grey.mp4"
    assert f"Frames {FIRST} to {FIRST + 29}, 30 of {FRAMES} frames" in opened.find("header").text
    assert (
        opened.run("return [...document.querySelectorAll('canvas')].map(e => [e.width, e.height])")
        == [[65, 48]] * 2
    )


def test_every_frame_is_reached_by_steps(opened: Browser) -> None:
    from selenium.webdriver import ActionChains, Keys

    for frame in range(FIRST + 1, FIRST + 4):
        opened.find("#forth").click()
        at(opened, frame)
    opened.find("#back").click()
    at(opened, FIRST + 2)
    opened.run("document.getElementById('strip').focus()")
    for key, frame in ((Keys.END, FIRST + 29), (Keys.ARROW_LEFT, FIRST + 28), (Keys.HOME, FIRST)):
        ActionChains(opened.driver).send_keys(key).perform()
        at(opened, frame)
    assert opened.find("#strip").get_attribute("aria-valuenow") == str(FIRST)
    assert opened.complaints() == []


def test_both_sides_stay_in_step_while_they_play(opened: Browser) -> None:
    opened.find("#speed option[value='0.25']").click()
    opened.find("#play").click()
    seen = set()
    for _ in range(25):
        (source, grey), (decoded, other) = opened.run(GREYS)
        assert source == decoded
        assert abs(grey - other) <= 2
        assert abs(grey - (10 + 6 * source)) <= 2
        seen.add(source)
    opened.until("return +document.getElementById('decoded').dataset.frame > arguments[0]", min(seen) + 2)
    opened.find("#play").click()
    assert opened.find("#play").text == "Play"
    shown = opened.run(GREYS)[0][0]
    assert shown >= FIRST + 2


def test_the_strip_leads_to_the_frame_below_the_pointer(opened: Browser) -> None:
    from selenium.webdriver import ActionChains

    strip = opened.find("#strip svg")
    left, right = 56, strip.size["width"] - 10
    for frame in (20, 3):
        across = left + (right - left) * (frame + 0.5) / 30 - strip.size["width"] / 2
        ActionChains(opened.driver).move_to_element_with_offset(strip, round(across), 0).click().perform()
        at(opened, FIRST + frame)
    told = opened.find("#score").text
    assert told.startswith("PSNR ")
    assert float(told.split()[1]) > 40
    opened.find("#worst").click()
    worst = opened.run(
        "const d = JSON.parse(document.getElementById('data').textContent), v = d.metrics[0].values;"
        "return d.frames[v.indexOf(Math.min(...v))]"
    )
    at(opened, worst)


def test_slider_and_phone(opened: Browser) -> None:
    opened.find("input[value=slider]").click()
    wipe = opened.find(".wipe")
    assert wipe.is_displayed()
    opened.emulate(phone=True)
    opened.until("return document.documentElement.clientWidth === 360")
    assert opened.overflow() == 0
    opened.find("input[value=side]").click()
    assert opened.overflow() == 0
    assert opened.complaints() == []


def test_without_the_source_decoded_pictures_are_shown_alone(
    browser: Browser, archive: Path, tmp_path: Path
) -> None:
    alone = tmp_path / "alone.s2vc"
    alone.write_bytes(archive.read_bytes())
    with open_view(str(alone), ViewOptions(model="fake"), load_codec=load_fake) as server:
        browser.open(server.url)
        assert (
            "Without the source: no manifest lies beside or above the archive" in browser.find("header").text
        )
        assert browser.complaints() == []
        assert browser.run("return document.querySelectorAll('canvas').length") == 1
        browser.find("#forth").click()
        browser.until("return document.getElementById('decoded').dataset.frame === '1'")
        assert not browser.find("#metric").is_enabled()
