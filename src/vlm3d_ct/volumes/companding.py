"""HU in 8 bits: fine where tissues differ, coarse in bone and metal.

Four ranges, each cut into bins of one width; a bin is stored as its number and read back as its middle:

| HU | bin | largest error | what is there |
|---|---|---|---|
| -1024 to -201 | 8 | 4 | air, lung |
| -200 to 199 | 4 | 2 | fat, fluid, soft tissue, blood with contrast |
| 200 to 999 | 32 | 16 | calcification, bone |
| 1000 to 3071 | 80 | 40 | dense bone, metal |

The errors are those of `largest_errors`; a test holds this table to them.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Int16, UInt8

MIN_HU, MAX_HU = -1024, 3071
"""What is stored of a scan; 8-bit and 16-bit cases alike are limited to it."""
PIECES = ((-1024, 8), (-200, 4), (200, 32), (1000, 80))
"""(first HU, HU in a bin) of each range."""

_STARTS = np.concatenate(
    [np.arange(first, end, step) for (first, step), end in zip(PIECES, (-200, 200, 1000, MAX_HU + 1), strict=True)]
)
_ENDS = np.append(_STARTS[1:], MAX_HU + 1)
LEVELS_HU: Int16[np.ndarray, " levels"] = ((_STARTS + _ENDS) // 2).astype(np.int16)
"""What each code stands for, 254 levels."""
_CODES = np.repeat(np.arange(len(_STARTS), dtype=np.uint8), _ENDS - _STARTS)


def encode_hu(voxels_hu: Int16[np.ndarray, "..."]) -> UInt8[np.ndarray, "..."]:
    """The code of each value; they must lie within ``MIN_HU`` and ``MAX_HU``."""
    return np.take(_CODES, np.subtract(voxels_hu, MIN_HU, dtype=np.int16))


def decode_hu(codes: UInt8[np.ndarray, "..."]) -> Int16[np.ndarray, "..."]:
    """The middle of each code's bin, in HU.

    Raises:
        IndexError: a code beyond the table.
    """
    return np.take(LEVELS_HU, codes)


def largest_errors() -> tuple[tuple[int, int, int], ...]:
    """(first HU, last HU, largest error in HU) of each range, from the table itself."""
    values = np.arange(MIN_HU, MAX_HU + 1, dtype=np.int16)
    errors = np.abs(decode_hu(encode_hu(values)).astype(int) - values)
    ends = (*(first for first, _ in PIECES[1:]), MAX_HU + 1)
    return tuple(
        (first, end - 1, int(errors[first - MIN_HU : end - MIN_HU].max()))
        for (first, _), end in zip(PIECES, ends, strict=True)
    )


def describe_errors() -> str:
    """The largest errors in one line."""
    return ", ".join(f"{error} HU in {first}..{last}" for first, last, error in largest_errors())
