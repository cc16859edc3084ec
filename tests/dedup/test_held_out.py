import numpy as np

from tasks.dedup.held_out import held_out


def test_held_out_is_the_fraction_and_a_larger_one_holds_out_the_same_and_more() -> None:
    hashes = np.random.default_rng(0).integers(0, 2**64, 100_000, dtype=np.uint64)
    few, many = held_out(hashes, 0.005), held_out(hashes, 0.05)
    assert abs(few.mean() - 0.005) < 0.001  # four standard deviations
    assert not (few & ~many).any()


def test_held_out_of_no_fraction_is_nothing_and_half_ends_in_the_middle() -> None:
    hashes = np.array([0, 2**63 - 1, 2**63, 2**64 - 1], np.uint64)
    assert held_out(hashes, 0.0).tolist() == [False] * 4
    assert held_out(hashes, 0.5).tolist() == [True, True, False, False]
