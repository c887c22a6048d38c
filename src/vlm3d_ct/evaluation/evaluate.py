"""The retrieval evaluation from embeddings to files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from vlm3d_ct.config.schema import WINDOW_PRESETS
from vlm3d_ct.embeddings import EmbeddingSet
from vlm3d_ct.evaluation.examples import Example
from vlm3d_ct.evaluation.metrics_log import read_metrics
from vlm3d_ct.evaluation.report import ReportWriter
from vlm3d_ct.evaluation.results import write_results, write_text
from vlm3d_ct.evaluation.retrieval import RetrievalResult, measure_retrieval

REPORT_FILE = "report.html"


def evaluate_retrieval(
    embeddings: EmbeddingSet,
    *,
    pool_name: str,
    output_dir: Path,
    examples: Sequence[Example],
    metrics_logs: Sequence[tuple[str, Path]],
    left_out: Mapping[str, int],
    region_names: Sequence[str],
    window_hu: tuple[float, float] = WINDOW_PRESETS["plan"],
) -> RetrievalResult:
    """Measure a pool and write ``results.json``, ``pool_cases.txt``, ``ranks.csv`` and ``report.html``.

    The result counts the own index only. Where texts repeat, the report also shows the measure that accepts identical
    texts. ``examples`` are the cases that `choose_examples` named, ``metrics_logs`` are stages of training with their
    logs, ``left_out`` counts the cases outside the pool by reason. The numbers are on disk before the report is drawn.

    Raises:
        DataError: the pool is empty, or a metrics log cannot be read.
        ValueError: an example is not in the pool.
    """
    if strangers := {example.case_id for example in examples} - set(embeddings.case_ids):
        raise ValueError(f"examples that are not in the pool: {sorted(strangers)}")
    result = measure_retrieval(embeddings)
    write_results(
        output_dir,
        result=result,
        case_ids=embeddings.case_ids,
        pool_name=pool_name,
        left_out=left_out,
        provenance=embeddings.provenance,
    )
    results = [result]
    if result.num_shared_texts:
        results.append(measure_retrieval(embeddings, duplicates="group"))
    report = ReportWriter(
        pool_name=pool_name,
        embeddings=embeddings,
        results=results,
        examples=examples,
        logs=[read_metrics(name, path) for name, path in metrics_logs],
        left_out=left_out,
        window_hu=window_hu,
        region_names=region_names,
    )
    write_text(output_dir / REPORT_FILE, report.render())
    return result
