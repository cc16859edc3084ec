"""What `bench_data` measures of others, each step in a process of its own, with a Python that has them.

Each runs as its makers recommend, on documents that lie in memory. Words and shingles handed to datasketch,
rensa and datatrove's verdicts are their own or, where a tool wants to be given some, ours.
"""

import hashlib
import struct
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tests.bench.measured import answer, cpu_seconds
from tests.oracles.minhash import WORD

Texts = tuple[list[str], list[str], int]


def read(files: list[str]) -> Texts:
    """Ids, texts and bytes of text."""
    tables = [pq.read_table(file) for file in files]
    ids = [str(value) for table in tables for value in table["id"].to_pylist()]
    texts = [value for table in tables for value in table["text"].to_pylist()]
    return ids, texts, sum(len(text.encode()) for text in texts)


def shingles_of(text: str) -> set[str]:
    """Our word 5-grams, as strings."""
    words = WORD.findall(text.lower())
    return {" ".join(words[i : i + 5]) for i in range(max(1, len(words) - 4))}


def datatrove_repetition(files: list[str]) -> dict[str, Any]:
    """Its Gopher repetition filter."""
    from datatrove.data import Document
    from datatrove.pipeline.filters import GopherRepetitionFilter

    ids, texts, text_bytes = read(files)
    repetition = GopherRepetitionFilter()
    repetition.filter(Document("some words\n\nsome more words", "0"))
    documents = [Document(text, name) for name, text in zip(ids, texts, strict=True)]
    started = cpu_seconds()
    kept = sum(repetition.filter(document) is True for document in documents)
    return {"bytes": text_bytes, "cpu": cpu_seconds() - started, "kept": kept}


def _minhash(folder: Path, documents: Iterable[Any]) -> tuple[float, float, set[int], dict[int, set[int]]]:
    """Datatrove's stages one to three: CPU seconds signed and all, documents removed, clusters."""
    from datatrove.pipeline.dedup import MinhashDedupBuckets, MinhashDedupCluster, MinhashDedupSignature
    from datatrove.pipeline.dedup.minhash import MinhashConfig

    config = MinhashConfig()
    started = cpu_seconds()
    MinhashDedupSignature(str(folder / "signatures"), config).run(documents, 0, 1)
    signed = cpu_seconds() - started
    for bucket in range(config.num_buckets):
        step = MinhashDedupBuckets(str(folder / "signatures"), str(folder / "buckets"), config=config)
        step.run(None, bucket, config.num_buckets)
    cluster = MinhashDedupCluster(
        str(folder / "buckets"), str(folder / "removed"), config, save_cluster_id=True
    )
    cluster.run(None, 0, 1)
    spent = cpu_seconds() - started
    removed = {number for (number,) in _tuples(folder / "removed" / "000000.remove", "<I")}
    clusters: dict[int, set[int]] = defaultdict(set)
    members = list(_tuples(folder / "removed" / "000000.clusters", "<II"))
    for number, name in members:
        clusters[name].add(number)
    return signed, spent, removed, {number: clusters[name] for number, name in members}


def _tuples(file: Path, layout: str) -> Iterator[tuple[int, ...]]:
    return struct.iter_unpack(layout, file.read_bytes()) if file.exists() else iter(())


def datatrove_minhash(folder: str, files: list[str]) -> dict[str, Any]:
    """Its signatures (14 x 8) and its clusters."""
    from datatrove.data import Document
    from datatrove.utils.word_tokenizers import load_word_tokenizer

    ids, texts, text_bytes = read(files)
    load_word_tokenizer("eng").word_tokenize("some words")
    documents = [Document(text, name) for name, text in zip(ids, texts, strict=True)]
    signed, spent, removed, clusters = _minhash(Path(folder), documents)
    gone = {ids[number]: [ids[other] for other in clusters[number] - {number}] for number in removed}
    return {"bytes": text_bytes, "cpu": spent, "signed": signed, "removed": gone}


def datatrove_all(folder: str, files: list[str], tokenizer: str) -> dict[str, Any]:
    """Repetition filter, MinHash and tokenizer, from Parquet (all in its folder) to its token files."""
    from datatrove.data import Document
    from datatrove.pipeline.dedup import MinhashDedupFilter
    from datatrove.pipeline.filters import GopherRepetitionFilter
    from datatrove.pipeline.readers import ParquetReader
    from datatrove.pipeline.tokens import DocumentTokenizer
    from datatrove.pipeline.writers import ParquetWriter

    *_, text_bytes = read(files)
    place = Path(folder)
    repetition, writer = GopherRepetitionFilter(), ParquetWriter(str(place / "filtered"))
    repetition.filter(Document("some words\n\nsome more words", "0"))
    started = cpu_seconds()
    documents = ParquetReader(str(Path(files[0]).parent)).run(None, 0, 1)
    for _ in writer.run(repetition.run(documents, 0, 1), 0, 1):
        pass
    filtered = ParquetReader(str(place / "filtered"))
    _minhash(place, filtered.run(None, 0, 1))
    kept = MinhashDedupFilter(str(place / "removed")).run(filtered.run(None, 0, 1), 0, 1)
    DocumentTokenizer(str(place / "tokens"), tokenizer, shuffle_documents=False).run(kept, 0, 1)
    return {"bytes": text_bytes, "cpu": cpu_seconds() - started}


def datasketch(folder: str, files: list[str]) -> dict[str, Any]:
    """Its fast way: affine32, a batch of hashes a document, `MinHashLSH(25, 5)`, candidates verified.

    From Parquet to a table of verdicts, as ours.
    """
    from datasketch import MinHash, MinHashLSH

    *_, text_bytes = read(files)
    lsh, kept, gone = MinHashLSH(num_perm=128, params=(25, 5)), {}, {}
    permutations = MinHash(128, scheme="affine32").permutations
    started = cpu_seconds()
    table = pa.concat_tables([pq.read_table(file, columns=["id", "text"]) for file in files])
    ids, texts = table["id"].to_pylist(), table["text"].to_pylist()
    for name, text in zip(ids, texts, strict=True):
        minhash = MinHash(128, scheme="affine32", hashfunc=int, permutations=permutations)
        digests = [hashlib.blake2b(s.encode(), digest_size=4).digest() for s in shingles_of(text)]
        minhash.update_batch([int.from_bytes(digest, "little") for digest in digests])
        alike = [other for other in lsh.query(minhash) if minhash.jaccard(kept[other]) >= 0.7]
        if alike:
            gone[name] = alike
        else:
            lsh.insert(name, minhash)
            kept[name] = minhash
    verdicts = {"id": ids, "duplicate_of": [gone.get(name, [None])[0] for name in ids]}
    pq.write_table(pa.table(verdicts), f"{folder}/datasketch.parquet")
    return {"bytes": text_bytes, "cpu": cpu_seconds() - started, "removed": gone}


def gaoya(files: list[str]) -> dict[str, Any]:
    """Its index: 25 x 5 hashes of lower-cased word 5-grams, all in Rust."""
    from gaoya.minhash import MinHashStringIndex

    ids, texts, text_bytes = read(files)
    index, gone = MinHashStringIndex(32, 0.7, 25, 5, None, "word", True, (5, 5), "vec"), {}
    started = cpu_seconds()
    for number, (name, text) in enumerate(zip(ids, texts, strict=True)):
        alike = index.query(text)
        if alike:
            gone[name] = [ids[other] for other in alike]
        else:
            index.insert_document(number, text)
    signed = cpu_seconds()
    bulk = MinHashStringIndex(32, 0.7, 25, 5, None, "word", True, (5, 5), "vec")
    bulk.par_bulk_insert_docs(list(range(len(texts))), texts)
    both = {"signed": cpu_seconds() - signed, "cpu": signed - started}
    return {"bytes": text_bytes, "removed": gone, **both}


def rensa(files: list[str]) -> dict[str, Any]:
    """Its classic mode: 128 slots of the shingles it is given, then its one-pass LSH (flags, no pairs)."""
    from rensa import RMinHash, RMinHashLSH

    *_, texts, text_bytes = read(files)
    started = cpu_seconds()
    tokens = [list(shingles_of(text)) for text in texts]
    matrix = RMinHash.digest_matrix_from_token_sets(tokens, 128, 1)
    signed = cpu_seconds() - started
    RMinHashLSH(0.7, 128, 32).insert_matrix_and_query_duplicate_flags(matrix)
    return {"bytes": text_bytes, "signed": signed, "cpu": cpu_seconds() - started}


def hf(folder: str) -> dict[str, Any]:
    """HF tokenizers on the documents that ours encoded, and whether the ids are the same."""
    from tokenizers import Tokenizer

    table = pq.read_table(f"{folder}/encoded.parquet")
    texts, ours = table["text"].to_pylist(), table["input_ids"].combine_chunks()
    tokenizer = Tokenizer.from_file(f"{folder}/tokenizer.json")
    tokenizer.encode_special_tokens = True  # text is text
    tokenizer.encode_batch_fast(texts[:5], add_special_tokens=False)
    started, flat, lengths = cpu_seconds(), [], []
    for first in range(0, len(texts), 1000):
        for encoding in tokenizer.encode_batch_fast(texts[first : first + 1000], add_special_tokens=False):
            flat.append(np.array(encoding.ids, np.uint32))
            lengths.append(len(flat[-1]))
    spent = cpu_seconds() - started
    same = np.array_equal(np.concatenate(flat), ours.flatten().to_numpy()) and np.array_equal(
        lengths, ours.value_lengths().to_numpy()
    )
    text_bytes = sum(len(text.encode()) for text in texts)
    return {"bytes": text_bytes, "cpu": spent, "same": bool(same), "documents": len(texts)}


if __name__ == "__main__":
    answer(
        {
            "datatrove_repetition": datatrove_repetition,
            "datatrove_minhash": datatrove_minhash,
            "datatrove_all": datatrove_all,
            "datasketch": datasketch,
            "gaoya": gaoya,
            "rensa": rensa,
            "hf": hf,
        }
    )
