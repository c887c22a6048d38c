"""Report knowledge: regions, sentences, what they mention, and tokens."""
