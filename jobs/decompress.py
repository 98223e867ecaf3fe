"""The command ``s2vc decompress`` as a job: ``ray job submit -- python -m jobs.decompress ARCHIVE OUT``."""

from __future__ import annotations

import sys

from s2vc_ray.cli import main

if __name__ == "__main__":
    main(["decompress", *sys.argv[1:]])
