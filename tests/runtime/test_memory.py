"""Peak memory is that of the process while something runs."""

import numpy as np
import pytest

from tasks.runtime.memory import PeakMemory, resident_bytes


@pytest.mark.slow
def test_the_peak_is_seen_though_it_is_gone_at_the_end() -> None:
    before = resident_bytes()
    with PeakMemory() as memory:
        held = np.ones(8_000_000)
        memory._ended.wait(0.2)
        del held
    assert memory.peak_bytes >= before + 60_000_000
    assert resident_bytes() < memory.peak_bytes
