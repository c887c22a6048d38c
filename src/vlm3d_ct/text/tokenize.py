"""Turns reports into token arrays, with the tokens that speak of each region."""

from __future__ import annotations

import string
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool, Int64
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

from vlm3d_ct.errors import ConfigError
from vlm3d_ct.text.mentions import SentenceMentions, find_mentions
from vlm3d_ct.text.opposite import opposite
from vlm3d_ct.text.regions import RegionTable
from vlm3d_ct.text.report import Report, Step
from vlm3d_ct.text.steps import MOST_STEPS, EncodedSteps, encode_steps, number_sentences, text_group

SPECIAL_TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
NOT_MENTIONED = 0
"""Region group of a region that the report does not speak of."""


@dataclass(frozen=True, kw_only=True, eq=False)
class EncodedReport:
    """A report as tokens ``[CLS] question [SEP] answer [SEP]``; without the first part where there is no question.

    Attributes:
        input_ids: token ids.
        token_type_ids: 1 for the answer of a pair and its ``[SEP]``, else 0.
        region_tokens: row ``id - 1`` marks the answer's tokens whose sentence mentions region ``id``.
        region_mentions: whether the region has at least one such token.
        region_groups: `NOT_MENTIONED`, else a hash of the sentences about the region: equal for equal sentences,
            negative where all of them state only normality. See `objectives.region_loss` for their use.
        text_group: positive hash of the answer; equal for texts that differ only in case and white space.
        steps: the answer's sentences; ``of_token`` runs along ``input_ids``.
        opposite_ids: tokens of the sentences' opposites, ``[CLS] ... [SEP]``; none at all (o = 0) where the tokenizer
            was not asked for them.
        opposite_steps: the sentence whose opposite each of these tokens belongs to, from 1; 0 for none.
    """

    input_ids: Int64[np.ndarray, " t"]
    token_type_ids: Int64[np.ndarray, " t"]
    region_tokens: Bool[np.ndarray, "r t"]
    region_mentions: Bool[np.ndarray, " r"]
    region_groups: Int64[np.ndarray, " r"]
    text_group: int
    steps: EncodedSteps
    opposite_ids: Int64[np.ndarray, " o"]
    opposite_steps: Int64[np.ndarray, " o"]


@dataclass(frozen=True, kw_only=True, eq=False)
class EncodedReports:
    """A batch of `EncodedReport`, padded at the end to the longest; ``attention_mask`` is 1 for real tokens.

    Every text has room for `text.steps.MOST_STEPS` steps, so that all ranks' tables are of one shape.
    """

    input_ids: Int64[np.ndarray, "b t"]
    attention_mask: Int64[np.ndarray, "b t"]
    token_type_ids: Int64[np.ndarray, "b t"]
    region_tokens: Bool[np.ndarray, "b r t"]
    region_mentions: Bool[np.ndarray, "b r"]
    region_groups: Int64[np.ndarray, "b r"]
    text_groups: Int64[np.ndarray, " b"]
    token_steps: Int64[np.ndarray, "b t"]
    step_regions: Bool[np.ndarray, "b s r"]
    step_groups: Int64[np.ndarray, "b s"]
    step_places: Int64[np.ndarray, "b s"]
    opposite_ids: Int64[np.ndarray, "b o"]
    opposite_mask: Int64[np.ndarray, "b o"]
    opposite_steps: Int64[np.ndarray, "b o"]


class ReportTokenizer:
    """A BERT tokenizer that knows which tokens speak of which region.

    Texts longer than ``max_len`` tokens lose their ends: the question what exceeds half of the room (or what the
    answer leaves, if that is more), the answer what is left then. The special tokens always stay.
    """

    def __init__(self, tokenizer_json: str, max_len: int, opposites: bool = False):
        """Build from the JSON of a Hugging Face fast tokenizer.

        Args:
            tokenizer_json: the tokenizer.
            max_len: tokens of a text.
            opposites: whether reports get the opposites of their sentences, too (see `text.opposite`).

        Raises:
            ConfigError: the JSON is not a tokenizer, lacks BERT's special tokens, or ``max_len`` is below 8.
        """
        try:
            self._tokenizer = Tokenizer.from_str(tokenizer_json)
        except Exception as error:  # tokenizers raises nothing narrower
            raise ConfigError(f"The tokenizer cannot be read: {error}") from error
        missing = [token for token in SPECIAL_TOKENS[:4] if self._tokenizer.token_to_id(token) is None]
        if missing:
            raise ConfigError(f"The tokenizer has no {', '.join(missing)}; a BERT tokenizer is needed.")
        if max_len < 8:
            raise ConfigError(f"text.max_len is {max_len}; at least 8 tokens are needed.")
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        self.max_len, self.opposites = max_len, opposites
        vocabulary = self._tokenizer.get_vocab(with_added_tokens=True)
        self.pad_id, self._cls, self._sep = (vocabulary[token] for token in ("[PAD]", "[CLS]", "[SEP]"))

    @property
    def vocabulary_size(self) -> int:
        """Rows that an embedding table needs."""
        return 1 + int(max(self._tokenizer.get_vocab(with_added_tokens=True).values()))

    def to_json(self) -> str:
        """The tokenizer as JSON, for a checkpoint."""
        return str(self._tokenizer.to_str())

    def decode(self, token_ids: Sequence[int]) -> str:
        """The text of the tokens, special tokens left out."""
        return str(self._tokenizer.decode(list(token_ids), skip_special_tokens=True))

    def encode(self, report: Report, table: RegionTable) -> EncodedReport:
        """Question and answer of a report as a pair."""
        return self._encode(report.question, report.answer, table, report.steps)

    def encode_text(self, text: str, table: RegionTable | None = None) -> EncodedReport:
        """A plain text, such as a prompt, on the same path; without a table it has no regions (r = 0)."""
        return self._encode("", text, table, ())

    def _encode(self, question: str, answer: str, table: RegionTable | None, steps: Sequence[Step]) -> EncodedReport:
        question_ids = self._tokenizer.encode(question, add_special_tokens=False).ids
        encoding = self._tokenizer.encode(answer, add_special_tokens=False)
        room = self.max_len - (3 if question_ids else 2)
        question_ids = question_ids[: max(room // 2, room - len(encoding.ids))]
        answer_ids = encoding.ids[: room - len(question_ids)]
        spans = np.array(encoding.offsets[: len(answer_ids)], np.int64).reshape(-1, 2)
        head = [self._cls, *question_ids, self._sep] if question_ids else [self._cls]
        input_ids = np.array([*head, *answer_ids, self._sep], np.int64)
        token_type_ids = np.zeros_like(input_ids)
        if question_ids:
            token_type_ids[len(head) :] = 1
        sentences = find_mentions(answer, table) if table else ()
        answer_tokens, groups = _region_tokens(answer, spans, sentences, table.num_regions if table else 0)
        said = encode_steps(answer, sentences, spans, steps, table) if table else number_sentences(answer, spans)
        region_tokens = np.zeros((len(groups), len(input_ids)), np.bool_)
        token_steps = np.zeros(len(input_ids), np.int64)
        for whole, part in ((region_tokens, answer_tokens), (token_steps, said.of_token)):
            whole[..., len(head) : len(head) + part.shape[-1]] = part
        opposite_ids, opposite_steps = self._opposites(answer, sentences, spans, said.of_token)
        return EncodedReport(
            input_ids=input_ids,
            token_type_ids=token_type_ids,
            region_tokens=region_tokens,
            region_mentions=groups != NOT_MENTIONED,
            region_groups=groups,
            text_group=text_group(answer),
            steps=replace(said, of_token=token_steps),
            opposite_ids=opposite_ids,
            opposite_steps=opposite_steps,
        )

    def _opposites(
        self,
        answer: str,
        sentences: Sequence[SentenceMentions],
        spans: Int64[np.ndarray, "t 2"],
        of_token: Int64[np.ndarray, " t"],
    ) -> tuple[Int64[np.ndarray, " o"], Int64[np.ndarray, " o"]]:
        """Tokens of the opposites of the steps that are read to their end, and the step of each; within `max_len`."""
        if not self.opposites:
            return np.zeros(0, np.int64), np.zeros(0, np.int64)
        ids, steps = [self._cls], [0]
        visible = int(spans[-1, 1]) if len(spans) else 0
        for start, end in (mention.span for mention in sentences):
            own = of_token[(spans[:, 0] >= start) & (spans[:, 1] <= end)]
            if end > visible or not own.any() or own[0] > MOST_STEPS:
                continue
            turned = opposite(answer[start:end])
            tokens = self._tokenizer.encode(turned, add_special_tokens=False).ids if turned else []
            if len(ids) + len(tokens) < self.max_len:
                ids += tokens
                steps += [int(own[0])] * len(tokens)
        return np.array([*ids, self._sep], np.int64), np.array([*steps, 0], np.int64)


def _region_tokens(
    text: str, spans: Int64[np.ndarray, "t 2"], mentions: Sequence[SentenceMentions], num_regions: int
) -> tuple[Bool[np.ndarray, "r t"], Int64[np.ndarray, " r"]]:
    """Tokens of ``text`` by region, and the region groups; sentences that are cut off altogether do not count."""
    tokens = np.zeros((num_regions, len(spans)), np.bool_)
    groups = np.full(num_regions, NOT_MENTIONED, np.int64)
    if not mentions or not len(spans):
        return tokens, groups
    visible = int(spans[-1, 1])
    sentences: list[list[str]] = [[] for _ in range(num_regions)]
    only_normal = np.ones(num_regions, np.bool_)
    for mention in mentions:
        start, end = mention.span
        inside = (spans[:, 0] >= start) & (spans[:, 1] <= end)
        if not inside.any():
            continue
        for number in mention.regions:
            tokens[number - 1] |= inside
            sentences[number - 1].append(text[start : min(end, visible)])
            only_normal[number - 1] &= mention.normal
    for index, said in enumerate(sentences):
        if said:
            group = text_group(" ".join(said))
            groups[index] = -group if only_normal[index] else group
    return tokens, groups


def collate_reports(encoded: Sequence[EncodedReport], pad_id: int) -> EncodedReports:
    """The batch of ``encoded`` (at least one, all of the same region table), padded to its longest."""
    longest = max(len(report.input_ids) for report in encoded)
    shape = (len(encoded), longest)
    input_ids = np.full(shape, pad_id, np.int64)
    attention_mask, token_type_ids, token_steps = (np.zeros(shape, np.int64) for _ in range(3))
    region_tokens = np.zeros((len(encoded), len(encoded[0].region_groups), longest), np.bool_)
    for row, report in enumerate(encoded):
        length = len(report.input_ids)
        input_ids[row, :length] = report.input_ids
        attention_mask[row, :length] = 1
        token_type_ids[row, :length] = report.token_type_ids
        region_tokens[row, :, :length] = report.region_tokens
        token_steps[row, :length] = report.steps.of_token
    shape = (len(encoded), max(len(report.opposite_ids) for report in encoded))
    opposite_ids = np.full(shape, pad_id, np.int64)
    opposite_mask, opposite_steps = np.zeros(shape, np.int64), np.zeros(shape, np.int64)
    for row, report in enumerate(encoded):
        length = len(report.opposite_ids)
        opposite_ids[row, :length] = report.opposite_ids
        opposite_mask[row, :length] = 1
        opposite_steps[row, :length] = report.opposite_steps
    return EncodedReports(
        input_ids=input_ids,
        attention_mask=attention_mask,
        token_type_ids=token_type_ids,
        region_tokens=region_tokens,
        region_mentions=np.stack([report.region_mentions for report in encoded]),
        region_groups=np.stack([report.region_groups for report in encoded]),
        text_groups=np.array([report.text_group for report in encoded], np.int64),
        token_steps=token_steps,
        step_regions=np.stack([report.steps.regions for report in encoded]),
        step_groups=np.stack([report.steps.groups for report in encoded]),
        step_places=np.stack([report.steps.places for report in encoded]),
        opposite_ids=opposite_ids,
        opposite_mask=opposite_mask,
        opposite_steps=opposite_steps,
    )


def train_small_tokenizer(texts: Iterable[str], vocabulary_size: int) -> str:
    """The JSON of an uncased WordPiece tokenizer in BERT's form, learned from ``texts``.

    ``[PAD]`` is 0. The same texts in the same order give the same tokenizer. The vocabulary may be smaller than asked.

    Raises:
        ConfigError: there is no text, or ``vocabulary_size`` has no room for the special tokens and the letters.
    """
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    texts = [tokenizer.normalizer.normalize_str(text) for text in texts]
    # The trainer numbers "##a", "##b", ... in the order of a hash table and breaks ties by number, so two runs would
    # differ. Given beforehand, they have fixed numbers.
    letters = sorted(set("".join(texts)) - set(string.whitespace))
    if not letters:
        raise ConfigError("There is no text to learn a vocabulary from.")
    start = [*SPECIAL_TOKENS, *letters, *(f"##{letter}" for letter in letters)]
    if vocabulary_size < len(start):
        raise ConfigError(
            f"text.small_vocabulary is {vocabulary_size}; these texts need at least {len(start)} entries."
        )
    trainer = trainers.WordPieceTrainer(vocab_size=vocabulary_size, special_tokens=start, show_progress=False)
    tokenizer.train_from_iterator(texts, trainer)
    return _bert_tokenizer(tokenizer.get_vocab(with_added_tokens=True))


def _bert_tokenizer(vocabulary: dict[str, int]) -> str:
    """The JSON of an uncased BERT tokenizer with this vocabulary."""
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    tokenizer.add_special_tokens(list(SPECIAL_TOKENS))
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS]:0 $A:0 [SEP]:0",
        pair="[CLS]:0 $A:0 [SEP]:0 $B:1 [SEP]:1",
        special_tokens=[(token, tokenizer.token_to_id(token)) for token in ("[CLS]", "[SEP]")],
    )
    return str(tokenizer.to_str())
