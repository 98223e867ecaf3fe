"""What a policy says of some sources only, from file to audit: the first ``where`` that matches a name decides."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from s2vc_ray import compress as compress_module
from s2vc_ray.archive import ArchiveReader
from s2vc_ray.audit import AuditOptions, audit
from s2vc_ray.cli import main
from s2vc_ray.cli_policy import to_measure
from s2vc_ray.compress import compress, make_executor
from s2vc_ray.config import JobConfig, MetricPolicy
from s2vc_ray.errors import ConfigError
from s2vc_ray.manifest import read_manifest
from s2vc_ray.policy import Policy
from s2vc_ray.policy_file import in_words, parse_policy
from s2vc_ray.reencode import reencode
from s2vc_ray.storage import open_storage
from s2vc_ray.targets import Floor
from tests import media
from tests.audited import video
from tests.fakes import load_fake
from tests.s2vc_ray.test_policy_job import config as policy_config

TOP = """
floor = "psnr=12"
max_bpp = 20
exclude = ["masters/**"]
[[rule]]
name = "text"
when = { text_density = 0.5 }
floor = "psnr=20"
[[rule]]
name = "smeared"
when = { tile_worst = -0.9 }
floor = "psnr=13"
"""
TEXT = (
    TOP
    + """
[[where]]
name = "interviews"
sources = ["interviews/**", "**/*_int.mp4"]
floor = "psnr=15"
fallback = "none"
rule = []
[[where]]
name = "stills"
sources = ["interviews/**", "stills/**"]
codec = "av1"
[[where]]
sources = ["gate/*"]
floor = "ms_ssim:mean=0.1"
max_bpp = 24.0
[[where.rule]]
name = "any text"
when.text_density = 0.01
floor = "ms_ssim:mean=0.2"
"""
)
POLICY = parse_policy(TEXT)
NAMES = {
    "interviews/a.mp4": "interviews",
    "gate/b_int.mp4": "interviews",
    "stills/a.mp4": "stills",
    "gate/a.mp4": "where 3",
    "gate/x/a.mp4": "",
    "a.mp4": "",
}
NEVER = 'floor = "psnr=30"\nexclude = ["x/**"]\n'


def test_the_first_that_matches_decides() -> None:
    assert {name: POLICY.of(name).name for name in NAMES} == NAMES
    assert {POLICY.of(name).exclude for name in NAMES} == {("masters/**",)}
    assert {POLICY.of(name).where for name in NAMES} == {()}


def test_what_a_table_does_not_say_is_the_files() -> None:
    interviews, stills, gate = POLICY.where
    assert (interviews.floor, interviews.fallback) == (Floor("psnr", 15, max_bpp=20), "none")
    assert (interviews.rules, interviews.codec) == ((), "")
    assert (stills.floor, stills.fallback, stills.codec) == (POLICY.floor, "av1", "av1")
    # A rule about what S2VC makes of a GOP has no say where it makes none.
    assert [rule.name for rule in stills.rules] == ["text"]
    assert gate.floor == Floor("ms_ssim", 0.1, "mean", max_bpp=24)
    assert [rule.name for rule in gate.rules] == ["any text"]
    assert POLICY.metrics == {"psnr", "ms_ssim"}
    assert to_measure(["dists"], POLICY.floor, POLICY) == ("dists", "ms_ssim", "psnr")
    assert to_measure(None, Floor("dists", 0.1), None) == ("psnr", "ms_ssim", "lpips_alex", "dists")
    assert to_measure(None, None, None) == ("psnr", "ms_ssim", "lpips_alex")


def test_a_source_of_which_no_table_speaks_has_the_digest_it_had() -> None:
    plain = parse_policy(TOP)
    assert POLICY.of("a.mp4").text == plain.text
    assert "codec" not in json.loads(plain.text)
    # The digests of files without tables are for ever: archives have them.
    assert plain.sha256[:12] == "dd2bb7af9d02"
    asked = config(POLICY).of("a.mp4")
    assert asked == config(plain)
    assert asked.config_hash("ab" * 32) == config(plain).config_hash("ab" * 32)


def test_each_has_its_own_digest_and_text() -> None:
    for name in NAMES:
        own = POLICY.of(name)
        again = Policy.from_text(own.text)
        assert (again.floor, again.rules, again.codec) == (own.floor, own.rules, own.codec)
        assert again.sha256 == own.sha256
    assert len({POLICY.of(name).sha256 for name in NAMES}) == 4
    # What a table is called, and which sources it names, decides nothing of a GOP's bytes.
    renamed = parse_policy(TEXT.replace('"stills"', '"other"').replace("stills/**", "**/*.png.mov"))
    assert renamed.of("interviews/a.mp4").sha256 == POLICY.of("interviews/a.mp4").sha256
    # A whole job's hash tells the files apart.
    assert config(renamed).config_hash("ab" * 32) != config(POLICY).config_hash("ab" * 32)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("where = 1", "where must be a list"),
        ("where = [1]", "where 1 must be a table"),
        ("[[where]]\nfloor = 'psnr=31'", "where 'where 1' has no sources"),
        ("[[where]]\nsources = []", "where 'where 1' has no sources"),
        ("[[where]]\nsources = ['']", "where 'where 1': sources '': give patterns"),
        ("[[where]]\nsources = ['/in/**']", "relative"),
        ("[[where]]\nsources = [1]", "where 'where 1': sources must be a list of texts"),
        ("[[where]]\nsources = 'a/**'", "where 1: sources must be a list"),
        ("[[where]]\nsource = ['a/**']", "where 1 has no key 'source': there are name, sources, floor"),
        ("[[where]]\nsources = ['a/**']\nexclude = ['b']", "where 1 has no key 'exclude'"),
        ("[[where]]\nsources = ['a/**']\n[[where.where]]\nsources = ['a']", "where 1 has no key 'where'"),
        ("[[where]]\nname = 'a;b'\nsources = ['a/**']", "where name 'a;b'"),
        (
            "[[where]]\nname = 'a'\nsources = ['a/**']\n[[where]]\nname = 'a'\nsources = ['b']",
            "where name 'a': give each another",
        ),
        ("[[where]]\nsources = ['a/**']\nfloor = 'psnr'", "where 'where 1': target 'psnr' is not understood"),
        ("[[where]]\nsources = ['a/**']\nfallback = 'x'", "where 'where 1': fallback is 'x'"),
        ("[[where]]\nsources = ['a/**']\ncodec = 's2vc'", "codec 's2vc': the one to be given is 'av1'"),
        ("[[where]]\nsources = ['a/**']\nmax_bpp = 0", "max_bpp is 0"),
        ("[[where]]\nsources = ['a/**']\n[[where.rule]]\nwhen.cats = 1", "where 'where 1': rule 'rule 1'"),
        (
            "[[where]]\nsources = ['a/**']\ncodec = 'av1'\n[[where.rule]]\nwhen.tile_worst = 0\nfloor = 'psnr=40'",
            "rule 'rule 1' is about GOPs as S2VC codes them",
        ),
        (
            "[[rule]]\nwhen.faces = 1\nfloor = 'psnr=35'\n[[where]]\nsources = ['a/**']\nfloor = 'psnr=36'",
            "laxer than the policy's, psnr:worst=36.0: rules can only ask for more; it has the rules of the whole file",
        ),
        ("[[where]]\nsources = ['x/y.mov', 'x/**']", "matches x/**, which comes before it"),
        (
            "[[where]]\nsources = ['**']\n[[where]]\nsources = ['a/**']",
            "where 'where 2' can hold for no source: what it names matches **",
        ),
        (
            "[[where]]\nsources = ['a/**', 'b.mov']\n[[where]]\nsources = ['a/b/*', 'b.mov']",
            "where 'where 2' can hold for no source: what it names matches a/** or b.mov",
        ),
    ],
)
def test_what_is_none(text: str, says: str) -> None:
    with pytest.raises(ConfigError) as error:
        parse_policy(NEVER + text)
    assert says in str(error.value)


def test_a_table_that_some_source_can_reach_may_stand() -> None:
    parse_policy(NEVER + "[[where]]\nsources = ['a/**']\n[[where]]\nsources = ['a/b/**', 'b/**']")
    parse_policy(NEVER + "[[where]]\nsources = ['*/b.mov']\n[[where]]\nsources = ['a/*']")


def test_in_words() -> None:
    lines = list(in_words(POLICY))
    assert lines[0] == "The first where that matches a source's name decides what all its GOPs are held to."
    at = [lines.index(line) for line in lines if not line.startswith("  ")]
    assert [lines[number] for number in at[1:]] == [
        "where interviews, names that match interviews/** or **/*_int.mp4:",
        "where stills, names that match interviews/** or stills/**:",
        "where where 3, names that match gate/*:",
        "all other sources:",
        "Sources whose name matches masters/** are not coded.",
    ]
    stills = lines[at[2] + 1 : at[3]]
    assert stills[0] == "  Every GOP is stored as AV1, never as S2VC."
    assert stills[-1] == f"  Policy SHA-256: {POLICY.where[1].sha256}"
    assert not any("misses" in line for line in stills)
    assert f"  Policy SHA-256: {POLICY.of('a.mp4').sha256}" in lines


def test_what_cannot_be_held_is_told_at_once() -> None:
    with pytest.raises(ConfigError, match=r"a floor of ms_ssim, which is not measured"):
        replace(config(POLICY), metrics=MetricPolicy.parse("sample:1", ("psnr",)))
    faces = parse_policy(TOP + '[[where]]\nsources = ["a"]\n[[where.rule]]\nwhen.faces = 1\ncodec = "av1"')
    assert faces.needs_faces
    with pytest.raises(ConfigError, match="about faces"):
        config(faces)


def config(policy: Policy, /, **changes: Any) -> JobConfig:
    measured = MetricPolicy.parse("sample:1", ("psnr", "ms_ssim"))
    return policy_config(policy, **{"gop": 4, "batch": 8, "metrics": measured, **changes})


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("in")
    for seed, name in enumerate((*NAMES, "masters/a.mp4")):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        media.make_clip(root / name, frames=5, seed=seed)
    return root


@pytest.fixture(scope="module")
def job(sources: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("job")
    report = compress([str(sources)], str(out), config(POLICY), load_codec=load_fake)
    assert [video.name for video in report.videos if video.status != "ok"] == ["masters/a.mp4"]
    return out


def rows(folder: Path) -> list[dict[str, Any]]:
    return list(read_manifest(str(folder)).to_pylist())


def test_each_source_is_held_to_its_own(job: Path) -> None:
    for row in rows(job):
        if row["source_name"] == "masters/a.mp4":
            assert row["status"] == "excluded"
            continue
        own = POLICY.of(row["source_name"])
        asked = config(POLICY).of(row["source_name"])
        assert own.name == NAMES[row["source_name"]]
        assert row["policy_sha256"] == own.sha256
        assert row["config_hash"] == asked.config_hash("fa" * 32)
        assert row["target"] == asked.target_text
        told = json.loads(row["config"])
        assert (told["policy"], told.get("policy_where", "")) == (own.text, own.name)
        rule = next((rule for rule in own.rules if rule.name == row["policy_rule"]), None)
        assert row["target_value"] == (rule.floor if rule and rule.floor else own.floor).value
        if own.codec:
            assert row["codec"] == "av1"
        if own.name == "interviews":
            assert (row["codec"], row["policy_rule"]) == ("s2vc", None)
    for name in NAMES:
        header = ArchiveReader((job / f"{name}.s2vc").read_bytes()).header
        assert (header.policy, header.target) == (POLICY.of(name).text, config(POLICY).of(name).target_text)


def test_neighbours_in_a_batch_change_nothing(sources: Path, job: Path, tmp_path: Path) -> None:
    compress([str(sources)], str(tmp_path), config(POLICY, batch=1), load_codec=load_fake)
    found = [
        {(row["source_name"], row["gop_index"]): row["payload_sha256"] for row in rows(folder)}
        for folder in (job, tmp_path)
    ]
    assert found[0] == found[1]


def test_another_table_leaves_other_archives_alone(sources: Path, tmp_path: Path) -> None:
    compress([str(sources)], str(tmp_path), config(POLICY), load_codec=load_fake)
    changed = parse_policy(TEXT.replace('floor = "psnr=15"', 'floor = "psnr=15.5"'))
    report = compress([str(sources)], str(tmp_path), config(changed), load_codec=load_fake)
    ended = {video.name: video.status for video in report.videos}
    assert ended == {
        name: "failed" if where == "interviews" else "skipped" for name, where in NAMES.items()
    } | {"masters/a.mp4": "excluded"}
    (refused,) = {video.error_class for video in report.videos if video.status == "failed"}
    assert refused == "ObjectExists"


def test_coded_again_under_its_own(sources: Path, tmp_path: Path) -> None:
    plain = config(POLICY, policy=None, target=None, quality=20)
    assert compress([str(sources)], str(tmp_path), plain, load_codec=load_fake).clean
    assert reencode(str(tmp_path), "gop_index = 0", config(POLICY), load_codec=load_fake).totals.ok == len(
        NAMES
    )
    for row in rows(tmp_path):
        if row["archive_version"] == 2 and row["gop_index"] == 0:
            assert row["policy_sha256"] == POLICY.of(row["source_name"]).sha256


def audited(folder: Path, policy: Policy) -> tuple[int, tuple[str, ...]]:
    (held,) = audit(str(folder), AuditOptions(policy=policy, limit=0)).requirements
    return held.checked, held.examples


def test_the_audit_judges_by_what_held_for_the_source(job: Path) -> None:
    assert audited(job, POLICY) == (2 * len(NAMES), ())
    told = audit(str(job), AuditOptions()).policies
    assert {one["sha256"]: one["conforming"] for one in told} == {
        POLICY.of("interviews/a.mp4").sha256: 4,
        POLICY.of("stills/a.mp4").sha256: 2,
        POLICY.of("gate/a.mp4").sha256: 2,
        POLICY.of("a.mp4").sha256: 4,
    }
    # With the tables in another order, interviews belong to another.
    interviews, stills, gate = POLICY.where
    turned = replace(POLICY, where=(stills, interviews, gate))
    assert audited(job, turned)[1] == (
        "interviews/a.mp4 GOP 0: another policy",
        "interviews/a.mp4 GOP 1: another policy",
    )
    assert len(audited(job, parse_policy(TOP))[1]) == 2 * 4


def test_what_gops_lack(tmp_path: Path) -> None:
    storage = open_storage(str(tmp_path))

    def made(name: str, **more: Any) -> None:
        own = POLICY.of(name)
        told = {"config": json.dumps({"policy": own.text}), "policy_sha256": own.sha256, "text_density": 0.0}
        video(storage, name, [{**told, "bpp": 0.1, "ms_ssim_mean": 0.5, "psnr_worst": 14.0, **more}])

    made("a.mp4")
    made("gate/a.mp4", psnr_worst=3.0)
    made("gate/b.mp4", ms_ssim_mean=0.05)
    made("interviews/a.mp4")
    made("interviews/b.mp4", psnr_worst=15.0, codec="av1")
    made("stills/a.mp4")
    made("stills/b.mp4", codec="av1")
    made("x_int.mp4", policy_sha256=POLICY.of("a.mp4").sha256, psnr_worst=40.0)
    assert audited(tmp_path, POLICY) == (
        8,
        (
            "gate/b.mp4 GOP 0: misses its floor",
            "interviews/a.mp4 GOP 0: misses its floor",
            "interviews/b.mp4 GOP 0: fell back",
            "stills/a.mp4 GOP 0: is not AV1",
            "x_int.mp4 GOP 0: another policy",
        ),
    )


def s2vc(*arguments: object) -> int:
    with pytest.raises(SystemExit) as ended:
        main([*map(str, arguments)])
    return int(ended.value.code or 0)


def test_the_commands(
    sources: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(
        compress_module, "make_executor", lambda uri, options, _: make_executor(uri, options, load_fake)
    )
    file = tmp_path / "policy.toml"
    file.write_text(TEXT)
    options = ("--model", "fake", "--executor", "local", "--gop", 4, "--no-scene-cuts", "--allow-larger")
    quick = ("--metrics", "sample:1", "--metric", "psnr", "--policy", file)
    assert s2vc("compress", sources, tmp_path / "out", *options, *quick) == 0
    assert {row["ms_ssim_mean"] is None for row in rows(tmp_path / "out") if row["codec"]} == {False}
    assert s2vc("audit", tmp_path / "out", "--policy", file) == 0
    file.write_text(TEXT.replace('codec = "av1"', 'fallback = "smaller"'))
    assert s2vc("audit", tmp_path / "out", "--policy", file) == 1
    assert "stills/a.mp4 GOP 0: another policy" in capsys.readouterr().err


def test_check_says_what_holds_for_names(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "policy.toml"
    file.write_text(TEXT)
    names = ["gate/b_int.mp4", "a.mp4", "masters/gate/a.mp4"]
    assert s2vc("policy", "check", file, *names) == 0
    assert capsys.readouterr().out.splitlines()[-5:] == [
        f"gate/b_int.mp4: where interviews (policy {POLICY.where[0].sha256[:12]})",
        f"a.mp4: no where matches, so what holds for all others (policy {POLICY.of('a.mp4').sha256[:12]})",
        "masters/gate/a.mp4: not coded, for masters/** excludes it",
        "where stills holds for none of them",
        "where where 3 holds for none of them",
    ]
    assert s2vc("policy", "check", file, *names, "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert told["of"]["gate/b_int.mp4"]["where"] == "interviews"
    assert told["of"]["masters/gate/a.mp4"] == {"excluded": "masters/**", "where": None, "sha256": None}
    assert [own["sha256"] for own in told["where"]] == [own.sha256 for own in POLICY.where]
    for name in ("/in/a.mp4", "s3://bucket/a.mp4"):
        assert s2vc("policy", "check", file, name) == 2
        assert "source_name" in capsys.readouterr().err


def test_the_page_tells_the_truth(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = (Path(__file__).parents[2] / "docs" / "policy.md").read_text(encoding="utf-8")
    blocks = page.split("```")[1::2]
    file = tmp_path / "policy.toml"
    file.write_text("".join(block.removeprefix("toml") for block in blocks if block.startswith("toml")))
    (names,) = (block for block in blocks if "policy.toml interviews/anna.mov gate" in block)
    (answer,) = (block for block in blocks if block.startswith("\n…"))
    assert s2vc("policy", "check", file, *names.split()[5:]) == 0
    assert capsys.readouterr().out.endswith(answer.removeprefix("\n…"))
