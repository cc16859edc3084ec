import base64
from pathlib import Path

from tasks.training.events import add_events, begin_events

ROWS = [
    [1, 640, 3.5, 1e-4, 0.5, 1000.0, 0.4, 10, 20, 300, 1.7e9],
    [300, 192000, 3.25, 1e-5, None, 900.5, None, None, None, 30, 1700000001.5],
]
THEIRS = base64.b64decode(
    "GAAAAAAAAACjf0siCQAAAED8VNlBGg1icmFpbi5FdmVudDoy7O2PnfkAAAAAAAAAiSublgkAAABA/FTZQRABKusBChYKD3RyYWlu"
    "aW5nL3Rva2VucxUAACBEChQKDXRyYWluaW5nL2xvc3MVAABgQAodChZ0cmFpbmluZy9sZWFybmluZ19yYXRlFRe30TgKGQoSdHJh"
    "aW5pbmcvZ3JhZF9ub3JtFQAAAD8KGQoSc3BlZWQvdG9rZW5zX3Blcl9zFQAAekQKEAoJc3BlZWQvbWZ1Fc3MzD4KHQoWbWVtb3J5"
    "L2FsbG9jYXRlZF9ieXRlcxUAACBBChwKFW1lbW9yeS9yZXNlcnZlZF9ieXRlcxUAAKBBChcKEG1lbW9yeS9yc3NfYnl0ZXMVAACW"
    "Q+/MCEmQAAAAAAAAAJZjN/0JAABgQPxU2UEQrAIqgQEKFgoPdHJhaW5pbmcvdG9rZW5zFQCAO0gKFAoNdHJhaW5pbmcvbG9zcxUA"
    "AFBACh0KFnRyYWluaW5nL2xlYXJuaW5nX3JhdGUVrMUnNwoZChJzcGVlZC90b2tlbnNfcGVyX3MVACBhRAoXChBtZW1vcnkvcnNz"
    "X2J5dGVzFQAA8EGEHOSl"
)
"""What TensorBoard 2.21's own record writer made of events with these rows' values."""


def test_a_file_is_byte_for_byte_what_tensorboard_s_own_writer_makes(tmp_path: Path) -> None:
    file = begin_events(tmp_path / "tensorboard", ROWS[:1], "1.dapt")
    add_events(file, ROWS[1:])
    assert file.name == "events.out.tfevents.1.dapt", "it looks for files with this name"
    assert file.read_bytes() == THEIRS


def test_a_training_that_goes_on_writes_a_new_file_with_all_rows_in_place_of_the_old_one(
    tmp_path: Path,
) -> None:
    add_events(begin_events(tmp_path, ROWS[:1], "1.dapt"), [ROWS[1], ROWS[1]])
    file = begin_events(tmp_path, ROWS, "2.dapt")
    assert list(tmp_path.iterdir()) == [file]
    assert file.read_bytes() == THEIRS


def test_a_row_of_which_nothing_was_measured_has_the_loss_all_the_same(tmp_path: Path) -> None:
    written = begin_events(tmp_path, [[1, 640, 3.5, 1e-4, 0.5]], "1.dapt").read_bytes()
    assert b"training/loss" in written
    assert b"speed/" not in written
