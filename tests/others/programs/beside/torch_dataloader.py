"""torch: A `DataLoader` with two workers of its own is gone through beside the loop.

Write: as it is
Reported: pytorch/pytorch#13246
"""

import sys

import torch
from torch.utils.data import DataLoader

from ordmap import ordered_map

samples = torch.arange(40.0).reshape(20, 2)
loader = iter(DataLoader(samples, batch_size=2, num_workers=2, multiprocessing_context="fork"))
first = next(loader)
assert list(ordered_map(lambda i: samples[i].sum().item(), range(20), workers=2, backend=sys.argv[1])) == [
    4.0 * i + 1 for i in range(20)
]
assert torch.equal(torch.cat([first, *loader]), samples)
