"""The report in a browser: it says what it should, hides nothing, fetches nothing, and runs nothing of strangers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from jobs.bench_audit import write_copy
from s2vc_ray.audit import AuditOptions
from s2vc_ray.report import html_report
from s2vc_ray.report.stills import StillOptions
from s2vc_ray.storage import Storage, open_storage
from tests.audited import video
from tests.browser.conftest import Browser
from tests.fakes import load_fake
from tests.reports import CLOSING, IMAGE, SCRIPT, archives, hostile

LINKS = "#video-table tbody th button"


def report(storage: Storage, where: str = "", stills: int = 0) -> bytes:
    options = StillOptions(count=stills, model="fake")
    return html_report(storage, AuditOptions(where), options, load_codec=load_fake)[0]


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Four archives and a failure; two with stills from both sides."""
    folder = tmp_path_factory.mktemp("report")
    storage = archives(folder)
    hostile(storage)
    path = folder / "report.html"
    path.write_bytes(report(storage, stills=3))
    return path.as_uri()


@pytest.fixture
def opened(browser: Browser, url: str) -> Browser:
    browser.open(url)
    return browser


def test_it_is_quiet_and_fetches_nothing(opened: Browser, url: str) -> None:
    assert opened.complaints() == []
    assert opened.requests() == [url]


def test_nothing_of_the_manifest_becomes_markup(opened: Browser) -> None:
    assert opened.run("return window.hacked") is None
    assert opened.run("return document.querySelectorAll('img[src=x], td b b, script').length") == 2
    assert {SCRIPT, IMAGE, r"film\u202e4pm.exe.mp4"} < set(opened.texts(LINKS))
    assert any(CLOSING in text for text in opened.texts("#problems td.text"))


def test_filters_by_text_status_and_video(opened: Browser) -> None:
    assert len(opened.texts(LINKS)) == 5
    opened.find("#text").send_keys("B.MP4")
    assert opened.texts(LINKS) == ["b.mp4"]
    assert opened.find("#matching").text == "1 of 5 videos"
    assert opened.texts(".stills h4") == ["b.mp4", "b.mp4"]
    opened.find("#reset").click()
    opened.until("return document.querySelectorAll(arguments[0]).length === 5", LINKS)
    opened.find("#status option:nth-child(4)").click()
    assert opened.texts(LINKS) == [r"film\u202e4pm.exe.mp4"]
    assert opened.texts("#problems tbody th") == [r"film\u202e4pm.exe.mp4"]
    assert opened.texts(".stills h4") == []
    assert opened.find("#no-stills").is_displayed()
    opened.find("#reset").click()
    opened.until("return document.querySelectorAll(arguments[0]).length === 5", LINKS)
    opened.driver.execute_script("document.querySelectorAll(arguments[0])[1].click()", LINKS)
    chosen = opened.texts(LINKS)
    assert len(chosen) == 1
    assert opened.find("#course-name").text == chosen[0]
    assert opened.complaints() == []


def test_tables_are_sorted_by_a_click(opened: Browser) -> None:
    column = opened.run(
        "return [...document.querySelectorAll('#video-table thead th')].findIndex(e => e.innerText === 'bpp')"
    )

    def rates() -> list[str]:
        opened.find("#video-table [data-column=bpp]").click()
        return opened.texts(f"#video-table tbody td:nth-child({column + 1})")

    rising, falling = rates(), rates()
    assert rising == ["0.3200", "0.3200", "0.4800", "0.4800", "–"]
    # What has no rate comes last both times.
    assert falling == ["0.4800", "0.4800", "0.3200", "0.3200", "–"]


def test_points_answer_to_the_pointer_and_to_keys(opened: Browser) -> None:
    from selenium.webdriver import ActionChains, Keys

    points = opened.driver.find_elements("css selector", "#rd .point")
    assert len(points) == 3 + 3 + 2 + 1
    opened.run("document.getElementById('rd').scrollIntoView({block: 'center'})")
    ActionChains(opened.driver).move_to_element(points[-1]).perform()
    assert "bpp" in opened.find("#tip").text
    ActionChains(opened.driver).click(points[-1]).perform()
    assert opened.find("#video").get_property("value") != ""
    opened.find("#reset").click()
    opened.until("return document.getElementById('matching').textContent === ''")
    opened.run("document.querySelector('#rd svg').focus()")
    ActionChains(opened.driver).send_keys(Keys.ARROW_RIGHT).perform()
    assert "PSNR" in opened.find("#tip").text
    ActionChains(opened.driver).send_keys(Keys.ENTER).perform()
    assert opened.find("#video").get_property("value") != ""
    assert opened.complaints() == []


def test_the_course_of_a_video_is_walked_through(opened: Browser) -> None:
    from selenium.webdriver import ActionChains, Keys

    first = opened.find("#course-name").text
    opened.find("#next").click()
    assert opened.find("#course-name").text != first
    opened.find("#previous").click()
    assert opened.find("#course-name").text == first
    opened.find("#text").send_keys("b.mp4")
    assert opened.find("#course-name").text == "b.mp4"
    opened.run("document.querySelector('#timeline svg').focus()")
    ActionChains(opened.driver).send_keys(Keys.ARROW_RIGHT, Keys.ARROW_RIGHT).perform()
    assert opened.find("#tip").text.startswith("GOP 1 at 0:00.3\n0.4800 bpp")
    assert "PSNR 26.00, worst 21.00" in opened.find("#tip").text


def test_the_slider_uncovers_one_side_or_the_other(opened: Browser) -> None:
    from selenium.webdriver import Keys

    both = ".stills .compare:not(.single)"
    wipe = opened.find(f"{both} .wipe")

    def at(key: str) -> np.ndarray:
        wipe.send_keys(key)
        return opened.screenshot(both).astype(int)

    decoded, source = at(Keys.HOME), at(Keys.END)
    height, width, _ = source.shape
    inside = np.s_[: height // 2, 8 : width - 8]
    assert np.abs(decoded[inside] - source[inside]).mean() > 5
    for _ in range(50):
        wipe.send_keys(Keys.ARROW_LEFT)
    half = opened.screenshot(both).astype(int)
    left, right = np.s_[: height // 2, 8 : width // 2 - 8], np.s_[: height // 2, width // 2 + 8 : width - 8]
    assert np.abs(half[left] - source[left]).mean() < 1
    assert np.abs(half[right] - decoded[right]).mean() < 1
    opened.find("input[name=mode][value=side]").click()
    left_of = "return [...document.querySelector(arguments[0]).querySelectorAll('img')].map(e => e.x)"
    source_x, decoded_x = opened.run(left_of, both)
    assert decoded_x > source_x


def test_a_phone_needs_no_scrolling_sideways(opened: Browser) -> None:
    opened.emulate(phone=True)
    opened.until("return document.documentElement.clientWidth === 360")
    assert opened.overflow() == 0
    opened.find("input[name=mode][value=side]").click()
    assert opened.overflow() == 0
    controls = (
        "[...document.querySelectorAll('button, select, input[type=search]')].filter(e => e.offsetParent)"
    )
    heights = opened.run(f"return {controls}.filter(e => !e.closest('table')).map(e => e.clientHeight)")
    assert min(heights) >= 30


def test_it_prints(opened: Browser) -> None:
    printed = opened.pdf()
    assert printed.startswith(b"%PDF")
    assert len(printed) > 20_000


@pytest.mark.parametrize("dark", [False, True])
def test_text_can_be_read_in_light_and_dark(opened: Browser, dark: bool) -> None:
    opened.emulate(dark=dark)
    names = ("bg", "card", "soft", "text", "muted", "accent", "good", "warn", "bad")
    colours = {
        name: opened.run(
            "const e = document.createElement('i'); document.body.append(e); e.style.color = `var(--${arguments[0]})`;"
            "const c = getComputedStyle(e).color; e.remove(); return c",
            name,
        )
        for name in names
    }
    assert (luminance(colours["bg"]) < 0.1) is dark
    for back in ("bg", "card", "soft"):
        for front in ("text", "muted", "accent", "good", "warn", "bad"):
            lights = sorted((luminance(colours[back]), luminance(colours[front])))
            assert (lights[1] + 0.05) / (lights[0] + 0.05) >= 4.5, (back, front)


def luminance(colour: str) -> float:
    """Relative luminance as WCAG 2 defines it."""
    parts = [int(part) / 255 for part in colour[4:-1].split(",")]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return float(np.dot(linear, (0.2126, 0.7152, 0.0722)))


def test_every_control_is_reached_by_the_keyboard(opened: Browser) -> None:
    from selenium.webdriver import ActionChains, Keys

    reached = set()
    for _ in range(80):
        ActionChains(opened.driver).send_keys(Keys.TAB).perform()
        reached.add(
            opened.run(
                "const e = document.activeElement;"
                "return e.id || e.getAttribute('class') || e.parentElement.id"
            )
        )
    assert {
        "text",
        "status",
        "video",
        "reset",
        "rd-metric",
        "rd",
        "course-metric",
        "next",
        "timeline",
        "worst-metric",
        "wipe",
        "scroll",
    } <= reached


def test_no_videos_and_one_are_no_trouble(
    browser: Browser, page: Callable[[bytes], str], tmp_path: Path
) -> None:
    storage = open_storage(str(tmp_path / "out"))
    video(storage, "alone.mp4", psnr_mean=None, psnr_worst=None)
    for where, said, empty in (("", "1", False), ("q > 1000", "0", True)):
        browser.open(page(report(storage, where)))
        assert browser.complaints() == []
        assert browser.texts(".cards dd")[0] == said
        assert ("No video is described here" in browser.find("#summary").text) is empty
        assert "Nothing was measured" in browser.find("#rd").text
        assert browser.texts(LINKS) == ([] if empty else ["alone.mp4"])


def test_ten_thousand_videos_are_a_sample_that_says_so(
    browser: Browser, page: Callable[[bytes], str], tmp_path: Path
) -> None:
    write_copy(tmp_path / "many", 10_000, 4)
    made = report(open_storage(str(tmp_path / "many")))
    assert len(made) < 2_500_000
    browser.open(page(made))
    assert browser.complaints() == []
    assert browser.texts(".cards dd")[0].replace("\u202f", "") == "10000"
    assert "lists 2\u202f000 of 10\u202f000 videos" in browser.find("#videos").text
    assert "holds the course of 200 of 10\u202f000 videos" in browser.find("#course").text
    assert len(browser.texts(LINKS)) == 50
    browser.find("#video-table .more").click()
    assert len(browser.run("return [...document.querySelectorAll(arguments[0])].map(e => 1)", LINKS)) == 250
    browser.emulate(phone=True)
    browser.until("return document.documentElement.clientWidth === 360")
    assert browser.overflow() == 0
