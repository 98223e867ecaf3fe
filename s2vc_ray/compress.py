"""The compress job: sources in, archives and manifest rows out. The CLI and ``jobs/`` call `compress`.

Brings up what a job needs (storage, executor, task pool), gives it to a `s2vc_ray.flow.Flow`, and takes it down.
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime

from s2vc_ray.bag import is_stale, write_bag
from s2vc_ray.config import JobConfig
from s2vc_ray.errors import ConfigError, StorageError
from s2vc_ray.executor import Executor, LocalExecutor
from s2vc_ray.flow import COMPRESS, Flow, Steps
from s2vc_ray.gc import abandoned
from s2vc_ray.progress import Reporter, Silent
from s2vc_ray.results import JobReport
from s2vc_ray.rows import JobContext
from s2vc_ray.sources import Source, iter_sources
from s2vc_ray.storage import Storage, open_storage
from s2vc_ray.survey import BAG
from s2vc_ray.tasks import TaskPool, ThreadTasks
from s2vc_ray.worker import CodecLoader, Worker, load_s2vc

_log = logging.getLogger(__name__)
_ABANDONED_SECONDS = 24 * 3600.0
"""A write that began longer ago belongs to a job that was killed."""


def compress(
    sources: Sequence[str],
    destination: str,
    config: JobConfig,
    *,
    reporter: Reporter | None = None,
    load_codec: CodecLoader = load_s2vc,
    executor: Executor | None = None,
) -> JobReport:
    """Compress everything ``sources`` name into archives under ``destination``.

    Args:
        sources: see `s2vc_ray.sources.iter_sources`. They are only read.
        destination: a folder or ``s3://`` prefix; see `s2vc_ray.storage.open_storage`.
        config: the job.
        reporter: told what happens as it happens.
        load_codec: where workers get their codec.
        executor: where batches run; None makes the one that ``config`` names.

    Returns:
        Sums over the sources, and one result for each of the first, failures included.

    Raises:
        ConfigError: the job cannot start: bad sources, destination, model or cluster.
        S2vcError: the destination or the cluster is gone; what was done stays done.
    """

    def listing() -> Iterator[Source]:
        return iter_sources(sources)

    # What is wrong with an argument shows before anything is started.
    listing()
    storage = open_storage(destination)
    return run_job(storage, config, listing, reporter=reporter, load_codec=load_codec, executor=executor)


def run_job(
    storage: Storage,
    config: JobConfig,
    listing: Callable[[], Iterator[Source]],
    *,
    steps: Steps = COMPRESS,
    where: str = "",
    reporter: Reporter | None = None,
    load_codec: CodecLoader = load_s2vc,
    executor: Executor | None = None,
) -> JobReport:
    """Bring up what a job needs, run it, and take that down.

    Args:
        listing: lists the sources; see `s2vc_ray.flow.Flow`.
        steps: what is done about each.
        where: see `JobContext`.
        reporter, load_codec, executor: as `compress`.

    Raises:
        As `compress`.
    """
    executor = executor or make_executor(storage.uri, config, load_codec)
    try:
        codec = executor.start()
        for write in abandoned(storage, storage.now() - _ABANDONED_SECONDS):
            storage.discard(write)
        created = datetime.now(UTC)
        name = f"{created:%Y%m%dT%H%M%SZ}-{secrets.token_hex(3)}"
        job = JobContext(name, created, config, codec, where)
        tasks = make_tasks(config)
        try:
            batch = config.batch_on(codec.device)
            report = Flow(job, listing, storage, executor, tasks, reporter or Silent(), batch, steps).run()
        finally:
            tasks.close()
    finally:
        executor.close()
    done = report.totals
    if done.ok or done.partial or is_stale(storage):
        _renew_bag(storage)
    return report


def _renew_bag(storage: Storage) -> None:
    """Every video is published and described by now: what is wrong with the list of them is no failure of the job."""
    try:
        unreadable = write_bag(storage).unreadable
    except StorageError as error:
        _log.warning("%s was not renewed: %s: run s2vc bag %s", BAG, error, storage.uri)
    else:
        for part in unreadable:
            _log.warning("%s leaves out a manifest part that cannot be read: %s", BAG, part)


def make_tasks(config: JobConfig) -> TaskPool:
    """Where planning and committing run: in processes of Ray's, or, with the local executor, in this one."""
    if config.executor == "local":
        return ThreadTasks()
    from s2vc_ray.ray_tasks import RayTasks

    return RayTasks()


def make_executor(destination: str, config: JobConfig, load_codec: CodecLoader = load_s2vc) -> Executor:
    """The executor that ``config`` names. Ray is imported only for its own."""
    if config.executor == "local":
        return LocalExecutor(
            lambda: Worker(destination, config, threads=config.threads or 1, load_codec=load_codec)
        )
    try:
        from s2vc_ray.ray_executor import RayExecutor
    except ImportError as error:
        raise ConfigError(
            f"executor 'ray' needs Ray ({error}): pip install 'ray', or use --executor local"
        ) from error
    return RayExecutor(destination, config, load_codec)
