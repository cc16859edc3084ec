"""A small byte-level BPE for those who have no tokenizer.

Every text has an encoding (256 bytes are in the vocabulary) and decodes to itself. Training is a function of
the texts, in order: the same documents give the same file.
"""

from collections.abc import Iterable

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers

from tasks.store.errors import SourceError
from tasks.tokenization.config import SPECIAL_TOKENS


def train_byte_level(texts: Iterable[str], vocab_size: int) -> Tokenizer:
    """Train a byte-level BPE, GPT-2's kind.

    Args:
        texts: documents; held as counts of distinct words, not as text.
        vocab_size: ids, `SPECIAL_TOKENS` and the 256 bytes included; fewer where the text offers no more
            merges.

    Raises:
        SourceError: there is no text at all.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[AddedToken(token, special=True, normalized=False) for token in SPECIAL_TOKENS],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    seen = 0

    def counted() -> Iterable[str]:
        nonlocal seen
        for text in texts:
            seen += len(text)
            yield text

    tokenizer.train_from_iterator(counted(), trainer)
    if not seen:
        raise SourceError(
            "no document of the first shard was kept, so there is nothing to train a tokenizer on; look at "
            "`dapt show RECIPE dropped`, or name a tokenizer in tokenization.tokenizer"
        )
    tokenizer.encode_special_tokens = True
    return tokenizer
