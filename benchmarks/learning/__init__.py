"""What `compare_variants.py` is made of: the variants, and how one is trained and evaluated."""
