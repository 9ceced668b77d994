"""torch: A network is trained with two threads before the loop, and each item predicts.

Write: as it is
"""

import sys

import torch

from ordmap import ordered_map

torch.set_num_threads(2)
samples = torch.rand(4000, 50)
network = torch.nn.Sequential(torch.nn.Linear(50, 200), torch.nn.ReLU(), torch.nn.Linear(200, 1))
optimizer = torch.optim.SGD(network.parameters(), lr=0.01)
for _ in range(5):
    optimizer.zero_grad()
    (network(samples) - samples.sum(1, keepdim=True)).pow(2).mean().backward()
    optimizer.step()


def predicted(i):
    with torch.no_grad():
        return network(samples[i * 400 : (i + 1) * 400])


wanted = [predicted(i) for i in range(6)]
for found, right in zip(ordered_map(predicted, range(6), workers=2, backend=sys.argv[1]), wanted, strict=True):
    assert torch.allclose(found, right)
