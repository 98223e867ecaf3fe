"""Conformance is worked out from figures, not believed: whatever a row claims of itself."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from s2vc_ray.audit import AuditOptions, AuditReport, audit
from s2vc_ray.cli import main
from s2vc_ray.errors import ConfigError
from s2vc_ray.manifest import write_part
from s2vc_ray.policy import Policy, policy_digest
from s2vc_ray.policy_file import parse_policy
from s2vc_ray.report import html_report
from s2vc_ray.report.stills import StillOptions
from s2vc_ray.storage import Storage, open_storage
from tests.audited import row, video
from tests.fakes import load_fake

TEXT = """
floor = "psnr=25"
max_bpp = 0.4
exclude = ["masters/**"]
[[rule]]
name = "smeared"
when = { tile_worst = 0.4, text_density = 0.2 }
floor = "psnr=26"
[[rule]]
name = "faces"
when = { faces = 1 }
codec = "av1"
[[rule]]
name = "text"
when = { text_density = 0.1 }
floor = "psnr=28"
"""
POLICY = parse_policy(TEXT)
MADE = {
    "config": json.dumps({"policy": POLICY.text}),
    "policy_sha256": POLICY.sha256,
    "faces": 0,
    "text_density": 0.0,
}


@pytest.fixture
def storage(tmp_path: Path) -> Storage:
    return open_storage(str(tmp_path / "out"))


def asked(storage: Storage, policy: Policy | None = None, **options: Any) -> AuditReport:
    return audit(storage, AuditOptions(policy=policy, **options))


LACKS: list[tuple[dict[str, Any], str | None]] = [
    ({}, None),
    ({"psnr_worst": 25.0}, None),
    ({"psnr_worst": 24.99, "target_met": True}, "misses its floor"),
    ({"psnr_worst": None}, "has no such figure"),
    ({"psnr_worst": float("nan")}, "has no such figure"),
    ({"payload_bytes": 1251}, "takes more bits than allowed"),
    ({"payload_bytes": 1250}, None),
    ({"faces": None}, None),
    ({"faces": 1}, "another rule applies"),
    ({"faces": 1, "policy_rule": "faces"}, "is not AV1"),
    ({"faces": 1, "policy_rule": "faces", "codec": "av1"}, None),
    ({"faces": 1, "policy_rule": "faces", "codec": "av1", "psnr_worst": 24.0}, "misses its floor"),
    ({"policy_rule": "faces", "codec": "av1"}, "another rule applies"),
    ({"text_density": 0.1}, "another rule applies"),
    ({"text_density": 0.1, "policy_rule": "text"}, None),
    ({"text_density": 0.1, "policy_rule": "text", "psnr_worst": 27.9}, "misses its floor"),
    ({"text_density": 0.1, "faces": 2, "policy_rule": "text"}, "another rule applies"),
    # Its tiles were smeared before it was coded better, which cannot be seen any more; that it has text can.
    ({"text_density": 0.2, "faces": 2, "policy_rule": "smeared"}, None),
    ({"text_density": 0.2, "policy_rule": "smeared", "psnr_worst": 25.5}, "misses its floor"),
    ({"text_density": 0.1, "policy_rule": "smeared"}, "another rule applies"),
    ({"policy_rule": "never heard of"}, "another rule applies"),
]


def test_what_gops_lack(storage: Storage) -> None:
    video(storage, "a.mp4", [{**MADE, **gop} for gop, _ in LACKS])
    report = asked(storage, POLICY, limit=0)
    (told,) = report.policies
    wrong = [(at, lacks) for at, (_, lacks) in enumerate(LACKS) if lacks]
    assert [(row["gop_index"], row["verdict"]) for row in told["misses"]] == wrong
    assert told["text"] == POLICY.text
    assert (told["gops"], told["conforming"], told["unknown"]) == (len(LACKS), len(LACKS) - len(wrong), 0)
    (held,) = report.requirements
    assert held.examples == tuple(f"a.mp4 GOP {at}: {lacks}" for at, lacks in wrong)
    assert not report.passed


def test_a_policy_that_forbids_to_fall_back(storage: Storage) -> None:
    policy = Policy(POLICY.floor, "none", POLICY.rules)
    made = {"config": json.dumps({"policy": policy.text}), "policy_sha256": policy.sha256, "faces": 1}
    av1 = {**made, "codec": "av1"}
    video(storage, "a.mp4", [{**av1, "policy_rule": "faces"}, {**av1, "faces": 0}])
    (told,) = asked(storage).policies
    assert [(row["gop_index"], row["verdict"]) for row in told["misses"]] == [(1, "fell back")]


def test_how_often_each_rule_applied(storage: Storage) -> None:
    faces = {**MADE, "faces": 1, "policy_rule": "faces", "codec": "av1", "payload_bytes": 500}
    video(
        storage,
        "a.mp4",
        [MADE, faces, faces, {**MADE, "psnr_worst": 3.0}, {**MADE, "metric_frames": 0}, MADE],
    )
    (told,) = asked(storage).policies
    assert [
        (row["rule"], row["gops"], row["av1"], row["conforming"], row["unknown"]) for row in told["rules"]
    ] == [
        ("", 4, 0, 2, 1),
        ("faces", 2, 2, 2, 0),
    ]
    assert told["rules"][1]["payload_bytes"] == 1000
    assert (told["conforming"], told["unknown"], len(told["misses"])) == (4, 1, 1)
    # What was not measured is not shown to conform.
    (held,) = asked(storage, POLICY).requirements
    assert (held.checked, held.failed) == (6, 2)


def test_other_policies_and_none(storage: Storage) -> None:
    other = parse_policy('floor = "psnr=20"')
    video(storage, "a.mp4", [MADE])
    video(storage, "b.mp4", [{"config": json.dumps({"policy": other.text}), "policy_sha256": other.sha256}])
    video(storage, "c.mp4")
    video(storage, "d.mp4", status="failed")
    report = asked(storage, POLICY)
    assert {told["sha256"] for told in report.policies} == {POLICY.sha256, other.sha256}
    assert [told["conforming"] for told in report.policies] == [1, 1]
    (held,) = report.requirements
    assert (held.checked, held.failed) == (3, 2)
    assert held.examples == ("b.mp4 GOP 0: another policy", "c.mp4 GOP 0: no policy")
    # --where leaves out what it leaves out.
    assert asked(storage, POLICY, where="source_name = 'a.mp4'").passed
    assert not asked(storage, POLICY, where="status = 'failed'").passed


def test_an_archive_of_an_excluded_source_is_told(storage: Storage) -> None:
    video(storage, "masters/a.mp4", [MADE])
    video(storage, "a.mp4", [MADE])
    (held,) = asked(storage, POLICY).requirements
    assert (held.checked, held.failed) == (3, 1)
    assert held.examples == ("masters/a.mp4: has an archive, and masters/** excludes it",)


def test_a_copied_gop_keeps_its_policy(storage: Storage) -> None:
    """A later version describes it with that job's options, which name another policy, or none."""
    video(storage, "a.mp4", [MADE, MADE])
    copied = {**MADE, "config": "{}", "archive_version": 2, "archive_sha256": "c" * 64, "replaces": "a" * 64}
    video(storage, "a.mp4", [copied, {**copied, "policy_sha256": None}], day=2)
    (told,) = asked(storage).policies
    assert (told["gops"], told["text"]) == (1, POLICY.text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        '{"floor":1}',
        POLICY.text + " ",
        POLICY.text.replace("faces", "x' OR '1"),
        "[" * 100_000,
    ],
)
def test_a_text_that_nobody_can_read(storage: Storage, text: str) -> None:
    forged = {"config": json.dumps({"policy": text}), "policy_sha256": policy_digest(text)}
    video(storage, "a.mp4", [forged])
    video(storage, "b.mp4", [{**MADE, "policy_sha256": "'; DROP TABLE words; --"}])
    report = asked(storage)
    assert [told["text"] for told in report.policies] == [None, None]
    with pytest.raises(ConfigError):
        Policy.from_text(text)


def test_a_text_is_read_back() -> None:
    assert Policy.from_text(POLICY.text) == Policy(POLICY.floor, POLICY.fallback, POLICY.rules)


def page(storage: Storage) -> str:
    html, _ = html_report(storage, AuditOptions(), StillOptions(count=0, model="fake"), load_codec=load_fake)
    return html.decode()


def test_the_page_shows_it(storage: Storage) -> None:
    video(storage, "plain.mp4", [{"tile_worst": 0.5, "face_worst": 0.25}])
    html = page(storage)
    assert 'id="policy"' not in html
    assert "#policy" not in html
    assert '<td class="n">0.2500</td>' in html
    name = "<script>alert(1)</script>.mp4"
    video(storage, name, [{**MADE, "psnr_worst": float("nan")}, {**MADE, "policy_rule": "<b>"}, MADE])
    told = row("x.mp4", status="failed")
    write_part(storage, [replace(told, status="excluded", error_class=None, error="excluded by <i>")])
    html = page(storage)
    section = html[html.index('<section id="policy"') : html.index('<section id="problems"')]
    assert "1 of 3 GOPs conform" in section
    assert "has no such figure" in section
    assert "another rule applies" in section
    assert "1. smeared: where 0.2 or more of a source frame looks like text" in section
    assert "&lt;script&gt;alert(1)" in section
    assert "excluded by &lt;i&gt;" in section
    assert not {"<script", "<b>", "<i>"} & set(re.findall(r"<[a-z]+>?", section))
    assert "1 excluded" in html


def audited(*arguments: object) -> int:
    with pytest.raises(SystemExit) as ended:
        main(["audit", *map(str, arguments)])
    return int(ended.value.code or 0)


def test_the_command(storage: Storage, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    video(storage, "a.mp4", [MADE, {**MADE, "psnr_worst": 3.0}, {**MADE, "metric_frames": 0}])
    file = tmp_path / "policy.toml"
    file.write_text(TEXT)
    out = tmp_path / "out"
    assert audited(out) == 0
    told = capsys.readouterr().out
    assert f"policy {POLICY.sha256[:12]}: 3 GOPs, 1 conform, 1 do not, not measured: 1" in told
    assert "(the floor alone)" in told
    assert "misses its floor" in told
    for style in ("table", "csv", "json"):
        assert audited(out, "--policy", file, "--format", style) == 1
        told = capsys.readouterr()
        assert f"require policy {POLICY.sha256[:12]}: not met by 2 of 3" in told.err
        assert "a.mp4 GOP 1: misses its floor" in told.err
    assert json.loads(told.out)["policies"][0]["conforming"] == 1
    assert audited(out, "--policy", file, "--where", "gop_index = 0") == 0
    assert audited(out, "--policy", tmp_path / "none.toml") == 2
