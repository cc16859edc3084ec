"""Tokenizers of every family that models come with, trained small on given text."""

import io
import json
from collections.abc import Callable, Sequence

from sentencepiece import SentencePieceTrainer
from tokenizers import (
    AddedToken,
    Regex,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    trainers,
)

from tasks.tokenization.spiece import read_model

LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
O200K = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
    r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
SPECIALS = ["<unk>", "<s>", "</s>"]
_BYTES = [f"<0x{byte:02X}>" for byte in range(256)]


def _bpe(texts: Sequence[str], size: int, tokenizer: Tokenizer, **options: object) -> Tokenizer:
    trainer = trainers.BpeTrainer(vocab_size=size, special_tokens=SPECIALS, show_progress=False, **options)
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def _byte_level(texts: Sequence[str], size: int, *, prefix: bool = False) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=prefix)
    return _bpe(texts, size, tokenizer, initial_alphabet=pre_tokenizers.ByteLevel.alphabet())


def gpt2(texts: Sequence[str], size: int) -> Tokenizer:
    return _byte_level(texts, size)


def roberta(texts: Sequence[str], size: int) -> Tokenizer:
    """A space before the document's first word."""
    return _byte_level(texts, size, prefix=True)


def starcoder(texts: Sequence[str], size: int) -> Tokenizer:
    """Digits first, then GPT-2's expression."""
    tokenizer = _byte_level(texts, size)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    return tokenizer


def _split(texts: Sequence[str], size: int, pattern: str, *, ignore_merges: bool = False) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE(ignore_merges=ignore_merges))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(pattern), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    return _bpe(texts, size, tokenizer, initial_alphabet=pre_tokenizers.ByteLevel.alphabet())


def llama3(texts: Sequence[str], size: int) -> Tokenizer:
    return _split(texts, size, LLAMA3, ignore_merges=True)


def o200k(texts: Sequence[str], size: int) -> Tokenizer:
    return _split(texts, size, O200K)


def qwen(texts: Sequence[str], size: int) -> Tokenizer:
    """Composed (NFC) before it is split, and with an added token that is no special one."""
    tokenizer = _split(texts, size, LLAMA3.replace("{1,3}", ""))
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.add_tokens([AddedToken("<tool_call>", normalized=False, special=False)])
    return tokenizer


def neox(texts: Sequence[str], size: int) -> Tokenizer:
    """Runs of spaces as added tokens."""
    tokenizer = _byte_level(texts, size)
    tokenizer.add_tokens([AddedToken(" " * n, normalized=True) for n in (2, 3, 4)])
    return tokenizer


def _sentencepiece_bpe(texts: Sequence[str], size: int) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always", split=True)
    trainer = trainers.BpeTrainer(
        vocab_size=size, special_tokens=SPECIALS + _BYTES, show_progress=False, limit_alphabet=60
    )
    tokenizer.train_from_iterator(texts, trainer)
    return Tokenizer.from_str(tokenizer.to_str())


def llama2(texts: Sequence[str], size: int) -> Tokenizer:
    """Whole documents, the dummy prefix and the marks by normalizers."""
    tokenizer = _sentencepiece_bpe(texts, size)
    tokenizer.pre_tokenizer = None
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")]
    )
    tokenizer.add_tokens([AddedToken("[INST]", normalized=True, special=False)])
    return tokenizer


def mistral(texts: Sequence[str], size: int) -> Tokenizer:
    """Whole documents, marks and dummy prefix by Metaspace."""
    tokenizer = _sentencepiece_bpe(texts, size)
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    return tokenizer


def composed(texts: Sequence[str], size: int) -> Tokenizer:
    """Whole documents, their characters composed and their spaces collapsed before that."""
    tokenizer = llama2(texts, size)
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.NFKC(), normalizers.Replace(Regex(" {2,}"), " "), tokenizer.normalizer]
    )
    return Tokenizer.from_str(_without_added(tokenizer))


def _without_added(tokenizer: Tokenizer) -> str:
    """Its file without the added tokens that are no special ones."""
    spec = json.loads(tokenizer.to_str())
    spec["added_tokens"] = [token for token in spec["added_tokens"] if token["special"]]
    return json.dumps(spec)


def without_bytes(texts: Sequence[str], size: int) -> Tokenizer:
    """Whole documents; unknown characters in a row are one token."""
    tokenizer = llama2(texts, size)
    tokenizer.model.byte_fallback = False
    return tokenizer


def _unigram(texts: Sequence[str], size: int) -> Tokenizer:
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    trainer = trainers.UnigramTrainer(
        vocab_size=size,
        special_tokens=SPECIALS,
        unk_token="<unk>",
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def unigram(texts: Sequence[str], size: int) -> Tokenizer:
    """ALBERT's normalisation: quotes, NFKD, accents, case, spaces."""
    tokenizer = _unigram(texts, size)
    tokenizer.normalizer = normalizers.Sequence(
        [
            normalizers.Replace("``", '"'),
            normalizers.Replace("''", '"'),
            normalizers.NFKD(),
            normalizers.StripAccents(),
            normalizers.Lowercase(),
            normalizers.Strip(),
            normalizers.Replace(Regex(" {2,}"), " "),
        ]
    )
    return tokenizer


def _charsmap(texts: Sequence[str]) -> normalizers.Normalizer:
    """SentencePiece's own normalisation (NFKC and more), as its models carry it."""
    model = io.BytesIO()
    SentencePieceTrainer.train(
        sentence_iterator=iter(texts), model_writer=model, vocab_size=100, model_type="char", minloglevel=2
    )
    return normalizers.Precompiled(read_model(model.getvalue()).charsmap)


def t5(texts: Sequence[str], size: int) -> Tokenizer:
    tokenizer = _unigram(texts, size)
    tokenizer.normalizer = normalizers.Sequence(
        [
            _charsmap(texts),
            normalizers.Strip(left=False, right=True),
            normalizers.Replace(Regex(" {2,}"), "\u2581"),
        ]
    )
    return tokenizer


def xlm_roberta(texts: Sequence[str], size: int) -> Tokenizer:
    """A prefix to every word, none to the document."""
    tokenizer = _unigram(texts, size)
    tokenizer.normalizer = _charsmap(texts)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace(prepend_scheme="always")]
    )
    return tokenizer


def wordpiece(texts: Sequence[str], size: int) -> Tokenizer:
    tokenizer = Tokenizer(models.WordPiece(unk_token="<unk>"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    trainer = trainers.WordPieceTrainer(vocab_size=size, special_tokens=SPECIALS, show_progress=False)
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


FAMILIES: dict[str, Callable[[Sequence[str], int], Tokenizer]] = {
    make.__name__: make
    for make in (
        *(llama2, mistral, composed, without_bytes),
        *(gpt2, roberta, starcoder, llama3, o200k, qwen, neox),
        *(unigram, t5, xlm_roberta),
        wordpiece,
    )
}


def family(name: str, texts: Sequence[str], size: int) -> Tokenizer:
    """Train one, and set it up as the encoder does."""
    tokenizer = FAMILIES[name](texts, size)
    tokenizer.encode_special_tokens = True
    return tokenizer
