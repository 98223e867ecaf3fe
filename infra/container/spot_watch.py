"""On a spot machine without an orchestrator: wait for the cloud's notice, then drain this Ray node.

`ray up` starts it beside each worker. On Kubernetes the node's own termination handler does this, through the
preStop hook. Knows the two clouds' metadata services, which answer on a link-local address of the machine.
"""

from __future__ import annotations

import argparse
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable

from drain_node import drain

_METADATA = "http://169.254.169.254"
_TIMEOUT = 2.0
_TOKEN_SECONDS = 300


def aws_notice(base: str) -> bool:
    """Whether EC2 has announced that it will take this machine back (IMDSv2; 404 until then)."""
    lifetime = {"X-aws-ec2-metadata-token-ttl-seconds": str(_TOKEN_SECONDS)}
    token = _ask(f"{base}/latest/api/token", lifetime, "PUT")
    header = {"X-aws-ec2-metadata-token": token or ""}
    return _ask(f"{base}/latest/meta-data/spot/instance-action", header) is not None


def gcp_notice(base: str) -> bool:
    """Whether Compute Engine is preempting this machine (TRUE from then on)."""
    url = f"{base}/computeMetadata/v1/instance/preempted"
    return _ask(url, {"Metadata-Flavor": "Google"}) == "TRUE"


NOTICES: dict[str, Callable[[str], bool]] = {"aws": aws_notice, "gcp": gcp_notice}
GRACE_SECONDS = {"aws": 110, "gcp": 25}
"""What remains after a notice: two minutes on EC2, half a minute on Compute Engine, less a few seconds."""


def watch(cloud: str, base: str, every: float) -> int:
    """Drain this node when the notice comes. Returns what `drain` does."""
    while not NOTICES[cloud](base):
        time.sleep(every)
    print("spot_watch: this machine is being taken back; draining its Ray node", file=sys.stderr, flush=True)
    return drain(GRACE_SECONDS[cloud], f"spot notice from {cloud}")


def main(arguments: list[str] | None = None) -> int:
    """Watch until the notice comes."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("cloud", choices=sorted(NOTICES))
    parser.add_argument("--every", type=float, default=5.0, help="seconds between questions")
    parser.add_argument("--metadata", default=_METADATA, help="where the metadata service answers")
    options = parser.parse_args(arguments)
    return watch(options.cloud, options.metadata, options.every)


def _ask(url: str, headers: dict[str, str], method: str = "GET") -> str | None:
    """The answer's text; None when there is none to be had now, which is no notice."""
    request = urllib.request.Request(url, headers=headers, method=method)  # noqa: S310
    try:
        with urllib.request.urlopen(request, timeout=_TIMEOUT) as answer:  # noqa: S310
            text: str = answer.read().decode()
            return text.strip()
    except (urllib.error.URLError, TimeoutError, OSError):
        return None


if __name__ == "__main__":
    raise SystemExit(main())
