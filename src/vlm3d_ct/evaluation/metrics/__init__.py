"""Metrics: pure functions on arrays that know no files and no torch.

What every one of them returns, what it is not, and where its formula comes from stands at the function. None repairs
its input: what is undefined is NaN, what the caller got wrong is a ValueError.
"""
