"""``python -m s2vc_model.metrics.weights``: fetch the learned metrics' weights into the cache, once.

Apart from ``weight_store``, because a module that its package imports cannot be run without a warning.
"""

from __future__ import annotations

import sys

from s2vc_model.errors import WeightsError
from s2vc_model.metrics.weight_store import fetch


def main() -> int:
    """Fetch the weights and print where they are."""
    try:
        path = fetch()
    except WeightsError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"metric weights: {path} ({path.stat().st_size / 1e6:.1f} MB)")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
