"""PyTorch's CPU tensors. It is large, and no part of the suite's own set-up: ``python3 .ci/dev.py test-torch``."""

from __future__ import annotations

import itertools
import subprocess
import sys
import threading
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="PyTorch is installed by `python3 .ci/dev.py test-torch`")

from ordmap import CheckpointError, Processes, Spawn, ordered_imap, ordered_map, subset
from ordmap.engine import available
from test_codec import lies_in_a_block
from test_engine import Items

pytestmark = pytest.mark.skipif(not available(), reason="the engine is for Linux")


@pytest.mark.parametrize("backend", ["processes", "spawn"])
def test_tensors_come_back_equal_and_writable_and_are_not_copied_twice(backend):
    def item(i):
        return {
            "plain": torch.full((100, 200), float(i)),
            "view": torch.arange(40_000).reshape(200, 200).T[i:],
            "half": torch.ones(9_000, dtype=torch.bfloat16) * i,
            "small": torch.tensor([i]),
            "none": torch.zeros(0, 3),
            "parameter": torch.nn.Parameter(torch.ones(5_000) * i),
            "channels last": torch.arange(12_000.0).reshape(2, 3, 40, 50).to(memory_format=torch.channels_last) + i,
            "transposed": torch.ones(70, 90, dtype=torch.bfloat16).T * i,
            "every second": torch.arange(9_000)[::2],
            "numpy too": np.full(5_000, i),
        }

    for i, got in enumerate(ordered_imap(Items(6, item), 2, 3, backend=backend)):
        for name, expected in item(i).items():
            assert type(got[name]) is type(expected), name
            assert got[name].dtype == expected.dtype, name
            assert (got[name] == expected).all(), name
            if name in {"channels last", "transposed"}:
                assert got[name].stride() == expected.stride(), name
        assert got["parameter"].requires_grad
        assert lies_in_a_block(got["plain"].data_ptr())
        got["plain"] += 1
        assert (got["plain"] == i + 1).all()


class Labelled(torch.Tensor):
    pass


@pytest.mark.parametrize("backend", ["processes", "spawn"])
def test_tensors_as_inputs_are_what_they_are_and_are_mapped(backend):
    large = torch.arange(400_000.0).reshape(400, 1_000)
    labelled = large[:9].as_subclass(Labelled)
    labelled.label = "mine"
    sent = [
        large,
        large[7:9],
        large.T[5:60],
        large.to(torch.bfloat16),
        large.clone().requires_grad_(),
        torch.nn.Parameter(large[:3].clone()),
        (large + 1j).conj(),
        large.to_sparse(),
        torch.tensor(3),
        labelled,
        {"deep": [large[3]]},
    ]

    def look(value):
        value = value["deep"][0] if isinstance(value, dict) else value
        there = not value.is_sparse and value.untyped_storage().nbytes() < 2 * value.numel() * value.element_size() + 99
        return value, there, lies_in_a_block(value.data_ptr()) if not value.is_sparse else None

    for expected, (got, is_no_more, _) in zip(sent, ordered_map(look, sent, workers=2, backend=backend), strict=True):
        expected = expected["deep"][0] if isinstance(expected, dict) else expected
        assert type(got).__name__ == type(expected).__name__
        assert (got.dtype, got.shape, got.requires_grad) == (expected.dtype, expected.shape, expected.requires_grad)
        assert getattr(got, "label", None) == getattr(expected, "label", None)
        assert torch.equal(got.detach().to_dense(), expected.detach().to_dense())
        assert is_no_more or expected.is_sparse or expected.is_conj()


@pytest.mark.parametrize("where", ["result", "input", "dataset"])
def test_a_graph_that_stays_behind_is_told_of_once(script, where):
    path = script(f"""
import sys, warnings, torch
from ordmap import ordered_imap, ordered_map

weights = torch.ones(50_000, requires_grad=True)

def made(n): return weights * n
def taken(x): return float(x.sum())

class Data:
    def __init__(self): self.x = weights * 2
    def __len__(self): return 3
    def __getitem__(self, n): return float(self.x[n].detach())

with warnings.catch_warnings(record=True) as said:
    warnings.simplefilter("always")
    for _ in range(2):
        if {where!r} == "result":
            got = list(ordered_map(made, range(3), workers=2))  # here
            assert all(x.requires_grad and x.is_leaf for x in got)
        elif {where!r} == "input":
            got = list(ordered_map(taken, [made(n) for n in range(3)], workers=2))  # here
        else:
            got = list(ordered_imap(Data(), 2, backend="spawn"))  # here
ours = [one for one in said if "requires a gradient" in str(one.message)]
assert len(ours) == 1, said
assert "# here" in open(ours[0].filename).readlines()[ours[0].lineno - 1], ours[0]
assert list(ordered_map(lambda n: torch.nn.Parameter(torch.ones(n)), range(3), workers=1))[2].requires_grad
""")
    done = subprocess.run([sys.executable, path], capture_output=True, text=True, timeout=100, check=False)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("make", [Processes, Spawn])
def test_torch_computes_in_so_many_threads_a_worker_also_where_an_item_is_the_first_to_import_it(make, threads):
    def work(_):
        import torch

        return torch.get_num_threads()

    torch.set_num_threads(3)
    with make(2, threads_per_worker=threads) as pool:
        for _ in range(2):
            assert set(ordered_map(work, range(6), backend=pool)) == {threads}
    assert torch.get_num_threads() == 3


def test_a_worker_forked_after_torch_has_used_its_threads_does_not_wait_for_them():
    torch.set_num_threads(2)
    assert torch.ones(10_000_000).sum() == 10_000_000  # long enough for torch to start its threads
    found = list(ordered_imap(Items(4, lambda i: (float(torch.ones(10_000_000).sum()), torch.get_num_threads())), 2, 3))
    assert found == [(10_000_000.0, 1)] * 4


def test_a_kept_torch_view_of_an_array_keeps_it():
    kept = [torch.from_numpy(x)[100:] for x in ordered_imap(Items(100, lambda i: np.full(5_000, i)), 2, 8)]
    assert all((x == i).all() for i, x in enumerate(kept))


@pytest.mark.filterwarnings("ignore:.*quantize_per_tensor:UserWarning", "ignore:TypedStorage:UserWarning")
def test_a_quantised_tensor_keeps_its_scale():
    def item(i):
        return torch.quantize_per_tensor(torch.arange(5_000.0) % 90 + i, 0.5, 3, torch.quint8)

    for i, got in enumerate(ordered_imap(Items(3, item), 2)):
        assert (got.dequantize() == item(i).dequantize()).all()


def test_a_tensor_keeps_what_the_user_has_written_on_it():
    def item(i):
        tensor = torch.ones(5_000)
        tensor.label = f"number {i}"
        return tensor

    assert [x.label for x in ordered_imap(Items(3, item), 2)] == ["number 0", "number 1", "number 2"]


def test_samplers_give_the_order():
    def sampler():
        return torch.utils.data.RandomSampler(range(20), generator=torch.Generator().manual_seed(3))

    assert sorted(ordered_imap(range(20), 2, indices=sampler())) == list(range(20))
    assert len(list(ordered_imap(range(20), 0, epochs=2, indices=sampler()))) == 40
    weighted = torch.utils.data.WeightedRandomSampler([0.0] * 10 + [1.0] * 10, 50)
    assert set(ordered_imap(range(20), 2, indices=weighted)) <= set(range(10, 20))
    whole = list(ordered_imap(range(20), 0, indices=sampler()))
    shards = [list(ordered_imap(range(20), 0, indices=sampler(), shard=(rank, 3, "pad"))) for rank in range(3)]
    assert shards == [[*whole, whole[0]][rank::3] for rank in range(3)]
    one = ordered_imap(range(20), 0, indices=sampler())
    assert [next(one) for _ in range(5)] == whole[:5]
    other = ordered_imap(range(20), 0, indices=sampler())
    other.load_state_dict(one.state_dict())
    assert list(other) == whole[5:]


def seeded():
    return torch.Generator().manual_seed(3)


def of_blocks(sampler):
    """Return the indices of a batch sampler one by one, each epoch anew."""

    class Flat:
        def __iter__(self):
            return itertools.chain.from_iterable(sampler)

    return Flat()


SAMPLERS = {
    "random": lambda: torch.utils.data.RandomSampler(range(12), generator=seeded()),
    "replacement": lambda: torch.utils.data.RandomSampler(
        range(12), replacement=True, num_samples=40, generator=seeded()
    ),
    "weighted": lambda: torch.utils.data.WeightedRandomSampler([1.0, 5.0] * 6, 12, generator=seeded()),
    "subset": lambda: torch.utils.data.SubsetRandomSampler([3, 1, 4, 5, 9, 2, 6], generator=seeded()),
    "sequential": lambda: torch.utils.data.SequentialSampler(range(12)),
    "batches": lambda: of_blocks(torch.utils.data.BatchSampler(SAMPLERS["random"](), 5, drop_last=True)),
    "distributed": lambda: torch.utils.data.DistributedSampler(range(12), num_replicas=2, rank=1, seed=3),
}


@pytest.mark.parametrize("name", SAMPLERS)
def test_samplers_that_draw_anew_each_epoch_go_on_in_any(name):
    def made(**how):
        return ordered_imap(range(12), indices=SAMPLERS[name](), epochs=3, **{"workers": 0, **how})

    sampler, whole = SAMPLERS[name](), []
    for epoch in range(3):
        if name == "distributed":
            sampler.set_epoch(epoch)
        whole += map(int, sampler)
    assert list(made()) == whole
    assert name == "sequential" or whole[: len(whole) // 3] != whole[len(whole) // 3 : 2 * len(whole) // 3]
    for cut in range(len(whole) + 1):
        with made(workers=2, backend="threads", prefetch=8) as one:
            assert list(itertools.islice(one, cut)) == whole[:cut]
        other = made()
        other.load_state_dict(one.state_dict())
        assert list(other) == whole[cut:]
    if name in {"random", "weighted", "subset", "distributed"}:
        another = SAMPLERS[name]()
        if name == "distributed":
            another.seed = 4
        else:
            another.generator = torch.Generator().manual_seed(4)
        one = made()
        list(itertools.islice(one, 5))
        with pytest.raises(CheckpointError, match="the sampler or its seed is another"):
            ordered_imap(range(12), 0, indices=another, epochs=3).load_state_dict(one.state_dict())


def test_a_tensor_of_indices_is_read_at_once():
    order = torch.randperm(40, generator=seeded())
    mask = order > 20
    for held, expected in [
        (order, order.tolist()),
        (order.to(torch.int32)[::3], order.tolist()[::3]),
        (mask.nonzero(), mask.nonzero().flatten().tolist()),
        (torch.tensor([], dtype=torch.int64), []),
    ]:
        view = subset(range(40), held)
        assert isinstance(view.indices, np.ndarray)  # no tensor is made for each index
        assert list(view) == list(ordered_imap(range(40), 0, indices=held)) == expected
        assert list(ordered_imap(range(40), 0, indices=lambda _, held=held: held)) == expected
    for indices, message in [
        (mask, "of a mask, give the positions"),
        (torch.zeros(2, 2, dtype=torch.int64), "one dimension"),
        (torch.tensor(3), "an iterable of integers"),
        (torch.tensor([1.0]), "must be an integer"),
    ]:
        for call in (lambda: subset(range(40), indices), lambda: ordered_imap(range(40), 0, indices=indices)):  # noqa: B023
            with pytest.raises(TypeError, match=message):
                call()


# Random numbers


def drawn(_):
    return float(torch.rand(())), float(torch.randn(())), float(np.random.rand())


@pytest.mark.parametrize("backend", ["processes", "spawn"])
def test_the_seed_gives_torch_s_numbers_too(backend):
    torch.randn(1)  # of which more are kept ready
    before = torch.get_rng_state()
    whole = list(ordered_map(drawn, range(12), workers=0, seed=4))
    assert torch.equal(torch.get_rng_state(), before)
    assert len({number for numbers in whole for number in numbers}) == 36
    for chunksize in (1, 5, None):
        found = ordered_map(drawn, range(12), workers=2, prefetch=10, backend=backend, seed=4, chunksize=chunksize)
        assert list(found) == whole


def test_torch_s_numbers_are_these_in_every_version():
    class Item:
        def __len__(self):
            return 1 << 41

        def __getitem__(self, index):
            return int(torch.randint(1 << 40, ()))

    found = list(ordered_imap(Item(), 0, seed=2017, epochs=2, indices=[0, (1 << 40) - 1]))
    assert found == STORED


STORED = [526542377580, 661022158108, 915969510699, 883985257656]


def test_workers_without_a_seed_do_not_repeat_each_other_s_torch_numbers():
    torch.manual_seed(1)
    assert (
        len({number for numbers in ordered_map(drawn, range(40), workers=4, chunksize=1) for number in numbers}) == 120
    )


def test_a_worker_forked_while_a_thread_draws_does_not_wait_for_it():
    """The lock of the generator is inherited as it is, and the thread that has it is not."""
    stop = threading.Event()
    numbers = torch.empty(20_000_000)

    def draw():
        while not stop.is_set():
            numbers.normal_()

    thread = threading.Thread(target=draw)
    thread.start()
    try:
        for seed in (None, 1):
            assert list(ordered_imap(range(8), 2, item_timeout=20, seed=seed)) == list(range(8))
            with ProcessPoolExecutor(2, mp_context=get_context("fork")) as executor:
                assert list(ordered_imap(range(8), backend=executor, seed=seed)) == list(range(8))
    finally:
        stop.set()
        thread.join()


def test_torch_first_imported_within_an_item_is_seeded_for_it(script):
    path = script("""
import sys
from ordmap import ordered_map

def late(n):
    import torch
    return float(torch.rand(()))

assert "torch" not in sys.modules
found = list(ordered_map(late, range(4), workers=2, seed=4, chunksize=1))
assert "torch" not in sys.modules
assert list(ordered_map(late, range(4), workers=0, seed=4)) == found
import torch
after = float(torch.rand(()))
torch.manual_seed(torch.initial_seed())
assert float(torch.rand(())) == after
assert list(ordered_map(late, range(4), workers=0, seed=4)) == found
print(found)
""")
    done = subprocess.run([sys.executable, path], capture_output=True, text=True, timeout=100, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_sampler_that_keeps_its_state_is_not_gone_through_again():
    """Torchdata's do so; this is one of them in short."""

    class Stateful(torch.utils.data.RandomSampler):
        def __init__(self):
            super().__init__(range(20), generator=torch.Generator().manual_seed(3))
            self.yielded = self.resumed = 0

        def __iter__(self):
            self.yielded, self.resumed = self.resumed, 0
            for index in itertools.islice(super().__iter__(), self.yielded, None):
                self.yielded += 1
                yield index

        def state_dict(self):
            return {"yielded": self.yielded}

        def load_state_dict(self, state):
            self.resumed = state["yielded"]

    whole = list(ordered_imap(range(20), 0, indices=Stateful()))
    for position in range(21):
        one = ordered_imap(range(20), 2, 6, indices=Stateful(), chunksize=3)
        assert list(itertools.islice(one, position)) == whole[:position]
        one.close()
        other = ordered_imap(range(20), 0, indices=Stateful())
        other.load_state_dict(one.state_dict())
        assert list(other) == whole[position:]
