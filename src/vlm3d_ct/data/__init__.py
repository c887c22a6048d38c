"""Cases on disk: finding, verifying, preparing, loading them."""
