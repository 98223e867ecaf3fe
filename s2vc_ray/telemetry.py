"""Everything that watches a job, from the options of a command: terminal, log and metrics behind one `Reporter`.

    options = TelemetryOptions(log="job.log", metrics_port=9108)
    with Telemetry(options, Console(stderr=True)) as telemetry:
        report = compress(sources, destination, config, reporter=telemetry)
    print(json.dumps(asdict(telemetry.summary())))

Knows how the parts fit together and nothing of what they show.
"""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass, field
from types import TracebackType

from rich.console import Console

from s2vc_ray import counters
from s2vc_ray.cost import Prices
from s2vc_ray.errors import ConfigError
from s2vc_ray.events import EventLog
from s2vc_ray.job_meter import JobMeter
from s2vc_ray.progress import Fanout, Live, Plain, Reporter
from s2vc_ray.summary import Summary, sum_up


@dataclass(frozen=True, slots=True)
class TelemetryOptions:
    """How a job is to be watched, validated on construction.

    Attributes:
        quiet: nothing for people, as with ``--json``.
        log: a file for JSON lines, ``-`` for standard error in place of what people read there; None for neither.
        log_level: the least that is logged.
        metrics_port: where Prometheus may scrape; 0 takes a free port, None serves nothing.
        metrics_host: the address to listen on.
        prices: for the figures at the end.
    """

    quiet: bool = False
    log: str | None = None
    log_level: str = "info"
    metrics_port: int | None = None
    metrics_host: str = "127.0.0.1"
    prices: Prices = field(default_factory=Prices)

    def __post_init__(self) -> None:
        if self.metrics_port is not None and not 0 <= self.metrics_port <= 65535:
            raise ConfigError(f"metrics port is {self.metrics_port}: give a number from 0 to 65535")


class Telemetry(Fanout):
    """The `Reporter` of a command; use it as a context, which opens and closes what it writes to.

    Raises:
        ConfigError: on construction: the log cannot be written, or the port is taken.
    """

    def __init__(self, options: TelemetryOptions, console: Console) -> None:
        self._options = options
        self._log: EventLog | None = None
        with ExitStack() as stack:
            self.meter, view = _view(options, console, stack)
            reporters = [view]
            if options.log is not None:
                self._log = EventLog(options.log, options.log_level)
                stack.callback(self._log.close)
                reporters.append(self._log)
            self.metrics_port: int | None = None
            if options.metrics_port is not None:
                # Only who asks for metrics pays for the import.
                from s2vc_ray.prometheus import MetricsServer

                server = MetricsServer(self.meter, options.metrics_port, options.metrics_host)
                self.metrics_port = stack.enter_context(server).port
            super().__init__(*reporters)
            self._stack = stack.pop_all()

    def summary(self) -> Summary:
        """The figures of the run so far."""
        return sum_up(self.meter.read(), counters.snapshot(), self._options.prices)

    def __enter__(self) -> Telemetry:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None and self._log is not None:
            self._log.broken_off(error)
        self._stack.close()


def _view(options: TelemetryOptions, console: Console, stack: ExitStack) -> tuple[JobMeter, Reporter]:
    """Who counts, and who is told first: a view counts what it shows, and without one the meter is enough."""
    if options.quiet or options.log == "-":
        meter = JobMeter()
        return meter, meter
    view = Live(console, options.prices) if console.is_terminal else Plain(console, options.prices)
    stack.callback(view.close)
    return view.meter, view
