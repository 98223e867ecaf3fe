"""Whether archives are still what was committed: against the manifest, and as deep into the bytes as is asked for.

    structure   header and index of every archive, their CRCs, and all sizes: seconds for a terabyte
    bytes       and every CRC, and the SHA-256 of every archive and frame list
    symbols     and every GOP entropy-decoded, every symbol checksum compared
    pixels      and every GOP decoded, and measured against its source as the manifest says it was

Reads only, but for the events it appends. Every trouble of an archive is a verdict; only a store that cannot be listed,
or a model that cannot be loaded, ends a verification.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from itertools import zip_longest

from s2vc_ray.bag import bag_entries, read_bag
from s2vc_ray.errors import ObjectMissing
from s2vc_ray.lanes import CodecLoader, LoadedCodec, load_s2vc
from s2vc_ray.provenance import FIXITY, Agent, EventLog, this_program
from s2vc_ray.storage import Storage, open_source, open_storage
from s2vc_ray.survey import BAG, Survey, survey
from s2vc_ray.verify_archive import ArchiveVerifier, VerifyOptions
from s2vc_ray.verify_reference import Word
from s2vc_ray.verify_report import Check, Verdict, VerifyReport
from s2vc_ray.versions import ARCHIVE_SUFFIX

_READERS = 16
"""Archives read at once where nothing is decoded."""
_WORDS = """
    SELECT a.key, w.video, w.job, w.name, w.bytes, w.sha256, w.frames_sha256, w.version FROM archives AS a LEFT JOIN (
        SELECT archive, video, job, name, bytes, sha256, frames_sha256, version, max(created) FROM words
        WHERE status <> 'failed' GROUP BY archive
    ) AS w ON w.archive = a.key ORDER BY a.key
"""

Watch = Callable[[Verdict, int], None]
"""Called with each verdict, and the number of archives there are."""


def verify(
    targets: Sequence[str],
    options: VerifyOptions,
    *,
    watch: Watch | None = None,
    load_codec: CodecLoader = load_s2vc,
) -> list[VerifyReport]:
    """Verify destinations, and archives by themselves.

    Args:
        targets: each a destination, or an archive: a path or object whose name ends in ``.s2vc``.

    Returns:
        One report for each destination, and one for all archives that were named by themselves.

    Raises:
        ObjectMissing: nothing of a compress job lies at a destination.
        ModelError: the model cannot be loaded.
        StorageError: a destination cannot be listed, or its events not be written.
    """
    codec = load_codec(options.model, options.device) if options.decodes else None
    alone = [target for target in targets if target.endswith(ARCHIVE_SUFFIX)]
    reports = [
        _verify_destination(open_storage(target), options, codec, watch)
        for target in targets
        if target not in alone
    ]
    return [*reports, _verify_alone(alone, options, codec, watch)] if alone else reports


def is_chosen(video: str | None, key: str, sample: float) -> bool:
    """Whether a video is among the ``sample`` of all. Its id decides, so the answer is always the same."""
    number = video or hashlib.sha256(key.encode()).hexdigest()
    return int(number[:8], 16) < sample * (1 << 32)


def _verify_alone(
    uris: Sequence[str], options: VerifyOptions, codec: LoadedCodec | None, watch: Watch | None
) -> VerifyReport:
    """Archives without their manifest, which can only be compared with themselves."""
    begun = time.monotonic()
    report = VerifyReport(" ".join(uris), options.depth, 1.0)
    verifier = ArchiveVerifier(options, None, codec)
    for uri in uris:
        _take(verifier.verify(partial(open_source, uri), Word(uri)), report, options, watch, len(uris))
    report.seconds = time.monotonic() - begun
    return report


def _verify_destination(
    storage: Storage, options: VerifyOptions, codec: LoadedCodec | None, watch: Watch | None
) -> VerifyReport:
    """Everything that lies at a destination, and everything that should."""
    begun = time.monotonic()
    report = VerifyReport(storage.uri, options.depth, options.sample)
    agent = _agent(codec)
    with survey(storage) as found, ExitStack() as stack:
        ((archives, words),) = found.rows(
            "SELECT (SELECT count(*) FROM archives), (SELECT count(*) FROM words)"
        )
        if not archives and not words:
            raise ObjectMissing(f"nothing of a compress job under {storage.uri}: is that its destination?")
        log = stack.enter_context(EventLog(storage, options.depth)) if options.events else None
        for verdict in _verdicts(found, options, codec):
            _take(verdict, report, options, watch, archives)
            if log is not None:
                log.add(verdict, agent)
        if log is not None:
            report.events = log.close()
    report.seconds = time.monotonic() - begun
    return report


def _take(
    verdict: Verdict, report: VerifyReport, options: VerifyOptions, watch: Watch | None, total: int
) -> None:
    report.add(verdict, options.limit)
    if watch is not None:
        watch(verdict, total)


def _agent(codec: LoadedCodec | None) -> Agent:
    if codec is None:
        return Agent(*this_program())
    return Agent(*this_program(), codec.model_id, codec.weights_sha256, str(codec.device))


def _verdicts(found: Survey, options: VerifyOptions, codec: LoadedCodec | None) -> Iterator[Verdict]:
    yield from _bag(found)
    yield from _archives(found, options, codec)
    yield from _absent(found, options)


def _archives(found: Survey, options: VerifyOptions, codec: LoadedCodec | None) -> Iterator[Verdict]:
    """One verdict for each archive that is there, several read at once where nothing is decoded."""
    verifier = ArchiveVerifier(options, found.storage, codec)
    words = (Word(*row) for row in found.rows(_WORDS))
    with ThreadPoolExecutor(_READERS if codec is None else 1, "verify") as readers:
        waiting: list[Future[Verdict]] = []
        for word in words:
            if is_chosen(word.video, word.key, options.sample):
                waiting.append(readers.submit(verifier.verify, partial(found.storage.open, word.key), word))
            if len(waiting) > 2 * _READERS:
                yield _named(waiting.pop(0).result(), found)
        for verdict in waiting:
            yield _named(verdict.result(), found)


def _named(verdict: Verdict, found: Survey) -> Verdict:
    """An archive in a wrong place, with the name that the manifest knows it by."""
    if verdict.outcome in ("exchanged", "unknown") and verdict.sha256 is not None:
        query = "SELECT archive FROM words WHERE sha256 = ? AND archive <> ? AND status <> 'failed' LIMIT 1"
        for (other,) in found.rows(query, verdict.sha256, verdict.key):
            said = f"it is the archive that the manifest describes as {other}"
            return replace(verdict, faults=(*verdict.faults, said))
    return verdict


def _absent(found: Survey, options: VerifyOptions) -> Iterator[Verdict]:
    """Videos that failed, archives that are described and gone, parts that nobody can read."""
    query = "SELECT video, name, error_class, error FROM videos WHERE state = 'failed' ORDER BY name, video"
    for video, name, error_class, error in found.rows(query):
        key = f"{name}{ARCHIVE_SUFFIX}"
        if is_chosen(video, key, options.sample):
            yield Verdict(key, "failed", (f"{error_class}: {error}",))
    # Also of videos that failed later: their archives should be there.
    query = """
        SELECT c.video, c.archive, c.bytes FROM compressed AS c
        WHERE NOT EXISTS (SELECT 1 FROM archives WHERE key = c.archive AND size = c.bytes) ORDER BY c.name, c.video
    """
    for video, key, size in found.rows(query):
        if is_chosen(video, key, options.sample) and found.storage.stat(key) is None:
            said = f"the manifest describes {size} bytes"
            yield Verdict(key, "missing", (said,), checks=(Check(FIXITY, "failure", said),))
    for key, error in found.rows("SELECT key, error FROM unreadable ORDER BY key"):
        yield Verdict(key, "unreadable", (error,), checks=(Check(FIXITY, "failure", error),))


def _bag(found: Survey) -> Iterator[Verdict]:
    """A verdict on the bag manifest where it is not what the Parquet manifest would make it."""
    if not any(found.rows("SELECT 1 FROM compressed LIMIT 1")):
        return
    if found.storage.stat(BAG) is None:
        said = "there is none"
    else:
        with found.storage.open(BAG) as lines:
            try:
                pairs = enumerate(zip_longest(bag_entries(found), read_bag(lines)), 1)
                said = next((_odd_line(number, *pair) for number, pair in pairs if pair[0] != pair[1]), "")
            except ValueError as error:
                said = str(error)
    if said:
        yield Verdict(BAG, "bag", (said,), checks=(Check(FIXITY, "failure", said),))


def _odd_line(number: int, ours: tuple[str, str] | None, there: tuple[str, str] | None) -> str:
    is_, should = ("  ".join(reversed(entry)) if entry else "missing" for entry in (there, ours))
    return f"line {number} is {is_!r}, by the manifest {should!r}"
