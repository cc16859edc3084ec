"""The exception tree is what its docstring draws."""

import inspect
import pickle
import re

from tasks.store import errors


def test_the_drawn_tree_is_the_real_one() -> None:
    drawn = {name: int(code) for name, code in re.findall(r"(\w+)\s+exit (\d)", inspect.getdoc(errors) or "")}
    real = {
        name: kind.exit_code
        for name, kind in inspect.getmembers(errors, inspect.isclass)
        if issubclass(kind, errors.DaptError)
    }
    assert drawn == real
    assert issubclass(errors.TransientError, errors.SourceError)


def test_damage_names_the_place_and_what_to_do() -> None:
    err = errors.StoreDamaged("/store/packing/ab", "it is missing")
    assert (err.path, err.why) == ("/store/packing/ab", "it is missing")
    assert str(err).startswith("/store/packing/ab: it is missing;")
    assert "run the recipe again" in str(err)


def test_every_error_comes_back_whole_from_another_process() -> None:
    """A cluster's nodes send them pickled; one that cannot be read there would hide what happened."""
    for name, kind in inspect.getmembers(errors, inspect.isclass):
        if issubclass(kind, errors.DaptError):
            err = kind("/a", "gone") if kind is errors.StoreDamaged else kind("what was found")
            err.summary = {"made": [name]}
            back = pickle.loads(pickle.dumps(err))
            assert (type(back), str(back), vars(back)) == (kind, str(err), vars(err))
