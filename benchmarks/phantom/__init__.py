"""What `benchmarks/phantom_figures.py` measures of the phantoms: one module for each group of figures."""
