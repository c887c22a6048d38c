"""Retrieval between scans and reports: measured against chance, written down, shown on a page."""

from vlm3d_ct.evaluation.evaluate import evaluate_retrieval
from vlm3d_ct.evaluation.examples import Example, choose_examples
from vlm3d_ct.evaluation.regions import RegionAlignment, region_alignment_accuracy
from vlm3d_ct.evaluation.results import format_table
from vlm3d_ct.evaluation.retrieval import RetrievalResult, measure_retrieval, retrieval_metrics

__all__ = [
    "Example",
    "RegionAlignment",
    "RetrievalResult",
    "choose_examples",
    "evaluate_retrieval",
    "format_table",
    "measure_retrieval",
    "region_alignment_accuracy",
    "retrieval_metrics",
]
