"""Time and memory of a training step at the plan's size, for each attention, depth, batch and way to recompute.

    python benchmarks/step_time.py                  # about 16 minutes on 2 cores
    python benchmarks/step_time.py --only dense --repetitions 3

Needs no data, no network and no BioBERT (a BERT of its size with random weights stands in). Runs on the GPU where there
is one, else on the CPU, in bf16 unless asked otherwise. Writes benchmarks/results/step_time_<hardware>_<yyyymm>.md, and
beside it the same as JSON for `epoch_time.py`.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

import torch
from pages import RESULTS, hardware_name, result_path
from speed.cases import NO_DROPOUT, cases_for
from speed.clock import matrix_peak
from speed.measure import DTYPES, Row, measure_apart
from speed.page import render
from speed.parts import Part, profile_parts
from speed.texts import text_seconds

from vlm3d_ct.config import Config, config_from_mapping, config_to_mapping

REPETITIONS = {"cpu": 1, "cuda": 10}


def biobert_json() -> str:
    """The configuration of a BERT of BioBERT's size."""
    from transformers import BertConfig  # slow import

    return json.dumps(BertConfig(vocab_size=28996).to_dict())


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--precision", choices=["bf16", "fp16", "fp32"], default="bf16")
    parser.add_argument("--repetitions", type=int, metavar="N", help="of every case (default: 1 on a CPU, 10 on a GPU)")
    parser.add_argument("--only", nargs="+", metavar="WORDS", default=[""], help="cases whose names hold one of these")
    parser.add_argument("--no_parts", action="store_true", help="leave out where the time goes")
    parser.add_argument("--results", type=Path, default=RESULTS, metavar="DIR", help="where the page is written")
    parser.add_argument("--set", nargs="+", default=[], metavar="KEY=VALUE", help="settings of the base, for a trial")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str]) -> None:
    """Measure, print and write."""
    parsed = parse(arguments)
    device, precision = torch.device(parsed.device), parsed.precision
    repetitions = parsed.repetitions or REPETITIONS[parsed.device]
    base = config_from_mapping({}, source="the plan", overrides=[f"training.precision={precision}", *parsed.set])
    bert = biobert_json()
    peak = matrix_peak(device, DTYPES[precision])
    rows: list[Row] = []
    for case in cases_for(parsed.device, precision):
        if any(words in case.name for words in parsed.only):
            rows.append(measure_apart(case, base, bert, parsed.device, repetitions))
            row = rows[-1]
            said = f"{sum(row.seconds):.3g} s, {row.gib:.2f} GiB" if row.seconds else "did not fit"
            print(f"{case.name}: {said}", flush=True)
            write(rows, [], {}, base, parsed, peak)
    parts: list[Part] = []
    texts: dict[str, float] = {}
    if not parsed.no_parts:
        dropout = NO_DROPOUT if parsed.device == "cpu" else ()
        config = config_from_mapping(config_to_mapping(base), source="the plan", overrides=dropout)
        batch = 1 if parsed.device == "cpu" else 8
        parts = profile_parts(config, bert, batch, parsed.device, repetitions)
        texts = text_seconds(config, bert, batch, parsed.device, repetitions)
    print(f"\n{write(rows, parts, texts, base, parsed, peak)}")


def write(
    rows: Sequence[Row],
    parts: Sequence[Part],
    texts: Mapping[str, float],
    base: Config,
    parsed: argparse.Namespace,
    peak: float,
) -> str:
    """The page and its figures, as far as there are any; returns the page."""
    hardware, day = hardware_name(), datetime.now(UTC)
    about = {"hardware": hardware, "device": parsed.device, "precision": parsed.precision, "peak": peak}
    repetitions = parsed.repetitions or REPETITIONS[parsed.device]
    text = render(rows, parts, texts, base=base, day=day, repetitions=repetitions, **about)
    path = result_path(parsed.results, "step_time", hardware, day)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    figures = {**about, "rows": [asdict(row) for row in rows]}
    path.with_suffix(".json").write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    return text


if __name__ == "__main__":
    main(sys.argv[1:])
