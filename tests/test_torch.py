"""PyTorch's CPU tensors. It is large, and no part of the suite's own set-up: ``python3 .ci/dev.py test-torch``."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="PyTorch is installed by `python3 .ci/dev.py test-torch`")

from ordmap import ordered_imap
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
