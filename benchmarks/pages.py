"""How the pages in `benchmarks/results` are named: by theme, hardware and month."""

from __future__ import annotations

import os
import platform
import re
from datetime import datetime
from pathlib import Path

import torch

RESULTS = Path(__file__).parent / "results"


def hardware_name() -> str:
    """The GPU, or else the processor with the number of its cores."""
    if torch.cuda.is_available():
        return str(torch.cuda.get_device_name())
    return processor_name()


def processor_name() -> str:
    """The processor with the number of its cores."""
    cpuinfo = Path("/proc/cpuinfo")
    text = cpuinfo.read_text(encoding="utf-8", errors="replace") if cpuinfo.exists() else ""
    match = re.search(r"^model name\s*:\s*(.+)$", text, re.MULTILINE)
    processor = match[1].strip() if match else platform.processor() or platform.machine()
    return f"{processor} {os.cpu_count()} cores"


def result_path(directory: Path, theme: str, hardware: str, day: datetime) -> Path:
    """``<theme>_<hardware>_<yyyymm>.md``."""
    slug = re.sub(r"[^a-z0-9]+", "_", hardware.lower()).strip("_")
    return directory / f"{theme}_{slug}_{day:%Y%m}.md"
