"""What has become of a destination: which videos are done, failed or under way, and what is left over.

A report of `Survey`. Every count is exact; of each state at most ``limit`` entries are named.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from rich.console import Group
from rich.table import Table

from s2vc_ray.errors import ObjectMissing
from s2vc_ray.redact import redacted
from s2vc_ray.storage import Storage, open_storage
from s2vc_ray.survey import Survey, is_our_write, survey
from s2vc_ray.words import size

STATES = {
    "done": "described in the manifest, and there",
    "partial": "as done, of a source that is truncated or damaged",
    "failed": "the latest try failed; the manifest says why",
    "excluded": "left out by a policy",
    "missing": "described in the manifest, but the archive is gone or has another size",
    "staged": "coded in part: start the job again to finish",
    "undescribed": "archives without a manifest row: start the job again to describe them",
    "unpaired": "frame lists without their archive: start the job again, or move them away",
    "orphaned": "staged GOPs that nobody will want: s2vc gc removes them",
    "dangling": "uploads or temporary files that nobody finished: s2vc gc removes them",
    "unreadable": "manifest parts that cannot be read",
}
_DEMANDING = ("partial", "failed", "missing", "staged", "undescribed", "unreadable")


@dataclass(slots=True)
class StatusReport:
    """A destination's state.

    Attributes:
        destination: its URI.
        counts: per name of `STATES`, how many videos, archives, writes or parts there are.
        bytes: per state, the bytes of its archives or staged GOPs.
        errors: failed videos per error class.
        entries: per state, up to the limit, what is known of each. Ages are in seconds.
    """

    destination: str
    counts: dict[str, int] = field(default_factory=lambda: dict.fromkeys(STATES, 0))
    bytes: dict[str, int] = field(default_factory=lambda: dict.fromkeys(STATES, 0))
    errors: dict[str, int] = field(default_factory=dict)
    entries: dict[str, list[dict[str, Any]]] = field(default_factory=lambda: {name: [] for name in STATES})

    @property
    def clean(self) -> bool:
        """Whether every video is compressed in full and described. Litter is no reason to say no."""
        return not any(self.counts[state] for state in _DEMANDING)


def status(destination: Storage | str, *, older_than: float, limit: int = 20) -> StatusReport:
    """Examine a destination.

    Args:
        destination: a compress job's.
        older_than: staging and unfinished writes that nothing was added to for so many seconds are left over.
        limit: most entries named per state; 0 names all.

    Raises:
        ObjectMissing: nothing of a compress job lies there.
        StorageError: the store refused or failed.
    """
    storage = open_storage(destination) if isinstance(destination, str) else destination
    report = StatusReport(storage.uri)
    with survey(storage) as found:
        for state, name, amount, entry in _everything(found, older_than):
            report.counts[state] += 1
            report.bytes[state] += amount
            if state == "failed":
                error_class = str(entry["error_class"])
                report.errors[error_class] = report.errors.get(error_class, 0) + 1
            if not limit or len(report.entries[state]) < limit:
                report.entries[state].append({"name": name, **entry})
    if not any(report.counts.values()):
        raise ObjectMissing(f"nothing of a compress job under {storage.uri}: is that its destination?")
    return report


def status_tables(report: StatusReport) -> Group:
    """The report for a person."""
    totals = Table(box=None, pad_edge=False)
    for name, justify in (("state", "left"), ("count", "right"), ("size", "right"), ("", "left")):
        totals.add_column(name, justify=justify)  # type: ignore[arg-type]
    for state, meaning in STATES.items():
        held = size(report.bytes[state]) if report.bytes[state] else ""
        totals.add_row(state, str(report.counts[state]), held, meaning)
    details = Table(box=None, pad_edge=False)
    for name in ("state", "name", "what"):
        details.add_column(name, overflow="fold")
    for state, entries in report.entries.items():
        if state == "done":
            continue
        for entry in entries:
            details.add_row(state, shown(redacted(str(entry["name"]))), shown(redacted(_what(entry))))
        if report.counts[state] > len(entries):
            details.add_row(state, f"... and {report.counts[state] - len(entries)} more", "")
    for error_class, number in sorted(report.errors.items(), key=lambda item: -item[1]):
        totals.add_row("", "", str(number), f"failed with {error_class}")
    return Group(totals, "", details) if details.row_count else Group(totals)


def shown(text: str) -> str:
    """``text`` with control characters escaped: names come from strangers, and terminals obey them."""
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)


def _everything(found: Survey, older_than: float) -> Iterator[tuple[str, str, int, dict[str, Any]]]:
    """Everything there is, one at a time: state, name, bytes, and the rest."""
    yield from _videos(found)
    yield from _staged(found, older_than)
    for key, amount in found.rows("SELECT key, size FROM undescribed ORDER BY key"):
        yield "undescribed", key, amount, {"bytes": amount}
    yield from _unpaired(found)
    for write in found.storage.unfinished():
        age = found.now - write.since
        if is_our_write(write) and age >= older_than:
            yield "dangling", write.key, 0, {"age": age}
    for key, error in found.rows("SELECT key, error FROM unreadable ORDER BY key"):
        yield "unreadable", key, 0, {"error": error}


def _videos(found: Survey) -> Iterator[tuple[str, str, int, dict[str, Any]]]:
    query = "SELECT video, name, archive, bytes, error_class, error, state FROM videos ORDER BY state, name, video"
    for video, name, archive, amount, error_class, error, state in found.rows(query):
        entry = {"video_id": video, "archive": archive, "bytes": amount}
        if state == "missing":
            # It may have been published after its place in the listing had passed.
            now = found.storage.stat(archive)
            state = "done" if now and now.size == amount and not error_class else state
            state = "partial" if now and now.size == amount and error_class else state
        if state in ("partial", "failed", "excluded"):
            entry |= {"error_class": error_class, "error": error}
        yield state, name, amount if state in ("done", "partial") else 0, entry


def _unpaired(found: Survey) -> Iterator[tuple[str, str, int, dict[str, Any]]]:
    """Frame lists that no archive lies beside; a job puts them first, so one may be about to."""
    query = """
        SELECT key, archive, size FROM frame_lists AS f
        WHERE NOT EXISTS (SELECT 1 FROM archives WHERE key = f.archive)
        AND NOT EXISTS (SELECT 1 FROM words WHERE archive = f.archive AND status <> 'failed') ORDER BY key
    """
    for key, archive, amount in found.rows(query):
        if found.storage.stat(archive) is None:
            yield "unpaired", key, amount, {"bytes": amount}


def _staged(found: Survey, older_than: float) -> Iterator[tuple[str, str, int, dict[str, Any]]]:
    for video in found.staged():
        if not video.gops:
            continue
        idle = found.now - video.newest
        entry = {
            "video_id": video.video_id,
            "gops": video.gops,
            "bytes": video.bytes,
            "age": found.now - video.oldest,
            "idle": idle,
        }
        name = video.name or video.video_id
        if video.archive:
            yield "orphaned", name, video.bytes, {**entry, "why": "its archive is published and described"}
        elif idle >= older_than:
            yield "orphaned", name, video.bytes, {**entry, "why": "nothing was added for long"}
        else:
            yield "staged", name, video.bytes, entry


def _what(entry: dict[str, Any]) -> str:
    said = []
    if "gops" in entry:
        said.append(f"{entry['gops']} GOPs, {size(entry['bytes'])}, last added {_age(entry['idle'])} ago")
    elif "age" in entry:
        said.append(f"begun {_age(entry['age'])} ago")
    if entry.get("error_class"):
        said.append(str(entry["error_class"]))
    said += [str(entry[name]) for name in ("why", "error") if entry.get(name)]
    return ": ".join(said) or (size(entry["bytes"]) if entry.get("bytes") else "")


def _age(seconds: float) -> str:
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= length:
            return f"{seconds / length:.1f} {unit}"
    return f"{max(seconds, 0):.0f} s"
