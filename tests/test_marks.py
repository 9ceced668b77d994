"""Classes of a function's, which no name leads to: each is the same class in all processes that were forked."""

import enum
import gc

import pytest

from ordmap import Processes, ordered_map
from ordmap.engine import available

pytestmark = pytest.mark.skipif(not available(), reason="needs the engine")


def made(number):
    class Local:
        gain = number

        def __init__(self, value):
            self.value = value

        def product(self):
            return self.value * self.gain

    return Local


@pytest.fixture(scope="module")
def pool():
    with Processes(2) as warm:
        assert list(ordered_map(abs, range(3), backend=warm)) == [0, 1, 2]
        yield warm


def test_a_result_is_of_the_caller_s_class():
    kind = made(3)
    results = list(ordered_map(lambda i: kind(i), range(4), workers=2))
    assert {type(result) for result in results} == {kind}
    assert [result.product() for result in results] == [0, 3, 6, 9]


def freeze_for_a_moment():
    gc.freeze()
    gc.unfreeze()


def make_many_objects():
    return [[] for _ in range(50_000)]


@pytest.mark.parametrize(
    "between",
    [list, lambda: gc.collect(0), lambda: gc.collect(1), gc.collect, freeze_for_a_moment, make_many_objects],
)
def test_so_it_is_whatever_was_collected_between_it_and_another_start(between):
    list(ordered_map(abs, range(2), workers=1, backend="processes"))
    kind = made(7)
    kept = between()
    results = list(ordered_map(lambda i: kind(i), range(4), workers=2, backend="processes"))
    assert {type(result) for result in results} == {kind}
    del kept


def test_so_is_one_that_no_name_leads_to_any_more():
    for _ in range(2):  # the first start sees it while a name does
        results = list(ordered_map(_global_kind.__call__, range(4), workers=2, backend="processes"))
        assert {type(result) for result in results} == {_global_kind}
        globals().pop("Global", None)


class Global:
    def __init__(self, value):
        self.value = value


_global_kind = Global


def test_so_is_one_of_a_worker_that_ran_already(pool):
    kind = made(4)
    results = list(ordered_map(lambda i: kind(i), range(4), backend=pool))
    assert {type(result) for result in results} == {kind}


def test_an_input_is_of_the_class_that_the_worker_inherited():
    kind = made(5)

    def seen(one):
        return isinstance(one, kind), one

    with Processes(1) as pool:
        for _ in range(2):
            found = list(ordered_map(seen, [kind(i) for i in range(3)], backend=pool))
            assert [inside for inside, _ in found] == [True] * 3
            assert {type(one) for _, one in found} == {kind}


def test_one_in_the_place_of_another_that_is_gone_is_itself(pool):
    for number in range(20):
        kind = made(number)
        results = list(ordered_map(lambda i, kind=kind: kind(i), range(3), backend=pool))
        assert {type(result) for result in results} == {kind}
        assert [result.product() for result in results] == [0, number, 2 * number]
        del kind, results
        gc.collect()


def test_classes_that_items_make_are_as_many_as_they_made(pool):
    results = list(ordered_map(lambda i: made(i)(i), range(20), backend=pool))
    assert [result.product() for result in results] == [i * i for i in range(20)]
    assert len({type(result) for result in results}) == 20


def test_a_member_of_an_enum_is_that_very_one():
    class Colour(enum.Enum):
        RED = 1

    assert all(result is Colour.RED for result in ordered_map(lambda _: Colour.RED, range(3), workers=2))


def test_a_class_whose_methods_are_set_anew_is_the_one_it_was_before(pool):
    kind = made(6)
    list(ordered_map(lambda i: kind(i), range(2), backend=pool))
    kind.product = lambda self: "new"
    results = list(ordered_map(lambda i: kind(i), range(2), backend=pool))
    assert {type(result) for result in results} == {kind}
    assert [result.product() for result in results] == ["new", "new"]
