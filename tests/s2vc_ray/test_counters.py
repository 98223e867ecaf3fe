"""Counting from many threads, and reading it."""

from __future__ import annotations

from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import pytest

from s2vc_ray import counters
from s2vc_ray.counters import Sample, count, merge, snapshot, total


@pytest.fixture(autouse=True)
def nothing_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(counters, "_counts", Counter())


def test_counts_from_many_threads_add_up() -> None:
    def work(number: int) -> None:
        for _ in range(1000):
            count("s3_retries", reason=f"r{number % 2}")

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(8)))
    assert snapshot() == [
        Sample("s3_retries", (("reason", "r0"),), 4000),
        Sample("s3_retries", (("reason", "r1"),), 4000),
    ]
    assert total("s3_retries") == 8000


def test_labels_have_no_order() -> None:
    count("a", b="1", c="2")
    count("a", 4, c="2", b="1")
    assert snapshot() == [Sample("a", (("b", "1"), ("c", "2")), 5)]


def test_another_process_is_added() -> None:
    count("a", x="1")
    merge([Sample("a", (("x", "1"),), 2), Sample("b", (), 3)])
    assert {sample.name: sample.value for sample in snapshot()} == {"a": 3, "b": 3}


def test_nothing_is_no_sample_and_nonsense_is_refused() -> None:
    count("a", 0)
    assert snapshot() == []
    for name, amount in (("", 1), ("A b", 1), ("a", -1)):
        with pytest.raises(ValueError, match="cannot count"):
            count(name, amount)
