"""What the filter drops: one field a rule, named as in the literature; its name is the verdict's reason.

Length first (fewer than three lines, predominantly short content), then repetition (Rae et al. 2021,
table A1), then the two optional groups. The first rule that a document fails, in the order of the fields,
is its reason. A fraction of 1 and a minimum of 0 switch a rule off; its metric is measured all the same.
"""

from typing import Annotated, Any

from pydantic import BeforeValidator, Field

from tasks.store.config import StageConfig, identity_of
from tasks.store.node import Node

STAGE = "filtering"
VERSION = 2


class GopherQualityRules(StageConfig):
    """Gopher's quality rules (Rae et al. 2021, A1.1): English prose. Words, not punctuation."""

    min_words: int = Field(50, ge=0)
    """Words a document has at least."""
    max_words: int = Field(100_000, ge=1)
    """Words a document has at most."""
    min_mean_word_length: float = Field(3.0, ge=0)
    """Characters of a word, on average, at least."""
    max_mean_word_length: float = Field(10.0, gt=0)
    """Characters of a word, on average, at most."""
    hashes_per_word: float = Field(0.1, ge=0)
    """`#` signs for each word, at most."""
    ellipses_per_word: float = Field(0.1, ge=0)
    """Ellipses (`...` or its character) for each word, at most."""
    bullet_line_frac: float = Field(0.9, ge=0, le=1)
    """Share of lines that begin with a bullet (•, -, *), at most."""
    ellipsis_line_frac: float = Field(0.3, ge=0, le=1)
    """Share of lines that end in an ellipsis, at most."""
    letter_word_frac: float = Field(0.8, ge=0, le=1)
    """Share of words with a letter, at least. Any character beyond ASCII counts as one."""
    min_stop_words: int = Field(2, ge=0, le=8)
    """How many of {the, be, to, of, and, that, have, with} are used at least."""


class FineWebRules(StageConfig):
    """FineWeb's own rules (Penedo et al. 2024, section 3.6), for web pages."""

    punctuated_line_frac: float = Field(0.12, ge=0, le=1)
    """Share of lines that end in a terminal punctuation mark or a quotation mark, at least."""
    short_line_frac: float = Field(0.67, ge=0, le=1)
    """Share of lines of at most 30 characters, at most."""
    dup_line_char_frac: float = Field(0.01, ge=0, le=1)
    """Characters of lines that stood before, of all, at most."""
    newlines_per_word: float = Field(0.3, ge=0)
    """Line breaks for each word, at most."""


def _switch(given: Any) -> Any:
    """`true` is the group with its published thresholds, `false` is none."""
    return {} if given is True else None if given is False else given


class FilteringConfig(StageConfig):
    """Which documents are dropped for what they look like."""

    min_lines: int = Field(3, ge=0)
    """Lines that are not blank, at least."""
    short_line_characters: int = Field(30, ge=0)
    """A line of so many characters or fewer, less the whitespace at its ends, is short."""
    # Weighed by characters: headings, lists and code between paragraphs are not what a document is mostly
    # made of, and neither one line a paragraph nor text wrapped at 70 columns is short. Above one half stand
    # 4.5 % of 27,327 textbook, course and reference pages (navigation around nothing, tables of contents,
    # stubs of one signature) and 2.0 % of 1,711 pieces of fiction and news (title pages). By the share of
    # lines (FineWeb's .67) it would be 12 % of the former, many with paragraphs between code and lists.
    short_line_char_frac: float = Field(0.5, ge=0, le=1)
    """Share of the characters that stand on short lines, at most; above, content is predominantly short."""
    dup_para_frac: float = Field(0.30, ge=0, le=1)
    """Paragraphs that stood before, of all, at most."""
    dup_para_char_frac: float = Field(0.20, ge=0, le=1)
    """Characters of paragraphs that stood before, of all, at most."""
    dup_line_frac: float = Field(0.30, ge=0, le=1)
    """Lines that stood before, of all, at most."""
    dup_line_char_frac: float = Field(0.20, ge=0, le=1)
    """Characters of lines that stood before, of all, at most."""
    top_2_gram_char_frac: float = Field(0.20, ge=0, le=1)
    """Characters of all uses of the most frequent 2-gram of words, of all, at most."""
    top_3_gram_char_frac: float = Field(0.18, ge=0, le=1)
    """The same of 3-grams."""
    top_4_gram_char_frac: float = Field(0.16, ge=0, le=1)
    """The same of 4-grams."""
    dup_5_gram_char_frac: float = Field(0.15, ge=0, le=1)
    """Characters of 5-grams of words that stood before, of all, at most."""
    dup_6_gram_char_frac: float = Field(0.14, ge=0, le=1)
    """The same of 6-grams."""
    dup_7_gram_char_frac: float = Field(0.13, ge=0, le=1)
    """The same of 7-grams."""
    dup_8_gram_char_frac: float = Field(0.12, ge=0, le=1)
    """The same of 8-grams."""
    dup_9_gram_char_frac: float = Field(0.11, ge=0, le=1)
    """The same of 9-grams."""
    dup_10_gram_char_frac: float = Field(0.10, ge=0, le=1)
    """The same of 10-grams."""
    quality: Annotated[GopherQualityRules | None, BeforeValidator(_switch)] = None
    """Gopher's quality rules: `true`, or a table of thresholds. Left out or false: off."""
    fineweb: Annotated[FineWebRules | None, BeforeValidator(_switch)] = None
    """FineWeb's rules: `true`, or a table of thresholds. Left out or false: off."""


def node(config: FilteringConfig, download: Node) -> Node:
    """The verdicts of one shard."""
    return Node(
        stage=STAGE,
        version=VERSION,
        config=identity_of(config),
        inputs={"download": download.fingerprint},
        reads={"download": download.path},
    )
