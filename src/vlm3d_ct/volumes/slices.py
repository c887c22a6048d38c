"""Reading a 2D case: a slice with its neighbours, exported as grey JPEG, and its lesion masks."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image, UnidentifiedImageError

from vlm3d_ct.errors import DataError, Problem
from vlm3d_ct.volumes.faults import fault

MAX_SIDE = 4096
"""Largest accepted width and height of a slice."""
HALF_WHITE = 128
_FORMATS = ("JPEG", "PNG")
_MODES = {"1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr"}
"""Pillow's names for 8 bits a channel, and 1."""
_COPY_AGAIN = "Export or copy the image again."


@dataclass(frozen=True, kw_only=True)
class SliceStack:
    """A slice between its neighbours.

    Attributes:
        grey: 0..255 as exported (a window chosen by whoever exported it, not HU), feet to head.
        lesion: 0 or 1, the lesion on the key slice; None where there is no mask.
    """

    grey: UInt8[np.ndarray, "s y x"]
    lesion: UInt8[np.ndarray, "y x"] | None


def read_slices(image_paths: Sequence[Path]) -> UInt8[np.ndarray, "s y x"]:
    """Read slices as grey values 0..255, in the order given; a path may occur more than once.

    Raises:
        DataError: an image is missing, damaged, too large, uniform, or not of the first one's shape.
    """
    read = {path: _read_grey(path) for path in dict.fromkeys(image_paths)}
    first = read[image_paths[0]]
    for path, grey in read.items():
        if grey.shape != first.shape:
            value = f"{grey.shape[1]}x{grey.shape[0]} for {first.shape[1]}x{first.shape[0]}"
            message = "Slices of one case must have one size."
            raise fault("slice-shape", path, "size", value, message, "Export all slices of the case alike.")
        if grey.min() == grey.max():
            value = str(int(grey.min()))
            raise fault("constant", path, "pixels", value, "All pixels are equal: there is no scan.", _COPY_AGAIN)
    return np.stack([read[path] for path in image_paths])


def read_lesion_masks(paths: Sequence[Path], like: UInt8[np.ndarray, "s y x"]) -> UInt8[np.ndarray, "y x"]:
    """Read the lesion masks of one image as one: 1 where any of them is at least half white, 0 elsewhere.

    JPEG blurs a mask, so half of 255 is its border. A mask of one dark grey says that there is no lesion.

    Raises:
        DataError: with every problem of the masks: missing, damaged, not of the shape of the slices ``like``, or grey
            everywhere but nowhere half white, as where classes are numbered 1, 2, 3.
    """
    lesion = np.zeros(like.shape[1:], dtype=np.uint8)
    problems: list[Problem] = []
    for path in paths:
        try:
            np.maximum(lesion, _read_lesion(path, like), out=lesion)
        except DataError as error:
            problems += error.problems
    if problems:
        raise DataError(problems)
    return lesion


def _read_lesion(path: Path, like: UInt8[np.ndarray, "s y x"]) -> UInt8[np.ndarray, "y x"]:
    grey = _read_grey(path)
    if grey.shape != like.shape[1:]:
        value = f"{grey.shape[1]}x{grey.shape[0]} for {like.shape[2]}x{like.shape[1]}"
        message = "The mask is not of its slice's size."
        raise fault("mask-shape", path, "size", value, message, "Make the mask again from this very slice.")
    least, greatest = int(grey.min()), int(grey.max())
    if least < greatest < HALF_WHITE:
        message = f"A lesion is white (at least {HALF_WHITE} of 255); nothing in this mask is."
        remedy = "Write 255 where a lesion is and 0 elsewhere."
        raise fault("lesion-scale", path, "pixels", f"{least}..{greatest}", message, remedy)
    return (grey >= HALF_WHITE).astype(np.uint8)


def _read_grey(path: Path) -> UInt8[np.ndarray, "y x"]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path, formats=_FORMATS) as image:
                width, height = image.size
                mode = image.mode
                if max(width, height) <= MAX_SIDE and mode in _MODES:
                    return np.asarray(image.convert("L"))
    except FileNotFoundError:
        remedy = "Put the file there or remove its entry."
        raise fault("missing-file", path, "file", "absent", "The file does not exist.", remedy) from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise fault(
            "image-bomb", path, "size", "too large", "No slice is that large.", "Do not use this file."
        ) from None
    except UnidentifiedImageError:
        raise fault("not-an-image", path, "file", "no JPEG or PNG", "This is no image.", _COPY_AGAIN) from None
    except (OSError, SyntaxError, ValueError) as error:  # Pillow reports damage by any of these
        raise fault("damaged-image", path, "file", str(error), "The image is damaged.", _COPY_AGAIN) from None
    if mode not in _MODES:  # Pillow would clip 16 bits to white
        message = "The image has not 8 bits a pixel, so which grey its values stand for is not known."
        remedy = "Export the slice as 8-bit grey, in a window of your choice."
        raise fault("image-depth", path, "mode", mode, message, remedy)
    raise fault("image-bomb", path, "size", f"{width}x{height}", "No slice is that large.", "Do not use this file.")
