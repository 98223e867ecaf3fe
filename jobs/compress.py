"""The command ``s2vc compress`` as a job: ``ray job submit -- python -m jobs.compress SRC... DST``."""

from __future__ import annotations

import sys

from s2vc_ray.cli import main

if __name__ == "__main__":
    main(["compress", *sys.argv[1:]])
