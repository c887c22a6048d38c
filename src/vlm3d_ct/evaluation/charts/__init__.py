"""Charts as PNG data URIs for `page.Picture`: each function draws one picture and knows no files.

rank_histogram(volume_to_text, text_to_volume, one_right_item=True)
training_curves(log)
interval_bars({"nodule": Interval(...)}, label="AUROC", chance=0.5)
interval_curves({"linear": [(0.01, Interval(...)), (1.0, Interval(...))]}, x_label=..., y_label=..., log_x=True)
reliability_diagram(mean_probability, share_positive, count)
matrix_picture(shares, row_names, column_names, row_label=..., column_label=...)
health_picture(volume, text)
"""

from vlm3d_ct.evaluation.charts.calibration import reliability_diagram
from vlm3d_ct.evaluation.charts.health import health_picture
from vlm3d_ct.evaluation.charts.intervals import interval_bars, interval_curves
from vlm3d_ct.evaluation.charts.matrix import matrix_picture
from vlm3d_ct.evaluation.charts.ranks import rank_histogram
from vlm3d_ct.evaluation.charts.training import training_curves

__all__ = [
    "health_picture",
    "interval_bars",
    "interval_curves",
    "matrix_picture",
    "rank_histogram",
    "reliability_diagram",
    "training_curves",
]
