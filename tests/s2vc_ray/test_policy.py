"""Policies say what they mean, once, and refuse what they do not understand."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import pytest

from s2vc_ray.config import JobConfig, MetricPolicy
from s2vc_ray.errors import ConfigError
from s2vc_ray.policy import Policy, Rule, policy_digest
from s2vc_ray.policy_file import in_words, parse_policy, read_policy
from s2vc_ray.targets import Floor

FULL = """
floor = "lpips=0.3"
max_bpp = 0.1
fallback = "smaller"
exclude = ["masters/**", "*.raw.mov"]

[[rule]]
name = "faces"
when = { faces = 2 }
codec = "av1"

[[rule]]
when = { text_density = 0.05, tile_worst = 0.4 }
floor = "lpips=0.1"
"""


def test_a_file_as_a_value() -> None:
    policy = parse_policy(FULL)
    assert policy == Policy(
        Floor("lpips_alex", 0.3, max_bpp=0.1),
        "smaller",
        (
            Rule("faces", (("faces", 2),), codec="av1"),
            Rule("rule 2", (("text_density", 0.05), ("tile_worst", 0.4)), Floor("lpips_alex", 0.1)),
        ),
        ("masters/**", "*.raw.mov"),
    )
    assert [rule.needs_decoding for rule in policy.rules] == [False, True]
    assert policy.needs_faces
    assert not parse_policy('floor = "psnr=30"').needs_faces


def test_the_canonical_text_is_of_what_decides_bytes() -> None:
    policy = parse_policy(FULL)
    rewritten = """
        exclude = []  # decides which videos there are, and no archive's bytes
        max_bpp = 0.10
        floor = "lpips_alex:worst=0.30"
        fallback = "smaller"
        [[rule]]
        codec = "av1"
        when.faces = 2.0
        name = "faces"
        [[rule]]
        name = "rule 2"
        floor = "lpips=1e-1"
        when = { tile_worst = 0.4, text_density = 0.05 }
    """
    assert parse_policy(rewritten).text == policy.text
    assert policy.sha256 == policy_digest(policy.text)
    assert json.loads(policy.text)["rules"][1]["when"] == {"text_density": 0.05, "tile_worst": 0.4}
    for changed in ('"lpips=0.31"', "max_bpp = 0.2", '"none"', "faces = 3", '"lpips=0.09"', '"face"'):
        kind = changed.split(" = ")[0]
        old = {
            '"lpips=0.31"': '"lpips=0.3"',
            '"none"': '"smaller"',
            '"lpips=0.09"': '"lpips=0.1"',
            '"face"': '"faces"',
        }.get(changed, {"max_bpp": "max_bpp = 0.1", "faces": "faces = 2"}.get(kind, ""))
        assert old in FULL
        assert parse_policy(FULL.replace(old, changed, 1)).sha256 != policy.sha256, changed


def test_rules_are_tried_in_order() -> None:
    policy = parse_policy(FULL)
    first, second = policy.rules
    assert policy.rule_for({"faces": 2, "text_density": 0.5}) == (True, first)
    assert policy.rule_for({"faces": 1, "text_density": 0.04}) == (True, None)
    # Whether the second applies is known when the GOP is coded.
    assert policy.rule_for({"faces": 1, "text_density": 0.05}) == (False, None)
    assert policy.rule_for({"faces": None, "text_density": 0.05, "tile_worst": 0.4}) == (True, second)
    assert policy.rule_for({"faces": None, "text_density": 0.05, "tile_worst": 0.41}) == (True, None)
    assert policy.rule_for({"faces": None, "text_density": 0.05, "tile_worst": None}) == (True, None)


def test_what_gops_are_searched_for() -> None:
    policy = parse_policy(FULL)
    for rule, value in ((None, 0.3), (policy.rules[0], 0.3), (policy.rules[1], 0.1)):
        goal = policy.goal(rule, 63)
        assert goal.floor == Floor("lpips_alex", value, max_bpp=0.1)
        assert (goal.max_bpp, goal.top) == (0.1, 63)


@pytest.mark.parametrize(
    ("pattern", "matched", "others"),
    [
        ("masters/**", ["masters/a.mp4", "masters/x/y.mp4"], ["a/masters/b.mp4", "masters", "mastersx/a"]),
        ("*.mp4", ["a.mp4", ".mp4"], ["x/a.mp4", "a.mp4x", "aXmp4"]),
        ("**/*_raw.mov", ["a_raw.mov", "x/y/a_raw.mov"], ["a_raw.mov/b"]),
        ("a?[1].mp4", ["ab[1].mp4"], ["ab1.mp4", "a/[1].mp4"]),
        ("a/**/z.mp4", ["a/z.mp4", "a/b/c/z.mp4"], ["b/a/z.mp4"]),
    ],
)
def test_patterns_of_names(pattern: str, matched: list[str], others: list[str]) -> None:
    policy = Policy(Floor("psnr", 30), exclude=("never", pattern))
    assert [policy.excludes(name) for name in matched] == [pattern] * len(matched)
    assert [policy.excludes(name) for name in others] == [None] * len(others)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("floor = ", "no TOML"),
        ("", "floor is missing"),
        ("floor = 0.3", "floor must be a text"),
        ('floor = "lpips"', "METRIC=VALUE"),
        ('floor = "lpips=3"', "between 0 and 2"),
        ('floor = "beauty=3"', "choose from psnr"),
        ('floor = "psnr=30"\nflor = 1', "no key 'flor': there are floor, max_bpp, fallback, exclude, rule"),
        ('floor = "psnr=30"\nmax_bpp = true', "max_bpp must be a number"),
        ('floor = "psnr=30"\nmax_bpp = nan', "bits per pixel above 0"),
        (f'floor = "psnr=30"\nmax_bpp = 1{"0" * 400}', "max_bpp must be a number"),
        (f'floor = "psnr=30"\nmax_bpp = 1{"0" * 5000}', "no TOML"),
        ('floor = "psnr=30"\nfallback = "x264"', "choose one of av1, smaller, none"),
        ('floor = "psnr=30"\nexclude = "masters/**"', "exclude must be a list"),
        ('floor = "psnr=30"\nexclude = [1]', "exclude must be a list of texts"),
        ('floor = "psnr=30"\nexclude = ["/mnt/masters/**"]', "relative"),
        ('floor = "psnr=30"\nrule = [1]', "rule 1 must be a table"),
        ('floor = "psnr=30"\n[rule]\nname = "x"', "rule must be a list"),
        ('floor = "psnr=30"\n[[rule]]\ncodec = "av1"', "no condition"),
        ('floor = "psnr=30"\n[[rule]]\nwhen.faces = 1', "no consequence"),
        ('floor = "psnr=30"\n[[rule]]\nwhen.faces = 1\nthen = 2', "rule 1 has no key 'then'"),
        (
            'floor = "psnr=30"\n[[rule]]\nwhen.cats = 1\ncodec = "av1"',
            "no condition 'cats': choose from faces",
        ),
        ('floor = "psnr=30"\n[[rule]]\nwhen.faces = "1"\ncodec = "av1"', "when.faces must be a number"),
        ('floor = "psnr=30"\n[[rule]]\nwhen.faces = 0\ncodec = "av1"', "whole number from 1 to 1000"),
        ('floor = "psnr=30"\n[[rule]]\nwhen.faces = 1.5\ncodec = "av1"', "whole number"),
        ('floor = "psnr=30"\n[[rule]]\nwhen.text_density = 1.5\ncodec = "av1"', "from 1e-06 to 1"),
        ('floor = "psnr=30"\n[[rule]]\nwhen.tile_worst = nan\ncodec = "av1"', "tile_worst is nan"),
        ('floor = "psnr=30"\n[[rule]]\nwhen.faces = 1\ncodec = "x265"', "codec 'x265'"),
        ('floor = "psnr=30"\n[[rule]]\nwhen.faces = 1\nfloor = "psnr=29"', "laxer"),
        ('floor = "psnr=30"\n[[rule]]\nwhen.faces = 1\nfloor = "lpips=0.1"', "another metric"),
        ('floor = "psnr=30"\n[[rule]]\nwhen.faces = 1\nfloor = "psnr:mean=40"', "another metric"),
        ('floor = "psnr=30"\n[[rule]]\nname = "a;b"\nwhen.faces = 1\ncodec = "av1"', "rule name 'a;b'"),
        ('floor = "psnr=30"\n' + 2 * '[[rule]]\nname = "x"\nwhen.faces = 1\ncodec = "av1"\n', "two rules"),
        (
            'floor = "psnr=30"\n'
            + "".join(f"[[rule]]\nwhen.faces = {n}\ncodec = 'av1'\n" for n in range(1, 99)),
            "4096 at most",
        ),
    ],
)
def test_what_is_no_policy(text: str, says: str, tmp_path: Path) -> None:
    path = tmp_path / "policy.toml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=r"policy .*policy\.toml: ") as error:
        read_policy(str(path))
    assert says in str(error.value)


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "latin.toml").write_bytes('floor = "psnr=30" # \xe4'.encode("latin-1"))
    for path in (tmp_path / "none.toml", tmp_path, tmp_path / "latin.toml"):
        with pytest.raises(ConfigError, match="cannot be read"):
            read_policy(str(path))


def test_a_policy_in_words() -> None:
    lines = list(in_words(parse_policy(FULL)))
    assert lines[0] == (
        "Every GOP is held to lpips_alex 0.3 or better in its worst measured frame, in at most 0.1 bits per pixel."
    )
    assert lines[1] == (
        "1. faces: where 2 or more faces are found in a source frame, it is stored as AV1, never as S2VC."
    )
    assert (
        "its worst tile has an SSIM of 0.4 or less as S2VC codes it for the floor, it is held to" in lines[2]
    )
    assert "Sources whose name matches masters/** are not coded." in lines
    assert lines[-1].endswith(parse_policy(FULL).sha256)


def test_a_job_has_one_word_on_what_it_holds() -> None:
    policy = parse_policy(FULL)
    measured = MetricPolicy.parse("sample:4", faces=True)
    config = JobConfig(target=policy.floor, fallback="smaller", policy=policy, metrics=measured)
    plain = JobConfig(target=policy.floor, fallback="smaller", metrics=measured)
    assert config.config_hash("ab" * 32) != plain.config_hash("ab" * 32)
    written = json.loads(config.to_json())
    assert (written["policy"], written["exclude"]) == (policy.text, ["masters/**", "*.raw.mov"])
    assert json.loads(plain.to_json())["policy"] is None
    assert pickle.loads(pickle.dumps(config)) == config
    with pytest.raises(ConfigError, match="which target and fallback"):
        JobConfig(target=policy.floor, policy=policy, metrics=measured)
    with pytest.raises(ConfigError, match="faces"):
        JobConfig(target=policy.floor, fallback="smaller", policy=policy)
