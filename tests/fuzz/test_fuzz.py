"""The fuzz harness on a few hundred cases, and that it sees what it is there to see."""

from __future__ import annotations

import json
import random
from collections import Counter
from pathlib import Path

import pytest
from rich.console import Console

from jobs.bench_fuzz import FuzzOptions, print_fuzz
from s2vc_ray.archive import ArchiveReader
from s2vc_ray.passthrough_format import Passthrough
from tests.fuzz import archive_case, run, source_case
from tests.fuzz.archive_case import ArchiveCases
from tests.fuzz.case import Case
from tests.fuzz.forge import FORGERS, Parts, forged
from tests.fuzz.forge_passthrough import Carried
from tests.fuzz.originals import lay_out
from tests.fuzz.run import Found, Plan
from tests.fuzz.source_case import SourceCases

ONCE_FAILED = [(7, 888), (21, 2816), (21, 3436)]
"""Seeds and numbers of sources that readers have failed on; with another FFmpeg they may be other bytes."""


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Path]:
    return lay_out(tmp_path_factory.mktemp("originals"))


@pytest.fixture
def archives(folders: tuple[Path, Path, Path], tmp_path: Path) -> ArchiveCases:
    inner = tmp_path / "outer" / "inner"
    inner.mkdir(parents=True)
    return ArchiveCases({one.name: one.read_bytes() for one in folders[0].iterdir()}, inner)


def clean(found: Found, count: int) -> None:
    assert found.violations == []
    assert found.cases == count
    assert all(outcomes["ok"] for outcomes in found.steps.values())
    assert all(sum(outcomes.values()) > outcomes["ok"] for outcomes in found.steps.values())


def test_archives(folders: tuple[Path, Path, Path]) -> None:
    found = run.run(Plan("archives", folders[0], 300, deep=-5))
    clean(found, 300)
    assert set(found.how) == {"damage", *FORGERS}
    assert found.steps["reader"]["CorruptArchive"] < 300
    assert "remux" in found.steps


def test_payloads_of_the_fallback_codec(folders: tuple[Path, Path, Path]) -> None:
    found = run.run(Plan("payloads", folders[2], 1500))
    clean(found, 1500)
    assert found.steps["planes"]["SymbolMismatch"] > 200
    assert found.slowest < 1


def test_sources(folders: tuple[Path, Path, Path]) -> None:
    found = run.run(Plan("sources", folders[1], 20))
    assert found.violations == []
    assert found.cases == 20
    assert 0 < found.slowest < run.LIMIT


@pytest.mark.parametrize(("seed", "number"), ONCE_FAILED)
def test_sources_that_once_failed(
    folders: tuple[Path, Path, Path], tmp_path: Path, seed: int, number: int
) -> None:
    cases = SourceCases(sorted(folders[1].iterdir()), tmp_path)
    assert cases.run(number, seed).violations == []


def test_a_case_is_the_same_every_time(archives: ArchiveCases) -> None:
    assert [archives.run(n, 3) for n in range(12)] == [archives.run(n, 3) for n in range(12)]


def test_taken_apart_and_put_together_an_archive_is_what_it_was(archives: ArchiveCases) -> None:
    """Else forged archives would be refused for what nobody meant."""
    for name, data in archives.originals.items():
        assert Parts.of(data).pack() == data, name
        if carried := b"".join(ArchiveReader(data).passthrough()):
            assert Carried.of(carried).pack() == carried


def test_forged_archives_reach_what_lies_behind_the_checksums(archives: ArchiveCases) -> None:
    rng, said = random.Random(1), Counter[str]()
    for _ in range(400):
        _, data = forged(archives.originals["rich.s2vc"], rng)
        case = Case(0, "", "")
        case.step("reader", lambda data=data: list(ArchiveReader(data).gops()))  # type: ignore[misc]
        case.step(
            "carried",
            lambda data=data: list(Passthrough.from_chunks(ArchiveReader(data).passthrough()).packets()),  # type: ignore[misc]
        )
        said.update(f"{step} {outcome}" for step, outcome in case.steps.items())
    assert said["reader ok"] > 100
    assert said["reader CorruptArchive"] > 100
    assert said["carried CorruptArchive"] > said["reader CorruptArchive"]


def test_damage_that_nobody_notices_is_seen(archives: ArchiveCases, monkeypatch: pytest.MonkeyPatch) -> None:
    """A reader that returns other bytes than were written."""
    right = archive_case._strict

    def wrong(stream: archive_case.Bounded) -> archive_case._Content:
        header, gops, carried = right(archive_case.Bounded(archives.originals["silent.s2vc"]))
        return header, gops, carried + b"x"

    monkeypatch.setattr(archive_case, "_strict", wrong)
    said = [one for n in range(10) for one in archives.run(n, 1).violations]
    assert any("damage went unnoticed" in one for one in said)


def test_errors_of_other_trees_memory_and_stray_files_are_seen(
    archives: ArchiveCases, monkeypatch: pytest.MonkeyPatch
) -> None:
    def careless(data: bytes) -> None:
        if len(data) % 2:
            raise KeyError("none of our trees")
        bytes(50_000_000)

    monkeypatch.setattr(archive_case, "_examined", careless)
    said = " ".join(one for n in range(60) for one in archives.run(n, 1).violations)
    assert "verify: KeyError" in said
    assert "bytes of memory" in said
    monkeypatch.undo()

    def straying(out: Path, *_: object, **__: object) -> None:
        (out.parent / ".." / "outside").write_text("x")

    monkeypatch.setattr(archive_case, "write_video", straying)
    case = Case(0, "", "")
    rich = archives.originals["rich.s2vc"]
    archives._deeper(rich, case)
    assert case.violations == ["wrote outside"]


def test_changed_sources_and_native_memory_are_seen(
    folders: tuple[Path, Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def greedy(path: Path, case: Case) -> None:
        (path.parent / "beside").write_bytes(b"")
        path.write_bytes(b"other")
        bytearray(400 << 20)[:: 1 << 12] = bytes(100 << 10)

    monkeypatch.setattr(source_case, "_read", greedy)
    monkeypatch.setattr(SourceCases, "_need", lambda self, original: 0)
    said = SourceCases(sorted(folders[1].iterdir()), tmp_path).run(0, 1).violations
    assert [one.partition(" ")[2].partition(" for ")[0] for one in said] == [
        "MiB resident",
        "beside",
        "its source",
    ]


WORKER = """
import json, os, signal, sys, time
first, step, count = int(sys.argv[4]), int(sys.argv[5]), int(sys.argv[6])
print("ready", flush=True)
for number in range(first, count, step):
    if number == 2:
        os.kill(os.getpid(), signal.SIGSEGV)
    if number == 5:
        while True:
            pass
    case = {"number": number, "how": "x", "original": "y", "steps": {}, "violations": [], "seconds": 0}
    print(json.dumps(case), flush=True)
"""


def test_a_crash_and_a_hang_are_survived_and_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The worker stands in for one whose FFmpeg crashes."""
    (tmp_path / "tests" / "fuzz").mkdir(parents=True)
    for place in ("tests", "tests/fuzz"):
        (tmp_path / place / "__init__.py").touch()
    (tmp_path / "tests" / "fuzz" / "worker.py").write_text(WORKER)
    monkeypatch.setattr(run, "_ROOT", tmp_path)
    monkeypatch.setattr(run, "LIMIT", 0.5)
    found = run.run(Plan("archives", tmp_path, 9))
    assert found.cases == 9
    crash, hang = sorted(found.violations)
    assert crash.startswith("case 2: killed its process by SIGSEGV")
    assert hang.startswith("case 5: hung")


def test_the_command_prints_counts_and_fails_on_violations(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    options = FuzzOptions(archives=4, videos=2, deep=-1)
    assert print_fuzz(options, Console(), as_json=True)
    archives, sources = json.loads(capsys.readouterr().out)
    assert (archives["found"]["cases"], sources["found"]["cases"]) == (4, 2)
    assert sum(archives["found"]["steps"]["reader"].values()) == 4
    bad = Found(1, {"damage": 1}, {"reader": {"ok": 1}}, ["case 0: what must not be"])
    monkeypatch.setattr(run, "run", lambda plan, progress: bad)
    assert not print_fuzz(options, Console(), as_json=False)
    told = capsys.readouterr().out
    assert "reader" in told
    assert "case 0: what must not be" in told
