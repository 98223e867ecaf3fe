"""``Times``: a video's time stamps, 8 bytes each, shared by whoever refers to a stretch of them. Knows nothing else."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, overload

_SHOWN = 4


class Times(Sequence[int]):
    """An immutable sequence of 64-bit integers that equals a tuple, and hashes as one, of the same numbers.

    A slice of adjoining times refers to the whole and copies nothing; what is pickled is the stretch alone. A tuple
    takes five times as much, and a film of ten hours at 60 frames a second has two million.

    Raises:
        OverflowError: a value does not fit 64 bits.
    """

    __slots__ = ("_end", "_start", "_values")

    def __init__(self, values: Iterable[int] = ()) -> None:
        self._values = array("q", values)
        self._start, self._end = 0, len(self._values)

    @classmethod
    def from_bytes(cls, data: bytes) -> Times:
        """Of 64-bit integers in the machine's byte order, as ``numpy`` has them."""
        times = cls()
        times._values.frombytes(data)
        times._end = len(times._values)
        return times

    def __len__(self) -> int:
        return self._end - self._start

    @overload
    def __getitem__(self, index: int) -> int: ...

    @overload
    def __getitem__(self, index: slice) -> Times: ...

    def __getitem__(self, index: int | slice) -> int | Times:
        if isinstance(index, slice):
            start, stop, step = index.indices(len(self))
            if step != 1:
                return Times(self[at] for at in range(start, stop, step))
            part = Times()
            part._values = self._values
            part._start, part._end = self._start + start, self._start + max(start, stop)
            return part
        if not -len(self) <= index < len(self):
            raise IndexError(f"time {index} of {len(self)}")
        return self._values[(self._end if index < 0 else self._start) + index]

    def __iter__(self) -> Iterator[int]:
        return (self._values[at] for at in range(self._start, self._end))

    def __eq__(self, other: object) -> bool:
        if isinstance(other, Times):
            return self._bytes() == other._bytes()
        if isinstance(other, tuple):
            return len(self) == len(other) and all(a == b for a, b in zip(self, other, strict=True))
        return NotImplemented

    def __hash__(self) -> int:
        return hash(tuple(self))

    def __repr__(self) -> str:
        shown = ", ".join(str(one) for one in self[:_SHOWN])
        return f"Times({shown}{f', … {len(self)} in all' if len(self) > _SHOWN else ''})"

    def __reduce__(self) -> tuple[Any, ...]:
        return Times.from_bytes, (self._bytes(),)

    def _bytes(self) -> bytes:
        return memoryview(self._values)[self._start : self._end].tobytes()
