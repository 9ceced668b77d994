"""distributed: A Dask cluster of two processes works beside the loop, and goes on after it.

Write: as it is
"""

import sys

from distributed import Client, LocalCluster

from ordmap import ordered_map

if __name__ == "__main__":  # for Dask's sake
    cluster = LocalCluster(n_workers=2, threads_per_worker=1, processes=True, dashboard_address=":0")
    with cluster, Client(cluster) as client:
        assert client.submit(abs, -1).result(timeout=60) == 1
        assert list(ordered_map(abs, range(-5, 0), workers=2, backend=sys.argv[1])) == [5, 4, 3, 2, 1]
        assert client.submit(abs, -2).result(timeout=60) == 2
        assert len(client.scheduler_info()["workers"]) == 2
