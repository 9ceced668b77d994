"""The contract on a Dask cluster of separate processes, by way of its executor: the first way past one machine.

In a module of its own, since the cluster opens and closes sockets in this process as it likes.
"""

from __future__ import annotations

import pytest

from ordmap import FromExecutor
from ordmap.testing import BackendContract


@pytest.fixture(scope="module")
def cluster():
    distributed = pytest.importorskip("distributed")
    with (
        distributed.LocalCluster(n_workers=2, threads_per_worker=1, processes=True, dashboard_address=":0") as cluster,
        distributed.Client(cluster) as client,
    ):
        yield client


@pytest.mark.others_workers
class TestDask(BackendContract):
    connections_vary = True

    @pytest.fixture
    def backend(self, cluster):
        return FromExecutor(cluster.get_executor(), 2)
