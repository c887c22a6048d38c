"""Whole sentences side by side in short rows, where no sentence sees another."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Integer
from torch import Tensor

ROW = 64
"""Slots of a row, unless a sentence is longer: a token's attention costs as much as its row is long."""
OPEN_ROWS = 8
"""Rows that a sentence is tried in before a new one begins."""
Run = tuple[int, int]
"""First token, by its index among all tokens of a batch, and number of tokens of a sentence."""


@dataclass
class SentenceRows:
    """Where the tokens of a batch of texts stand in rows of whole sentences.

    Attributes:
        source: index of each slot's token among all tokens of the texts, row after row; 0 in a free slot.
        sentence: tells the sentences of a row apart, from 1; 0 in a free slot.
        place: of the token in its sentence, from 0.
        texts: of the batch.
        length: tokens of a text.
    """

    source: Integer[Tensor, "p l"]
    sentence: Integer[Tensor, "p l"]
    place: Integer[Tensor, "p l"]
    texts: int
    length: int

    def attention_bias(self) -> Float[Tensor, "p 1 l l"]:
        """0 between slots of one sentence (or free ones), else so low a number that no weight is left in any format."""
        same = self.sentence[:, None, :, None] == self.sentence[:, None, None, :]
        return torch.zeros(same.shape, device=same.device).masked_fill_(~same, torch.finfo(torch.float16).min)

    def gather(self, tokens: Integer[Tensor, "b t"]) -> Integer[Tensor, "p l"]:
        """The texts' tokens in their rows; the very first one in free slots."""
        return tokens.flatten()[self.source]

    def spread(self, rows: Float[Tensor, "p l width"]) -> Float[Tensor, "b t width"]:
        """Features of the rows' tokens at their places in the texts; 0 for tokens that stand in no row."""
        taken = self.sentence > 0
        spread = rows.new_zeros(self.texts * self.length, rows.shape[-1])
        return spread.index_put((self.source[taken],), rows[taken]).view(self.texts, self.length, -1)


def sentence_rows(numbers: Integer[Tensor, "b t"]) -> SentenceRows:
    """Lay the sentences of a batch of texts out in rows, in their order, each in the first row with room for it.

    Args:
        numbers: the sentence of each token, tokens side by side with one number being a sentence; tokens of number 0
            are left out.
    """
    runs = _runs(numbers.tolist())
    width = max([ROW, *(count for _, count in runs)])
    rows = _fill(runs, width) or [[]]
    laid: list[list[list[int]]] = [[], [], []]
    for row in rows:
        free = [0] * (width - sum(count for _, count in row))
        laid[0].append([first + i for first, count in row for i in range(count)] + free)
        laid[1].append([number for number, (_, count) in enumerate(row, 1) for _ in range(count)] + free)
        laid[2].append([i for _, count in row for i in range(count)] + free)
    source, sentence, place = torch.tensor(laid, device=numbers.device)
    return SentenceRows(source, sentence, place, *numbers.shape)


def _runs(numbers: list[list[int]]) -> list[Run]:
    runs = []
    for text, row in enumerate(numbers):
        start = 0
        for end in range(1, len(row) + 1):
            if end == len(row) or row[end] != row[start]:
                if row[start]:
                    runs.append((text * len(row) + start, end - start))
                start = end
    return runs


def _fill(runs: list[Run], width: int) -> list[list[Run]]:
    rows: list[list[Run]] = []
    room: list[int] = []
    for run in runs:
        first_open = max(0, len(rows) - OPEN_ROWS)
        fitting = (i for i in range(first_open, len(rows)) if room[i] >= run[1])
        chosen = next(fitting, len(rows))
        if chosen == len(rows):
            rows.append([])
            room.append(width)
        rows[chosen].append(run)
        room[chosen] -= run[1]
    return rows
