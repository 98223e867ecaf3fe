"""Figures as people read them: sizes, durations, shares, tallies. Pure functions to short strings."""

from __future__ import annotations

from collections.abc import Iterable, Mapping


def size(count: float | None) -> str:
    """A size in bytes: ``1.5 MB``; a dash when unknown."""
    if count is None:
        return "-"
    value, units = float(count), ["B", "kB", "MB", "GB", "TB", "PB"]
    while abs(value) >= 1000 and len(units) > 1:
        value, units = value / 1000, units[1:]
    return f"{value:.0f} {units[0]}" if units[0] == "B" else f"{value:.1f} {units[0]}"


def duration(seconds: float | None) -> str:
    """A time span: ``42 s``, ``7 min 05 s``, ``3 h 20 min``, ``12 d 4 h``; a dash when unknown."""
    if seconds is None:
        return "-"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    if whole < 48 * 3600:
        return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
    return f"{whole // 86400} d {whole % 86400 // 3600} h"


def share(value: float | None) -> str:
    """A share, 0..1, in percent; a dash when unknown."""
    return "-" if value is None else f"{100 * value:.0f} %"


def tally(counts: Mapping[str, int], most: int = 5) -> str:
    """The largest counts first: ``TimeoutError 3, OSError 1, 2 others 7``."""
    ranked = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    shown = [f"{name} {number}" for name, number in ranked[:most]]
    if len(ranked) > most:
        rest = ranked[most:]
        shown.append(f"{len(rest)} others {sum(number for _, number in rest)}")
    return ", ".join(shown)


def ranges(numbers: Iterable[int]) -> str:
    """Ascending numbers, those in a row together: ``2, 5-7``."""
    runs: list[tuple[int, int]] = []
    for number in numbers:
        if runs and number == runs[-1][1] + 1:
            runs[-1] = runs[-1][0], number
        else:
            runs.append((number, number))
    return ", ".join(str(first) if first == last else f"{first}-{last}" for first, last in runs)


def few(value: float) -> str:
    """A sum of money or the like, to three digits at least: ``1,234``, ``12.3``, ``0.0123``."""
    if value == 0:
        return "0"
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
