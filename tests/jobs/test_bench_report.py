"""What a quality run writes: kept rows, plots, tables that agree."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import pytest
from rich.console import Console

from jobs.bench_clips import Pixels
from jobs.bench_coded import Coded
from jobs.bench_plots import mean_curves, plain_number, rate_ticks, write_plots
from jobs.bench_quality import run_quality
from jobs.bench_report import RowsFile, print_report, write_report
from jobs.bench_rows import OURS, Row
from tests.jobs.tiny import CountingAnchor, fake, options, write_video


def test_a_killed_run_keeps_the_rows_it_measured(tmp_path: Path) -> None:
    """Every row is in the file before the next is measured."""
    path = write_video(tmp_path / "a.mkv")
    counts = []

    class Dying(CountingAnchor):
        def code(self, frames: Pixels, rate: Fraction, point: int, gop: int | None) -> Coded:
            counts.append(len((tmp_path / "out" / "rows.csv").read_text().splitlines()))
            if self.runs:
                raise KeyboardInterrupt
            return super().code(frames, rate, point, gop)

    with RowsFile(tmp_path / "out" / "rows.csv", ["psnr"]) as file, pytest.raises(KeyboardInterrupt):
        run_quality([path], fake(), [Dying()], options(), file.append)
    assert counts == [3, 4]
    kept = list(csv.DictReader((tmp_path / "out" / "rows.csv").open()))
    assert [row["codec"] for row in kept] == [OURS, OURS, "coarse, GOP 3"]


@pytest.mark.parametrize(
    ("low", "high"), [(0.003, 0.08), (0.0031, 0.0049), (0.011, 0.019), (1e-5, 4), (0.5, 0.5)]
)
def test_rate_ticks_are_few_round_and_inside(low: float, high: float) -> None:
    ticks = rate_ticks(low / 1.1, high * 1.1)
    assert 1 <= len(ticks) <= 6
    assert ticks == sorted(set(ticks))
    assert low / 1.1 <= ticks[0] <= ticks[-1] <= high * 1.1
    if high > low:
        assert len(ticks) >= 2


def test_ticks_are_labelled_without_exponents() -> None:
    assert [plain_number(value) for value in (0.00005, 0.003, 0.015, 1.0, 20.0)] == [
        "0.00005",
        "0.003",
        "0.015",
        "1",
        "20",
    ]


def test_plots_have_one_panel_per_metric_and_plain_labels(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from matplotlib.figure import Figure

    drawn: list[Figure] = []
    monkeypatch.setattr(Figure, "savefig", lambda figure, *about, **more: drawn.append(figure))
    metrics = ["psnr", "ms_ssim", "lpips_alex", "vmaf"]
    scores = dict.fromkeys(metrics, 1.0)
    rows = [replace(row("a", q, 0.003 + 0.0005 * q, 0), means=scores) for q in range(4)]
    write_plots(rows, metrics, tmp_path)
    assert [len(figure.axes) for figure in drawn] == [4, 4]
    labels = [label.get_text() for label in drawn[1].axes[0].get_xticklabels(which="both")]
    assert labels == ["0.003", "0.0035", "0.004", "0.0045"]


def row(clip: str, point: int, bpp: float, psnr: float) -> Row:
    return Row(clip, OURS, point, 8, 8, 1, 1, 1, bpp, 1, 1, 1, {"psnr": psnr}, {"psnr": psnr})


def test_mean_curves_leave_out_settings_that_a_clip_lacks() -> None:
    rows = [row("a", 1, 0.1, 30), row("b", 1, 0.3, 20), row("a", 2, 0.2, 40), row("b", 2, 0.6, 30)]
    assert mean_curves([*rows, row("a", 3, 0.9, 50)], "psnr") == {
        OURS: [(pytest.approx(0.2), 25), (pytest.approx(0.4), 35)]
    }


def test_report_files_and_tables_hold_the_same_numbers(tmp_path: Path) -> None:
    chosen = options(metrics=["psnr", "ms_ssim"])
    out = tmp_path / "out"
    with RowsFile(out / "rows.csv", chosen.metrics) as file:
        paths = [write_video(tmp_path / "a b.mkv")]
        result = run_quality(paths, fake(), [CountingAnchor()], chosen, file.append)
    write_report(result, chosen, {"model_id": "fake"}, out)
    table = list(csv.DictReader((out / "rows.csv").open()))
    assert [row["codec"] for row in table] == [row.codec for row in result.rows]
    assert float(table[0]["ms_ssim_worst"]) == result.rows[0].worsts["ms_ssim"]
    document = json.loads((out / "result.json").read_text())
    assert document["rows"][3]["means"]["psnr"] == result.rows[3].means["psnr"]
    assert document["bd_rate"][0]["bd"]["percent"] == result.comparisons[0].bd.percent
    for name in ("rd-a_b.mkv.png", "summary.png"):
        assert (out / name).read_bytes()[:4] == b"\x89PNG"
    console = Console(width=200, record=True, file=io.StringIO())
    print_report(result, chosen.metrics, console)
    text = console.export_text()
    assert f"{result.rows[0].bpp:.4f}" in text
    for title in ("whole archives counted", "payloads alone counted"):
        assert title in text
    assert text.index("whole archives") < text.index("payloads alone")
    bd = result.comparisons[0].bd
    assert bd.note.split(" (")[0] in text if bd.percent is None else f"{bd.percent:+.1f} %" in text
    assert text.count("overlap") >= 2
    assert text.count("mean") >= 3
