from tasks.training.steps import LEARNED, MEASURED, learned, steps_table

FULL = [1, 640, 3.5, 1e-4, 0.5, 1000.0, 0.4, 10, 20, 30, 1.7e9, 350.5, 20.25]
ON_A_CPU = [2, 1280, 3.25, 1e-4, None, 1000.0, None, None, None, 30, 1.7e9, None, 20.25]


def test_a_table_of_steps_has_whole_numbers_where_they_are_and_nulls_where_nothing_was_measured() -> None:
    table = steps_table([[3, 1920, 3.0, 1e-4, 0.5], FULL, ON_A_CPU])
    assert table.column_names == [*LEARNED, *MEASURED]
    assert [str(table.schema.field(name).type) for name in ("step", "loss", "rss_bytes")] == [
        "int64",
        "double",
        "int64",
    ]
    unmeasured, *rows = ([row[name] for name in table.column_names] for row in table.to_pylist())
    assert rows == [FULL, ON_A_CPU]
    assert unmeasured == [3, 1920, 3.0, 1e-4, 0.5, *[None] * len(MEASURED)]


def test_what_was_learned_is_told_apart_from_what_was_measured() -> None:
    assert learned([FULL, ON_A_CPU]) == [FULL[:5], ON_A_CPU[:5]]
