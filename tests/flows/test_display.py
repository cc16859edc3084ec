"""What a person sees of a run: one live bar a stage on a terminal, plain lines elsewhere."""

import fcntl
import io
import os
import pty
import re
import struct
import subprocess
import termios
import time
from collections.abc import Callable

import pytest
from rich.console import Console

from tests.flows.commands import DAPT, Api
from tests.flows.screen import Screen
from tests.flows.world import World

pytestmark = pytest.mark.flow

STAGES = ("download", "filtering", "signatures", "dedup", "tokenization", "packing")


@pytest.fixture
def display() -> Callable[..., tuple[str, object]]:
    """`display(words, terminal=)`: what is written for words that nodes tell."""
    from flows.display import Display
    from tasks.runtime.progress import Progress, tell

    def show(words: list[dict[str, object]], *, terminal: bool) -> str:
        console = Console(file=io.StringIO(), force_terminal=terminal, width=110, color_system=None)
        with Display(console).showing():
            for word in words:
                tell(Progress(**word))  # type: ignore[arg-type]
        return console.file.getvalue()  # type: ignore[attr-defined, no-any-return]

    return show  # type: ignore[return-value]


def shards(stage: str, count: int) -> list[dict[str, object]]:
    fields = {"documents": 10, "bytes": 5e6, "seconds": 2.0}
    return [
        {
            "stage": stage,
            "shard": f"{n:05d}",
            "done": n + 1,
            "total": count,
            "unit": "shards",
            "fields": fields,
        }
        for n in range(count)
    ]


def steps(count: int) -> list[dict[str, object]]:
    fields = {"loss": 3.25, "learning_rate": 1e-4, "grad_norm": 0.5, "tokens_per_s": 1234.5, "mfu": 0.412}
    return [
        {
            "stage": "training",
            "shard": "5K",
            "done": n + 1,
            "total": count,
            "unit": "step",
            "fields": {**fields, "eta_s": 0.5 * (count - n - 1)},
        }
        for n in range(count)
    ]


def test_elsewhere_than_on_a_terminal_lines_are_plain_and_few(display: Callable[..., str]) -> None:
    text = display([*shards("filtering", 50), *steps(300)], terminal=False)
    lines = text.splitlines()
    assert "\x1b" not in text
    assert len(lines) == 4, "the first and the last word of each; every five seconds between"
    assert re.fullmatch(r"filtering: 1/50 shards 10 documents, 2\.[45] MB/s", lines[0]), (
        "over the shard's own seconds"
    )
    told = "loss 3.250, 1,234 tokens/s, MFU 41.2%, lr 1.00e-04, norm 0.50"
    assert lines[2] == f"training 5K: 1/300 step {told}, 0:02:30 left"
    assert lines[-1] == f"training 5K: 300/300 step {told}"


def test_on_a_terminal_each_stage_has_one_bar_with_rate_and_time_left(display: Callable[..., str]) -> None:
    screen = Screen()
    screen.feed(display([*shards("filtering", 4), *shards("dedup", 4)[:2], *steps(3)], terminal=True))
    bars = [line for line in screen.lines if line.strip()]
    assert [line.split()[0] for line in bars] == ["filtering", "dedup", "training"]
    assert re.search(r"4/4 +shards 40 documents, \d+\.\d MB/s +0:00:00", bars[0])
    assert re.search(r"2/4 +shards 20 documents, \d+\.\d MB/s +(\d:\d\d:\d\d|-:--:--)", bars[1])
    assert re.search(r"3/3 +step +loss 3.250, 1,234 tokens/s +\d", bars[2]), "no room for more, the bar stays"


def test_what_happens_within_a_data_shard_is_not_told(display: Callable[..., str]) -> None:
    word = {"stage": "download", "shard": "00000", "done": 1, "total": 9, "unit": "bytes", "fields": {}}
    assert display([word], terminal=False) == ""


def on_a_terminal(world: World, *words: str, columns: int, **env: str) -> tuple[int, str]:
    """Run a command on a pseudo-terminal; its exit code and all it wrote."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
    process = subprocess.Popen(
        [*DAPT, *words],
        cwd=world.folder,
        env=world.env(TERM="xterm-256color", **env),
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
    )
    os.close(theirs)
    written = b""
    deadline = time.monotonic() + 200
    while time.monotonic() < deadline:
        try:
            chunk = os.read(ours, 65536)
        except OSError:  # the other end is closed
            break
        if not chunk:
            break
        written += chunk
    os.close(ours)
    return process.wait(30), written.decode()


def test_a_run_on_a_terminal_leaves_whole_bars_and_its_outcome(world: World, api: Api) -> None:
    words = ["run", "recipe.toml", "--until", "corpus"]
    code, written = on_a_terminal(world, *words, columns=100, PREFECT_API_URL=api.url)
    screen = Screen()
    screen.feed(written)
    assert code == 0, written
    assert max(map(len, screen.lines)) <= 100
    left = [line.strip() for line in screen.lines if line.strip()]
    for stage in STAGES:
        bars = [line for line in left if re.match(rf"{stage} +━", line)]
        assert len(bars) == 1, f"one bar for {stage}: {left}"
        assert re.search(r" shards +[\d,]+ documents, [\d.]+ MB/s +[\d:-]+$", bars[0]), bars[0]
    assert any(re.match(r"packing +3 ", line) or re.match(r"packing +0 +3 ", line) for line in left), left
    assert left[1].startswith("watch it at http://")
    assert "Finished in state" not in written
    assert "prefect" not in written.lower().replace("prefect_api", "")
