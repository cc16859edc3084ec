"""The buckets of kept documents as immutable parts, in memory or in a file.

A part holds, band by band, (32 bits of the band's hash, row) of some consecutive kept documents, sorted by
hash and then row, and a directory from the hash's first bits to where they stand. Each batch of documents
makes one; two neighbours of which the newer is at least half as large as the older become one. So there are
few parts (log2 of the number of batches, at most), an entry is moved as often, and nothing is ever changed in
place: 8.1 bytes a document and band, without a free slot.

The part that two become is made in memory while all parts together fit `memory_bytes` (the two that it is
made of included), else in a file. A batch is looked up band by band in hash order, so that a file is read
from front to back, and its pages are let go of after each band.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tasks.dedup.lsh import Candidates, Groups, limit_of
from tasks.dedup.scratch import ScratchArray
from tasks.text.kernel import kernel

_CELL = 32
"""Entries a cell of the directory, on average: 5 steps of a binary search."""

_HIGH = np.uint64(32)


@dataclass(frozen=True, slots=True)
class Part:
    """Entries of the bands, one band after the other."""

    words: NDArray[np.uint32]
    """(2 * num_entries + num_bands * (cells + 1),): the hashes, the rows, the directories."""
    bounds: NDArray[np.int64]
    """(num_bands + 1,), where each band's entries begin."""
    cell_bits: int
    """Bits of a hash that choose its cell."""
    file: ScratchArray[np.uint32] | None
    """Where `words` lie; None: in memory."""

    @property
    def num_entries(self) -> int:
        """Of all bands."""
        return int(self.bounds[-1])

    @property
    def memory_bytes(self) -> int:
        """What it takes of memory."""
        return 0 if self.file else self.words.nbytes

    def hashes(self, band: int) -> NDArray[np.uint32]:
        """(entries of the band,), sorted."""
        return self.words[self.bounds[band] : self.bounds[band + 1]]

    def rows(self, band: int) -> NDArray[np.uint32]:
        """(entries of the band,), rising within a hash."""
        return self.words[self.num_entries :][self.bounds[band] : self.bounds[band + 1]]

    def directory(self, band: int) -> NDArray[np.uint32]:
        """(cells + 1,), the first entry of each cell."""
        size = 2**self.cell_bits + 1
        return self.words[2 * self.num_entries + band * size :][:size]

    def forget(self) -> None:
        """Let the pages of its file go."""
        if self.file:
            self.file.forget()


class Parts:
    """All parts of an index.

    Args:
        num_bands: the band of exact hashes included.
        bucket_limit: entries a bucket.
        memory_bytes: that parts may take of memory.
        folder: where the files of the others are; None: the system's place for temporary files.
    """

    def __init__(self, num_bands: int, bucket_limit: int, memory_bytes: int, folder: Path | None) -> None:
        self.parts: list[Part] = []
        self._num_bands, self._bucket_limit = num_bands, bucket_limit
        self._memory_bytes, self._folder = memory_bytes, folder

    @property
    def memory_bytes(self) -> int:
        """What they take of memory."""
        return sum(part.memory_bytes for part in self.parts)

    @property
    def file_bytes(self) -> int:
        """What they take of the disk."""
        return sum(part.file.file_bytes for part in self.parts if part.file)

    def candidates(self, groups: Groups) -> Candidates:
        """What the buckets of a batch hold."""
        shape = groups.keys.shape
        begins, counts = np.zeros(shape, np.int64), np.zeros(shape, np.int32)
        rows: list[NDArray[np.int32]] = []
        found = 0
        runs = np.empty((len(self.parts), 2, shape[1]), np.int64)
        for band, keys in enumerate(groups.keys):
            for part, run in zip(self.parts, runs, strict=True):
                _find(keys, part.hashes(band), part.directory(band), part.cell_bits, run)
            limit = limit_of(band, self._num_bands - 1, self._bucket_limit)
            counts[band] = np.minimum(runs[:, 1].sum(axis=0), limit)
            begins[band] = found + np.cumsum(counts[band], dtype=np.int64) - counts[band]
            rows.append(np.empty(int(counts[band].sum()), np.int32))
            if len(rows[-1]):
                written = np.zeros(shape[1], np.int32)
                for part, run in zip(self.parts, runs, strict=True):
                    _copy(part.rows(band), run, begins[band] - found, counts[band], written, rows[-1])
            for part in self.parts:
                part.forget()
            found += len(rows[-1])
        return Candidates(np.concatenate(rows), begins, counts)

    def add(self, groups: Groups) -> None:
        """A part of the members of a batch's groups."""
        part = self._part(groups.filled.sum(axis=1), in_memory=True)
        for band in range(self._num_bands):
            _pack(
                groups.keys[band],
                groups.members[band],
                groups.filled[band],
                part.hashes(band),
                part.rows(band),
            )
            _direct(part.hashes(band), part.cell_bits, part.directory(band))
        if not part.num_entries:
            return
        self.parts.append(part)
        while len(self.parts) > 1 and self.parts[-2].num_entries <= 2 * self.parts[-1].num_entries:
            merged = self._merge(*self.parts[-2:])
            self.parts[-2:] = [merged]

    def _merge(self, older: Part, newer: Part) -> Part:
        """One part of two neighbours."""
        entries = np.diff(older.bounds) + np.diff(newer.bounds)
        part = self._part(entries, in_memory=False)
        for band in range(self._num_bands):
            _merge(
                *(older.hashes(band), older.rows(band)),
                *(newer.hashes(band), newer.rows(band)),
                *(part.hashes(band), part.rows(band)),
            )
            _direct(part.hashes(band), part.cell_bits, part.directory(band))
            for each in (older, newer, part):
                each.forget()
        return part

    def _part(self, entries: NDArray[np.int64], *, in_memory: bool) -> Part:
        """Room for so many entries a band; in a file where memory does not suffice and is not asked for."""
        bounds = np.concatenate([[0], np.cumsum(entries)])
        cell_bits = max(0, (int(bounds[-1]) // (self._num_bands * _CELL)).bit_length())
        size = 2 * int(bounds[-1]) + self._num_bands * (2**cell_bits + 1)
        if in_memory or self.memory_bytes + 4 * size <= self._memory_bytes:
            return Part(np.empty(size, np.uint32), bounds, cell_bits, None)
        file = ScratchArray(np.uint32, (), self._folder)
        file.reserve(size)
        return Part(file.array, bounds, cell_bits, file)


@kernel
def _find(
    keys: NDArray[np.uint64],
    hashes: NDArray[np.uint32],
    directory: NDArray[np.uint32],
    cell_bits: int,
    runs: NDArray[np.int64],
) -> None:
    """Where the entries of each group stand in a band of a part, and how many there are.

    Args:
        keys: (batch,), sorted.
        hashes: (entries,), sorted.
        directory: (cells + 1,).
        cell_bits: of a hash.
        runs: (2, batch), written: begin and length, 0 where no group begins.
    """
    for at in range(len(keys)):
        key = np.uint32(keys[at] >> _HIGH)
        runs[1, at] = 0
        if at and key == np.uint32(keys[at - 1] >> _HIGH):
            continue
        cell = np.int64(np.uint64(key) >> np.uint64(32 - cell_bits))
        low, end = np.int64(directory[cell]), np.int64(directory[cell + 1])
        high = end
        while low < high:
            middle = (low + high) >> 1
            if hashes[middle] < key:
                low = middle + 1
            else:
                high = middle
        runs[0, at] = low
        while low < end and hashes[low] == key:
            low += 1
        runs[1, at] = low - runs[0, at]


@kernel
def _copy(
    rows: NDArray[np.uint32],
    runs: NDArray[np.int64],
    begins: NDArray[np.int64],
    counts: NDArray[np.int32],
    written: NDArray[np.int32],
    out: NDArray[np.int32],
) -> None:
    """Append a part's rows to those of each group, as far as `counts` leaves room."""
    for at in range(len(counts)):
        for step in range(min(runs[1, at], np.int64(counts[at] - written[at]))):
            out[begins[at] + written[at]] = rows[runs[0, at] + step]
            written[at] += 1


@kernel
def _pack(
    keys: NDArray[np.uint64],
    members: NDArray[np.int32],
    filled: NDArray[np.int32],
    hashes: NDArray[np.uint32],
    rows: NDArray[np.uint32],
) -> None:
    """Entries of the groups' members, group after group."""
    to = 0
    for first in range(len(keys)):
        for place in range(filled[first]):
            hashes[to] = np.uint32(keys[first] >> _HIGH)
            rows[to] = members[first + place]
            to += 1


@kernel
def _merge(
    older_hashes: NDArray[np.uint32],
    older_rows: NDArray[np.uint32],
    newer_hashes: NDArray[np.uint32],
    newer_rows: NDArray[np.uint32],
    hashes: NDArray[np.uint32],
    rows: NDArray[np.uint32],
) -> None:
    """Both in order of hash, of equal ones the older first."""
    older, newer = 0, 0
    for to in range(len(hashes)):
        if newer == len(newer_hashes) or (
            older < len(older_hashes) and older_hashes[older] <= newer_hashes[newer]
        ):
            hashes[to], rows[to] = older_hashes[older], older_rows[older]
            older += 1
        else:
            hashes[to], rows[to] = newer_hashes[newer], newer_rows[newer]
            newer += 1


@kernel
def _direct(hashes: NDArray[np.uint32], cell_bits: int, directory: NDArray[np.uint32]) -> None:
    """The directory of sorted hashes."""
    cell = 0
    for at in range(len(hashes)):
        own = np.int64(np.uint64(hashes[at]) >> np.uint64(32 - cell_bits))
        while cell <= own:
            directory[cell] = at
            cell += 1
    directory[cell:] = len(hashes)
