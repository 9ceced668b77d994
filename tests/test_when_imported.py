"""What is to be done to a module once it is imported is done then, in order, and leaves no trace in the module."""

from __future__ import annotations

import importlib
import sys

import pytest

from ordmap.when_imported import Finder, when_imported

NAME = "imported_late"


class Told(Finder):
    def __init__(self, told):
        super().__init__({NAME})
        self.told = told

    def loaded(self, module):
        self.told.append((self, module.value))


@pytest.fixture
def module(tmp_path, monkeypatch):
    """Write a module that counts how often it is run; the interpreter's finders are put back afterwards."""
    (tmp_path / f"{NAME}.py").write_text("value = globals().get('value', 0) + 1\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "meta_path", list(sys.meta_path))
    yield
    sys.modules.pop(NAME, None)


def test_the_outer_of_two_finders_is_told_first(module):
    told = []
    outer, inner = Told(told), Told(told)
    sys.meta_path.insert(0, outer)
    sys.meta_path.insert(0, inner)
    found = importlib.import_module(NAME)
    assert told == [(outer, 1), (inner, 1)]
    assert type(found.__loader__).__name__ == type(found.__spec__.loader).__name__ == "SourceFileLoader"


def test_a_finder_that_was_taken_away_is_told_nothing(module):
    told = []
    finder = Told(told)
    sys.meta_path.insert(0, finder)
    sys.meta_path.remove(finder)
    assert finder.find_spec(NAME, None) is None
    importlib.import_module(NAME)
    assert told == []


def test_what_waits_for_a_module_is_done_once_and_in_order_beside_other_finders(module):
    done, told = [], []
    for number in range(2):
        when_imported(NAME, lambda found, number=number: done.append((number, found.value)))
    sys.meta_path.insert(0, Told(told))
    found = importlib.import_module(NAME)
    assert done == [(0, 1), (1, 1)]
    assert [value for _, value in told] == [1]
    importlib.reload(found)
    assert done == [(0, 1), (1, 1)]
    assert [value for _, value in told] == [1, 2]
    when_imported(NAME, lambda found: done.append(found.value))  # there it is already
    assert done[2:] == [2]
