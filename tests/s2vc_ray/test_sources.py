"""What the operator names becomes a list of sources, each under a name of its own."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from s2vc_ray.errors import ConfigError
from s2vc_ray.sources import Source, iter_sources


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    for name in ("a.mp4", "sub/a.MKV", "sub/deep/b.mov", "notes.pdf", "sub/a.mp4.s2vc"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    return tmp_path


def names(*arguments: object) -> list[str]:
    return [source.name for source in iter_sources([str(argument) for argument in arguments])]


def test_folder_is_searched_for_videos(tree: Path) -> None:
    assert names(tree) == ["a.mp4", "sub/a.MKV", "sub/deep/b.mov"]


def test_a_file_keeps_its_own_name_whatever_its_suffix(tree: Path) -> None:
    assert names(tree / "sub/deep/b.mov", tree / "notes.pdf") == ["b.mov", "notes.pdf"]


def test_a_missing_file_is_still_a_source(tree: Path) -> None:
    assert names(tree / "gone.mp4") == ["gone.mp4"]


def test_glob_names_are_below_its_fixed_part(tree: Path) -> None:
    assert names(f"{tree}/**/*.m[ko]v", f"{tree}/sub/*.MKV") == ["sub/deep/b.mov", "a.MKV"]


def test_a_name_with_brackets_is_a_file_before_it_is_a_glob(tree: Path) -> None:
    (tree / "take[1].mp4").touch()
    assert names(tree / "take[1].mp4") == ["take[1].mp4"]


@pytest.mark.parametrize("prefix", ["@", ""])
def test_list_file(tree: Path, prefix: str) -> None:
    listing = tree / "list.txt"
    listing.write_text(f"# two\nsub/deep/b.mov\n\n{tree}/sub/a.MKV\n")
    assert names(f"{prefix}{listing}") == ["deep/b.mov", "a.MKV"]


def test_one_source_named_twice_is_listed_once(tree: Path) -> None:
    assert names(tree / "a.mp4", tree) == ["a.mp4", "sub/a.MKV", "sub/deep/b.mov"]


def test_two_sources_under_one_name_are_refused(tree: Path) -> None:
    (tree / "sub/a.mp4").touch()
    one, other = iter_sources([str(tree / "a.mp4"), str(tree / "sub/a.mp4")])
    assert not one.refused
    assert "would be stored as a.mp4.s2vc, and so is another source" in other.refused


def test_a_list_names_each_source_once(tree: Path) -> None:
    (tree / "list.txt").write_text("a.mp4\nsub/a.MKV\n./a.mp4\n")
    assert names(tree / "list.txt") == ["a.mp4", "sub/a.MKV"]


def test_a_folder_is_listed_only_as_far_as_it_is_asked(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []
    walk = os.walk

    def watched(root: Path) -> Iterator[tuple[str, list[str], list[str]]]:
        for step in walk(root):
            seen.append(step[0])
            yield step

    monkeypatch.setattr(os, "walk", watched)
    assert next(iter_sources([str(tree)])).name == "a.mp4"
    assert seen == [str(tree)]


@pytest.mark.parametrize("what", ["empty_folder", "*.avi", "@missing.txt", "@empty.txt", "ftp://host/a.mp4"])
def test_nothing_found_is_an_error(tree: Path, what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tree)
    (tree / "empty_folder").mkdir()
    (tree / "empty.txt").write_text("# nothing\n")
    with pytest.raises(ConfigError):
        iter_sources([what])


def test_id_depends_on_the_uri_alone(tree: Path) -> None:
    source = Source(str(tree / "a.mp4"), "a.mp4")
    before = source.video_id
    (tree / "a.mp4").write_bytes(b"other")
    assert Source(source.uri, "x/a.mp4").video_id == before
    assert Source(source.uri + "x", "a.mp4").video_id != before
    assert len(before) == 16
