"""The plan's training command; the same as `vlm3d-ct train`."""

from vlm3d_ct.cli.main import entry

if __name__ == "__main__":
    entry(["train"])
