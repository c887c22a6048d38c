"""The command `vlm3d-ct`."""
