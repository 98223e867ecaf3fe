"""A `Storage` in memory with a clock of its own, for tests about ages, sizes and large numbers of objects."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from s2vc_ray.errors import ObjectMissing
from s2vc_ray.storage import ObjectStat, Unfinished, check_key


@dataclass
class MemoryStorage:
    """Objects as bytes with times. ``clock`` is what the store believes; set it, or `put_at` a time."""

    clock: float = 1_000_000_000.0
    objects: dict[str, tuple[bytes, float]] = field(default_factory=dict)
    writes: list[Unfinished] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)

    @property
    def uri(self) -> str:
        return "memory:"

    def put_at(self, key: str, data: bytes, age: float) -> None:
        """An object that is ``age`` seconds old."""
        self.objects[check_key(key)] = (data, self.clock - age)

    def stat(self, key: str) -> ObjectStat | None:
        self.asked.append(f"stat {key}")
        return self._stat(key) if check_key(key) in self.objects else None

    def read(self, key: str, start: int = 0, end: int | None = None) -> bytes:
        self.asked.append(f"read {key}")
        if check_key(key) not in self.objects:
            raise ObjectMissing(key)
        return self.objects[key][0][start:end]

    def open(self, key: str) -> BinaryIO:
        return io.BytesIO(self.read(key))

    def put(self, key: str, data: bytes, *, overwrite: bool = False) -> bool:
        if check_key(key) in self.objects and not overwrite:
            return False
        self.objects[key] = (data, self.clock)
        return True

    def put_file(self, key: str, path: object, *, overwrite: bool = False) -> bool:
        return self.put(key, Path(str(path)).read_bytes(), overwrite=overwrite)

    def list(self, prefix: str = "") -> Iterator[ObjectStat]:
        self.asked.append(f"list {prefix}")
        for key in sorted(self.objects):
            if key.startswith(prefix):
                yield self._stat(key)

    def keys(self, prefix: str = "") -> Iterator[str]:
        return (item.key for item in self.list(prefix))

    def delete(self, key: str) -> None:
        self.objects.pop(check_key(key), None)

    def delete_many(self, keys: Iterable[str]) -> None:
        for key in keys:
            self.delete(key)

    def now(self) -> float:
        return self.clock

    def unfinished(self, prefix: str = "") -> Iterator[Unfinished]:
        yield from [write for write in self.writes if write.key.startswith(prefix)]

    def discard(self, write: Unfinished) -> None:
        self.writes.remove(write)

    def _stat(self, key: str) -> ObjectStat:
        data, when = self.objects[key]
        return ObjectStat(key, len(data), hashlib.md5(data).hexdigest(), when)
