"""Time and memory of a step: what `step_time.py` measures and shows."""
