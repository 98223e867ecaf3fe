"""The reencode job: chosen GOPs of a destination's archives coded again, in new versions of these archives.

`s2vc_ray.compress` with other sources (revisions, which a condition on the manifest names) and other steps. See
``docs/reencode.md``.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from s2vc_ray.compress import run_job
from s2vc_ray.config import JobConfig
from s2vc_ray.executor import Executor
from s2vc_ray.flow import Steps
from s2vc_ray.lanes import CodecLoader, load_s2vc
from s2vc_ray.progress import Reporter
from s2vc_ray.reencode_commit import finish_made, finish_revision
from s2vc_ray.reencode_plan import plan_revision
from s2vc_ray.reencode_select import select
from s2vc_ray.results import JobReport
from s2vc_ray.storage import Storage, open_storage

REENCODE = Steps(plan_revision, finish_revision, finish_made)


@dataclass(frozen=True, slots=True)
class Revised:
    """What would be done about one archive: its key, that of the version to be made, and the GOPs in question.

    ``frames`` and ``bytes`` are those GOPs', the latter of their payloads; ``q_min`` and ``q_max`` None where none is
    S2VC's.
    """

    archive: str
    version: str
    gops: tuple[int, ...]
    frames: int
    bytes: int
    q_min: int | None
    q_max: int | None


def reencode(
    destination: Storage | str,
    where: str,
    config: JobConfig,
    *,
    source_root: str | None = None,
    reporter: Reporter | None = None,
    load_codec: CodecLoader = load_s2vc,
    executor: Executor | None = None,
) -> JobReport:
    """Code the GOPs for which ``where`` holds again, and publish new versions of their archives.

    Args:
        destination: of a compress job.
        where: a condition on the table ``gops`` of `s2vc_ray.audit_tables`.
        config: how they are coded. What must be one for all GOPs of an archive is taken from the manifest: see
            `s2vc_ray.reencode_select.Selection.options`.
        source_root: folder, prefix or file where sources lie; None is where the manifest says.
        reporter, load_codec, executor: as `s2vc_ray.compress.compress`.

    Returns:
        As `compress`; sources without such GOPs are not in it.

    Raises:
        ObjectMissing: there is no manifest.
        ConfigError: the condition makes no sense, the archives were made with different options, or the job cannot
            start.
        S2vcError: the destination or the cluster is gone; what was done stays done.
    """
    storage = open_storage(destination) if isinstance(destination, str) else destination
    with select(storage, where, config, source_root) as chosen:
        return run_job(
            storage,
            replace(config, **chosen.options()),
            chosen.revisions,
            steps=REENCODE,
            where=where,
            reporter=reporter,
            load_codec=load_codec,
            executor=executor,
        )


def preview(destination: Storage | str, where: str, config: JobConfig) -> Iterator[Revised]:
    """What `reencode` would do, without looking at sources or changing anything. Raises as that."""
    storage = open_storage(destination) if isinstance(destination, str) else destination
    with select(storage, where, config) as chosen:
        chosen.options()
        for one in chosen:
            revision = one.revision
            yield Revised(
                revision.base,
                revision.archive_key,
                revision.gops,
                one.frames,
                one.bytes,
                one.q_min,
                one.q_max,
            )
