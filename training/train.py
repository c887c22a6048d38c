"""The plan's training command; the same as `vlm3d-ct train`."""

import sys

from vlm3d_ct.cli.main import run

if __name__ == "__main__":
    sys.exit(run(["train", *sys.argv[1:]]))
