"""TensorBoard's event files of a training: one scalar a column of its record.

A file of TFRecords (length, bytes, and the masked CRC-32C of each) that hold `Event` protocol buffers. The
few fields that scalars need are written here, byte for byte as TensorBoard 2.21 writes them: its package and
gRPC, which that brings, are 50 MB. What a file holds is a function of the rows.
"""

import struct
from collections.abc import Iterable
from pathlib import Path

from tasks.training.steps import LEARNED, MEASURED, Row

FOLDER = "tensorboard"
"""Of a training's work folder while it runs, and of its node."""
_AT = len(LEARNED) + MEASURED.index("at")
_TAGS = {
    "tokens": "training/tokens",
    "loss": "training/loss",
    "learning_rate": "training/learning_rate",
    "grad_norm": "training/grad_norm",
    "tokens_per_s": "speed/tokens_per_s",
    "mfu": "speed/mfu",
    "allocated_bytes": "memory/allocated_bytes",
    "reserved_bytes": "memory/reserved_bytes",
    "rss_bytes": "memory/rss_bytes",
    "gpu_joules": "energy/gpu_joules",
    "host_joules": "energy/host_joules",
}


def begin_events(folder: Path, rows: list[Row], name: str) -> Path:
    """Write an event file of rows and remove older ones.

    Args:
        folder: where; made when missing.
        rows: so far.
        name: what tells this file from the one before: TensorBoard sees that a training began again, at the
            step of the first row, by a new file.

    Returns:
        The file, for `add_events`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob("events.out.tfevents.*"):
        old.unlink()
    file = folder / f"events.out.tfevents.{name}"
    version = _event(rows[0] if rows else [0], _bytes(3, b"brain.Event:2"))
    file.write_bytes(_record(version))
    add_events(file, rows)
    return file


def add_events(file: Path, rows: Iterable[Row]) -> None:
    """Append rows to an event file."""
    with file.open("ab") as out:
        for row in rows:
            out.write(_record(_event(row, _field(2, 0) + _varint(int(row[0] or 0)) + _summary(row))))


def _event(row: Row, rest: bytes) -> bytes:
    at = row[_AT] if len(row) > _AT else None
    return _field(1, 1) + struct.pack("<d", at or 0.0) + rest


def _summary(row: Row) -> bytes:
    scalars = (
        _bytes(1, _bytes(1, _TAGS[name].encode()) + _field(2, 5) + struct.pack("<f", value))
        for name, value in zip((*LEARNED, *MEASURED), row, strict=False)
        if name in _TAGS and value is not None
    )
    return _bytes(5, b"".join(scalars))


def _field(number: int, kind: int) -> bytes:
    return bytes([number << 3 | kind])


def _bytes(number: int, value: bytes) -> bytes:
    return _field(number, 2) + _varint(len(value)) + value


def _varint(value: int) -> bytes:
    found = bytearray()
    while value > 127:
        found.append(value & 127 | 128)
        value >>= 7
    found.append(value)
    return bytes(found)


def _record(data: bytes) -> bytes:
    length = struct.pack("<Q", len(data))
    return length + _masked_crc(length) + data + _masked_crc(data)


def _crc_table() -> list[int]:
    table = []
    for byte in range(256):
        for _ in range(8):
            byte = byte >> 1 ^ (0x82F63B78 if byte & 1 else 0)  # noqa: PLW2901 - the byte is what is shifted
        table.append(byte)
    return table


_CRC = _crc_table()
"""Of CRC-32C (Castagnoli), a byte at a time: a tenth of a millisecond for a step."""


def _masked_crc(data: bytes) -> bytes:
    crc = 0xFFFFFFFF
    for byte in data:
        crc = _CRC[(crc ^ byte) & 255] ^ crc >> 8
    crc ^= 0xFFFFFFFF
    return struct.pack("<I", ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF)
