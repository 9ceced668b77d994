"""zarr, zarrs: An array is read before the loop by codecs in Rust, whose threads stay; each item reads a column.

Write: as it is
Reported: zarrs/zarrs-python#171
"""

import sys

import numpy as np
import zarr

from ordmap import ordered_map

zarr.config.set({"codec_pipeline.path": "zarrs.ZarrsCodecPipeline"})
array = zarr.create_array("numbers.zarr", shape=(20, 1000), chunks=(1, 50), dtype="i8")
array[:] = np.arange(20_000).reshape(20, 1000)


def total(i):
    zarr.config.set({"codec_pipeline.path": "zarrs.ZarrsCodecPipeline"})
    return int(zarr.open_array("numbers.zarr", mode="r")[:, i].sum())


wanted = [total(i) for i in range(20)]
assert list(ordered_map(total, range(20), workers=2, backend=sys.argv[1])) == wanted
