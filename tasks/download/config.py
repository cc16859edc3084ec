"""What to download, how a source is cut into shards, and what identifies a shard.

A recipe says where text comes from (`SourceConfig`); listing turns that into `SourceShard`s; `node` gives
each its identity. Only what shapes the bytes of the result is identity: contents (digests, row groups, byte
ranges), how they are read (`ReadConfig`), never where they lie: neither path nor data set, revision or shard
size. The same files in another folder, or on the Hub, are the same nodes.
"""

from functools import lru_cache
from typing import Literal, Self

import msgspec
from pydantic import model_validator

from tasks.download.where import canonical, parse
from tasks.store.config import StageConfig
from tasks.store.json import JSON
from tasks.store.node import Node
from tasks.store.tokens import Bytes

STAGE = "download"
VERSION = 1

Format = Literal["parquet", "jsonl", "jsonl.gz", "jsonl.zst", "txt", "docstrings", "arrow"]
"""`arrow`: what `datasets.save_to_disk` writes; read for token ids alone (`tasks/download/tokens.py`)."""
Range = tuple[int, int]

COLUMNS = ("id", "source_id", "text")
"""The columns every downloaded shard has; metadata columns come after them."""

_ELSEWHERE = {
    "dataset": {"packages": "docstrings of installed packages"},
    "files": {
        "subset": "a dataset or docstrings",
        "split": "a dataset",
        "revision": "a dataset",
        "packages": "docstrings of installed packages",
    },
    "source": {
        "split": "a dataset",
        "revision": "a dataset",
        "text_column": "a dataset or files",
        "metadata_columns": "a dataset or files",
        "where": "a dataset or files",
    },
    "adopted": {
        "subset": "a dataset or docstrings",
        "split": "a dataset",
        "revision": "a dataset",
        "packages": "docstrings of installed packages",
        "text_column": "a dataset or files",
        "metadata_columns": "a dataset or files",
        "where": "a dataset or files",
        "shard_bytes": "sources of text",
        "exclude": "sources of text",
    },
}
"""Fields that have no meaning for a kind of source, and what they are for: refused rather than ignored."""


class SourceConfig(StageConfig):
    """Where text comes from. Exactly one of `dataset`, `files`, `source` and `adopted` is given."""

    dataset: str | None = None
    """A data set of the Hub, as "owner/name"."""
    subset: str = ""
    """The data set's configuration ("": its only or default one); of docstrings: "stdlib" or "installed"."""
    split: str = "train"
    """The data set's split."""
    revision: str = ""
    """A commit, branch or tag of the data set ("": the newest; resolved to a commit once, and recorded)."""
    files: tuple[str, ...] = ()
    """Paths, globs or URLs, in order: parquet, jsonl, jsonl.gz, jsonl.zst, txt. A glob's files are sorted."""
    source: Literal["docstrings"] | None = None
    """Text found on this machine: the documentation in the docstrings of Python modules."""
    packages: tuple[str, ...] = ()
    """Distributions whose docstrings are read, in order; empty: all that are installed, by name."""
    adopted: str = ""
    """Token shards that `dapt adopt` took into the store under this name, in place of text."""
    text_column: str = "text"
    """The column that holds a document's text."""
    metadata_columns: tuple[str, ...] = ()
    """Columns kept beside the text: of parquet in their types, of jsonl as strings (else JSON)."""
    where: str = ""
    """Rows wanted, by their columns: "score >= 3 and language == 'en'". Empty: all."""
    shard_bytes: Bytes = 64_000_000
    """Text that a source shard aims at; a larger file is cut, smaller ones are taken together."""
    exclude: tuple[str, ...] = ()
    """Globs of files to leave out, over the whole address, the path as listed, or the bare file name."""

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        given = [name for name in _ELSEWHERE if getattr(self, name)]
        if len(given) != 1:
            raise ValueError(
                f"found {' and '.join(given) or 'none of them'}; expected one of dataset, files, source and "
                "adopted"
            )
        for name, owner in _ELSEWHERE[given[0]].items():
            if getattr(self, name) != type(self).model_fields[name].default:
                raise ValueError(f"{name} is for {owner}, but {given[0]} is given; leave {name} out")
        if self.source and self.subset not in ("stdlib", "installed"):
            raise ValueError(f'subset is {self.subset!r}; expected "stdlib" or "installed" for docstrings')
        if self.packages and self.subset != "installed":
            raise ValueError('packages are chosen with subset = "installed"; leave packages out')
        return self

    @model_validator(mode="after")
    def _columns(self) -> Self:
        if not self.text_column:
            raise ValueError("text_column is empty; expected a column's name")
        taken = [name for name in self.metadata_columns if name in COLUMNS or name == self.text_column]
        if taken:
            raise ValueError(
                f"metadata_columns holds {taken[0]!r}, which every shard has already (the source's own id "
                "as source_id); leave it out"
            )
        if len(set(self.metadata_columns)) < len(self.metadata_columns):
            raise ValueError("metadata_columns names a column twice; name each once")
        if self.where:
            parse(self.where)
        return self


class ReadConfig(StageConfig):
    """How a shard's bytes become documents: the part of the config that is identity."""

    format: Format = "parquet"
    text_column: str = "text"
    metadata_columns: tuple[str, ...] = ()
    where: str = ""


class SourceFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, omit_defaults=True):
    """A file of a shard, or a part of it."""

    address: str
    """An absolute path or a URL."""
    format: Format
    digest: str
    """sha256 of the bytes where it is known, else `blob:`, `version:` or `etag:` and what its host tells."""
    bytes: int
    """Of the whole file."""
    row_groups: Range | None = None
    """Of a Parquet file: [first, end); None: all."""
    byte_range: Range | None = None
    """Of a jsonl file: the lines that start in [a, b); None: all."""
    read_bytes: int = 0
    """About how many bytes are read; an estimate."""
    text_bytes: int = 0
    """About how many bytes of text it holds; an estimate."""

    @property
    def identity(self) -> str:
        """The content: digest and part."""
        if self.row_groups:
            return f"{self.digest} row groups {self.row_groups[0]}-{self.row_groups[1]}"
        if self.byte_range:
            return f"{self.digest} bytes {self.byte_range[0]}-{self.byte_range[1]}"
        return self.digest

    @property
    def is_whole(self) -> bool:
        """Whether all of the file is meant."""
        return self.row_groups is None and self.byte_range is None


class SourceShard(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, omit_defaults=True):
    """The unit of download and of retry: one part of a large file, or whole small files in order."""

    files: list[SourceFile]

    @property
    def format(self) -> Format:
        """The format of its files: all of one."""
        return self.files[0].format

    @property
    def text_bytes(self) -> int:
        """About how many bytes of text it holds."""
        return sum(file.text_bytes for file in self.files)

    @property
    def read_bytes(self) -> int:
        """About how many bytes are read for it."""
        return sum(file.read_bytes for file in self.files)

    @property
    def addresses(self) -> list[str]:
        """Where its files lie, in the order of its node's inputs; a manifest tells it."""
        return [file.address for file in self.files]


def node(config: SourceConfig, shard: SourceShard) -> Node:
    """The download of a source shard."""
    return Node(
        stage=STAGE,
        version=VERSION,
        config=_reading(config, shard.format),
        inputs={f"file-{number:05d}": file.identity for number, file in enumerate(shard.files)},
        reads={"shard": msgspec.to_builtins(shard)},
    )


@lru_cache(maxsize=64)
def _reading(config: SourceConfig, given: Format) -> JSON:
    """The identity of how files of a format are read; made once for all shards, not to be written to."""
    tabular = given not in ("txt", "docstrings")
    return ReadConfig(
        format=given,
        text_column=config.text_column if tabular else "text",
        metadata_columns=config.metadata_columns if tabular else (),
        where=canonical(config.where),
    ).identity()
