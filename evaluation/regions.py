"""The plan's evaluation command; the same as `vlm3d-ct evaluate regions`."""

import sys

from vlm3d_ct.cli.main import run

if __name__ == "__main__":
    sys.exit(run(["evaluate", "regions", *sys.argv[1:]]))
