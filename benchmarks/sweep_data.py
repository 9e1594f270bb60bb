"""Tables of the sweeps, made once per folder: keys with 10^d distinct values for every decade d, and build sides of joins.

A family is a kind of key and an order of rows. Its table `groups_<family>` has a key per decade (`k0`, `k1`, …; pairs have
`k0a`, `k0b`) and a value `v`; every key value stands equally often. For joins, `build_<family>_<d>` holds each of the 10^d
key values once. Kinds: `dense` integers 0 … n, `sparse` ones spread over 64 bits, `pair`s of integers, `text`.
"""

import json
import pathlib

import numpy
import pyarrow
import pyarrow.parquet

KINDS = ["dense", "sparse", "pair", "text"]
ORDERS = ["random", "sorted"]
JOINED = ["dense", "sparse"]
# A cardinality of text beyond this is not among what is measured.
TEXT_DECADES = 5
# Odd, so that multiplication modulo 2^64 maps different numbers to different ones.
SPREAD = numpy.uint64(0x9E37_79B9_7F4A_7C15)
ROW_GROUP_ROWS = 1 << 20


def families():
    return [(kind, order) for kind in KINDS for order in ORDERS]


def decades_of(kind, decades):
    return min(decades, TEXT_DECADES) if kind == "text" else decades


def key_names(kind, decade):
    return [f"k{decade}a", f"k{decade}b"] if kind == "pair" else [f"k{decade}"]


def make(folder: pathlib.Path, decades: int, seed=11):
    """All tables over 10^decades rows, unless they are there."""
    stamp = folder / ".sweeps.json"
    made_for = {"decades": decades, "seed": seed, "layout": 1}
    if stamp.exists() and json.loads(stamp.read_text()) == made_for:
        return
    folder.mkdir(parents=True, exist_ok=True)
    rng = numpy.random.default_rng(seed)
    rows = 10**decades
    values = rng.integers(0, 100, rows)
    shuffled = rng.permutation(rows)
    for kind, order in families():
        columns = {"v": pyarrow.array(values)}
        for decade in range(decades_of(kind, decades) + 1):
            count = 10**decade
            index = shuffled % count if order == "random" else numpy.arange(rows) // (rows // count)
            columns |= zip(key_names(kind, decade), keys(kind, index, decade))
        write(folder / f"groups_{kind}_{order}.parquet", columns)
    for kind in JOINED:
        for order in ORDERS:
            for decade in range(1, decades + 1):
                index = rng.permutation(10**decade) if order == "random" else numpy.arange(10**decade)
                (key,) = keys(kind, index, decade)
                write(folder / f"build_{kind}_{order}_{decade}.parquet", {"k": key, "w": pyarrow.array(index % 10)})
    stamp.write_text(json.dumps(made_for))


def keys(kind, index, decade):
    """The key columns whose values stand for `index`, which is below 10^decade."""
    if kind == "dense":
        return [pyarrow.array(index)]
    if kind == "sparse":
        return [pyarrow.array((index.astype(numpy.uint64) * SPREAD).view(numpy.int64))]
    if kind == "pair":
        width = 10 ** ((decade + 1) // 2)
        return [pyarrow.array(index // width), pyarrow.array(index % width)]
    names = pyarrow.array([f"Customer#{number:09}" for number in range(10**decade)])
    return [names.take(pyarrow.array(index))]


def write(path, columns):
    pyarrow.parquet.write_table(pyarrow.table(columns), path, row_group_size=ROW_GROUP_ROWS)
