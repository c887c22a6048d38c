"""The audit of a data folder: every file read once as training reads it, every fault listed, the odd cases shown."""
