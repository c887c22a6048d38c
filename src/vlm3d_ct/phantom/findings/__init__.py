"""The abnormalities that a phantom can have: where they are placed and how they are painted."""
