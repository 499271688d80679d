"""What can be written to a frame: frames, and operations by name, in every spelling of pandas."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd

N = 8


def make_plain() -> pd.DataFrame:
    return pd.DataFrame(
        {
            "a": np.arange(0.0, N),
            "b": np.arange(10.0, 10 + N),
            "c": np.arange(20.0, 20 + N),
            "i": np.arange(N),
            "j": np.arange(100, 100 + N),
            "t": pd.date_range("2020-01-01", periods=N, unit="ns"),
            "twice": np.arange(N) // 2,
        }
    )


def make_mixed() -> pd.DataFrame:
    """As make_plain, and a column of every other family of dtypes."""
    frame = make_plain()
    frame["k"] = pd.Categorical(list("xyxyxyxy"))
    frame["m"] = pd.array([1, None, 3, 4, 5, 6, 7, 8], dtype="Int64")
    frame["z"] = pd.date_range("2020-01-01", periods=N, tz="Europe/Paris", unit="ns")
    frame["q"] = np.array([True, False] * (N // 2))
    frame["s"] = pd.array(list("abcdefgh"), dtype="string[pyarrow]")
    frame["o"] = np.array(list("abcdefgh"), dtype=object)
    return frame


def set_(indexer: str, key: Any, value: Any) -> Callable[[Any], None]:
    def operate(df: Any) -> None:
        getattr(df, indexer)[key] = value

    return operate


def item(key: Any, value: Any) -> Callable[[Any], None]:
    def operate(df: Any) -> None:
        df[key] = value(df) if callable(value) else value

    return operate


def row() -> list[Any]:
    return [99.0, 99.0, 99.0, 99, 99, pd.Timestamp(99), 99]


def mask(df: Any) -> Any:
    return df["a"] < 3


def add_to(df: Any) -> None:
    df["a"] += 1


def add_to_cell(df: Any) -> None:
    df.loc[0, "a"] += 95


def add_to_all(df: Any) -> None:
    df += 1


def set_attribute(df: Any) -> None:
    df.a = 99.0


def delete(df: Any) -> None:
    del df["a"]


def fill(df: Any) -> None:
    df.loc[0, "a"] = np.nan
    df.fillna(99.0, inplace=True)


def fill_some(df: Any) -> None:
    df.loc[0, "a"] = np.nan
    df.fillna({"a": 99.0}, inplace=True)


def fill_back(df: Any) -> None:
    df.loc[0, "a"] = np.nan
    df.bfill(inplace=True)


def fill_chained(df: Any) -> None:
    df.loc[0, "a"] = np.nan
    df["a"].fillna(99.0, inplace=True)


def retype_and_write(df: Any) -> None:
    df["i"] = df["i"] * 1.5
    df.loc[0, "i"] = 7.25
    df["a"] = df["i"]
    df.loc[1, "a"] = -3.0


def new_and_write(df: Any) -> None:
    df["n"] = df["b"]
    df.loc[0, "n"] = 7.0


def drop_doubles(df: Any) -> None:
    df.drop_duplicates("i", inplace=True)


def write_array(df: Any) -> None:
    df["a"].array[0] = 99.0


def write_values(df: Any) -> None:
    df.values[0, 0] = 99.0


def write_column_values(df: Any) -> None:
    df["a"].values[0] = 99.0


def write_to_numpy(df: Any) -> None:
    df["a"].to_numpy()[0] = 99.0


def write_asarray(df: Any) -> None:
    np.asarray(df["a"])[0] = 99.0


def write_asarray_2d(df: Any) -> None:
    np.asarray(df[["a", "b", "c"]])[0, 0] = 99.0


def write_copyto(df: Any) -> None:
    np.copyto(df["a"].values, 99.0)


def write_out(df: Any) -> None:
    np.add(df["a"], 1, out=df["a"].values)


def write_chained(df: Any) -> None:
    df["a"].iloc[0] = 99.0


def write_of_list(df: Any) -> None:
    df[["a", "b"]][mask(df)] = 99


def swap(df: Any) -> None:
    df[["a", "b"]] = df[["b", "a"]].values


def swap_frames(df: Any) -> None:
    df[["a", "b"]] = df[["b", "a"]]


def reverse(df: Any) -> None:
    df["a"] = df["a"].array[::-1]


def where_some(df: Any) -> None:
    df[["a", "b", "c"]].where(df["a"] > 4, 99, inplace=True)


def clip_some(df: Any) -> None:
    df[["a"]].clip(upper=2, inplace=True)


#: From the start to the end in the order of what they do; the 75 of the prototype, and some.
OPERATIONS: dict[str, Callable[[Any], Any]] = {
    # cells
    "loc cell": set_("loc", (0, "a"), 99.0),
    "iloc cell": set_("iloc", (0, 0), 99.0),
    "at cell": set_("at", (0, "a"), 99.0),
    "iat cell": set_("iat", (0, 0), 99.0),
    "iat negative": set_("iat", (-1, -2), 99),
    "at int to float": set_("at", (0, "a"), 99),
    "at integral float to int": set_("at", (0, "i"), 5.0),
    "at half to int": set_("at", (0, "i"), 5.5),
    "at str to int": set_("at", (0, "i"), "x"),
    "at new row": set_("at", (N, "a"), 1.0),
    "at new column": set_("at", (0, "new"), 1.0),
    "iat out of range": set_("iat", (0, 99), 1.0),
    "loc whole row": lambda d: set_("loc", 0, [*row(), *d.iloc[1, 7:]])(d),
    "loc row scalar": set_("loc", 0, 99),
    "iloc row with a misfit": lambda d: set_("iloc", 0, [1.0, 2.0, 3.0, "x", 5, *d.iloc[1, 5:]])(d),
    "iloc block": set_("iloc", (slice(0, 2), slice(0, 2)), 99.0),
    "loc mask": lambda d: set_("loc", (mask(d), "a"), 99.0)(d),
    "loc mask two columns": lambda d: set_("loc", (mask(d), ["a", "b"]), 99.0)(d),
    "loc mask values": lambda d: set_("loc", (mask(d), "a"), [7.0, 8.0, 9.0])(d),
    "loc list": set_("loc", ([1, 3], "i"), [7, 9]),
    "loc callable": set_("loc", (lambda d: d["a"] > 3, "b"), -1.0),
    "loc column array": set_("loc", (slice(None), "a"), np.full(N, 99.0)),
    "loc column scalar": set_("loc", (slice(None), "a"), 99.0),
    "loc column int32 to int64": set_("loc", (slice(None), "i"), np.full(N, 99, "i4")),
    "loc column integral float": set_("loc", (slice(None), "i"), np.full(N, 99.0)),
    "loc column half": set_("loc", (slice(None), "i"), np.full(N, 99.5)),
    "loc upcast": set_("loc", (0, "i"), 1.5),
    "loc str to int": set_("loc", (0, "i"), "x"),
    "loc several with a misfit": set_("loc", (0, ["a", "i"]), [1.5, 2.5]),
    "loc rows with a misfit": set_("loc", (slice(0, 2), ["a", "i"]), 2.5),
    "loc two columns": set_("loc", (slice(None), ["a", "b"]), np.full((N, 2), 99.0)),
    "loc two columns of a frame": lambda d: set_(
        "loc", (slice(None), ["a", "b"]), pd.DataFrame({"b": d["a"], "a": d["b"]})
    )(d),
    "loc new column": set_("loc", (slice(None), "new"), 5.0),
    "loc old and new column": set_("loc", (slice(0, 2), ["a", "new"]), 5.0),
    "loc iterator": lambda d: set_("loc", (iter([0, 2]), iter(["a", "b"])), 5.0)(d),
    "loc with axis": lambda d: d.loc(axis=0).__setitem__(0, d.iloc[1].tolist()),
    "loc new row": lambda d: set_("loc", N, [*row(), *d.iloc[1, 7:]])(d),
    "iloc column array": set_("iloc", (slice(None), 0), np.full(N, 99.0)),
    "iloc column series": lambda d: set_("iloc", (slice(None), 0), d["b"])(d),
    "loc timestamp": set_("loc", (0, "t"), pd.Timestamp(12345)),
    "loc time from str": set_("loc", (0, "t"), "2021-05-05"),
    "loc column of another column": lambda d: set_("loc", (slice(None), "a"), d["b"])(d),
    # columns
    "array": item("a", np.full(N, 99.0)),
    "scalar": item("a", 99.0),
    "Series": item("a", pd.Series(np.full(N, 99.0))),
    "Series in another order": item("a", pd.Series(np.arange(9.0, 9 + N), index=range(N)[::-1])),
    "Series with a hole": item("i", pd.Series(np.arange(N - 1))),
    "list": item("i", list(range(N))),
    "iterator": item("i", lambda d: iter(range(N))),
    "dict": item("i", {i: i * 2 for i in range(N)}),
    "float32": item("a", np.full(N, 9, "f4")),
    "int to float column": item("a", 5),
    "too short": item("a", np.zeros(N - 1)),
    "two-dimensional": item("a", np.full((N, 1), 7.0)),
    "from another column": item("a", lambda d: d["b"]),
    "reversed": reverse,
    "swap": swap,
    "swap frames": swap_frames,
    "retype": item("i", lambda d: d["i"].astype(float)),
    "retype by another column": item("i", lambda d: d["a"]),
    "retype then write": retype_and_write,
    "new column then write": new_and_write,
    "new column": item("new", np.full(N, 99.0)),
    "times": item("t", np.full(N, 12345, "M8[ns]")),
    "times in another unit": item("t", np.full(N, 12345, "M8[s]")),
    "isetitem": lambda d: d.isetitem(0, np.full(N, 99.0)),
    "isetitem two": lambda d: d.isetitem([0, 1], d.iloc[:, [1, 0]]),
    "isetitem retype": lambda d: d.isetitem(0, np.full(N, 99)),
    "add to column": add_to,
    "add to cell": add_to_cell,
    "attribute": set_attribute,
    "two columns": item(["a", "b"], np.full((N, 2), 99.0)),
    "two columns, one of another dtype": item(["a", "i"], np.full((N, 2), 99.5)),
    "an old and a new column": item(["a", "new"], np.full((N, 2), 99.0)),
    "insert": lambda d: d.insert(0, "new", np.full(N, 99.0)),
    "insert too short": lambda d: d.insert(0, "new", np.full(N - 1, 99.0)),
    "del": delete,
    "pop": lambda d: d.pop("a"),
    "drop columns": lambda d: d.drop(columns="a", inplace=True),
    # rows
    "drop rows": lambda d: d.drop(index=0, inplace=True),
    "item of rows": lambda d: item(mask(d), [*row(), *d.iloc[1, 7:]])(d),
    "item of a slice": lambda d: item(slice(0, 2), [*row(), *d.iloc[1, 7:]])(d),
    "item of a 2-D mask": lambda d: item(d.isin([0.0, 1.0]), 99)(d),
    "item of a misfit 2-D mask": lambda d: item(d.isin([0.0, 1, 101]), 99.5)(d),
    "item of callable": lambda d: item(lambda x: x["a"] < 3, [*row(), *d.iloc[1, 7:]])(d),
    "list then rows": write_of_list,
    "sort_values": lambda d: d.sort_values("a", ascending=False, inplace=True),
    "drop_duplicates": lambda d: d.drop_duplicates("twice", inplace=True),
    "sort_values ignore_index": lambda d: d.sort_values(
        "a", ascending=False, inplace=True, ignore_index=True
    ),
    "sort_index": lambda d: d.sort_index(ascending=False, inplace=True),
    "drop_duplicates none": drop_doubles,
    "dropna none": lambda d: d.dropna(inplace=True),
    "query": lambda d: d.query("a>3", inplace=True),
    # raw arrays
    "values": write_values,
    "column values": write_column_values,
    "column array": write_array,
    "to_numpy": write_to_numpy,
    "asarray": write_asarray,
    "asarray of some": write_asarray_2d,
    "copyto": write_copyto,
    "out": write_out,
    "chained": write_chained,
    # methods
    "update": lambda d: d.update(pd.DataFrame({"a": [99.0] * N})),
    "update some": lambda d: d.update(pd.DataFrame({"a": [99.0], "i": [7]}, index=[3])),
    "update misfit": lambda d: d.update(pd.DataFrame({"a": [99.0], "i": [7.5]}, index=[3])),
    "fillna": fill,
    "fillna dict": fill_some,
    "fillna chained": fill_chained,
    "bfill": fill_back,
    "replace": lambda d: d.replace(0.0, 99.0, inplace=True),
    "replace misfit": lambda d: d.replace({0: 99.5, 101: 99.5}, inplace=True),
    "replace dict": lambda d: d.replace({"a": {0.0: 99.0}}, inplace=True),
    "where": lambda d: d.where(
        d["a"] > 2, d.shift(-1, fill_value=0).astype(d.dtypes), inplace=True
    ),
    "where some": where_some,
    "mask": lambda d: d[["a", "b"]].mask(d["a"] > 2, 99, inplace=True),
    "mask all": lambda d: d.mask(d["a"] < 2, d.iloc[::-1].set_axis(d.index), inplace=True),
    "clip some": clip_some,
    "eval": lambda d: d.eval("a=a+b", inplace=True),
    "eval new": lambda d: d.eval("y=a+b", inplace=True),
    "eval two lines": lambda d: d.eval("a=a+b\nnew=a", inplace=True),
    # labels
    "rename": lambda d: d.rename(columns={"a": "A"}, inplace=True),
    "rename to the same": lambda d: d.rename(columns={"a": "a"}, inplace=True),
    "rename_axis": lambda d: d.rename_axis(index="r", inplace=True),
    "columns": lambda d: setattr(d, "columns", [c.upper() for c in d.columns]),
    "columns in another order": lambda d: setattr(d, "columns", ["b", "a", *d.columns[2:]]),
    "columns as they are": lambda d: setattr(d, "columns", list(d.columns)),
    "index": lambda d: setattr(d, "index", pd.Index(np.arange(N) * 2)),
    "set_index": lambda d: d.set_index("i", inplace=True),
    "reset_index": lambda d: d.reset_index(inplace=True),
    "reset_index drop": lambda d: d.reset_index(drop=True, inplace=True),
}

#: Only where every column takes part in arithmetic.
NUMERIC = {"add to all": add_to_all, "where 99": lambda d: d.where(d != 0.0, 99, inplace=True)}
NUMERIC["mask 99"] = lambda d: d.mask(d == 1.0, 99, inplace=True)
NUMERIC["where misfit"] = lambda d: d.where(d != 101, 0.5, inplace=True)
NUMERIC["interpolate"] = lambda d: (
    set_("loc", (2, "a"), np.nan)(d),
    d.interpolate(inplace=True),
)
NUMERIC["clip"] = lambda d: d.clip(lower=1, upper=5, inplace=True)

#: Only with columns of other families.
MIXED: dict[str, Callable[[Any], Any]] = {
    "category": set_("loc", (0, "k"), "y"),
    "new category": set_("loc", (0, "k"), "new"),
    "category column": item("k", lambda d: d["k"].iloc[::-1].reset_index(drop=True)),
    "categories in another order": item("k", lambda d: d["k"].cat.set_categories(["y", "x"])),
    "category of strings": item("k", list("xxxxyyyy")),
    "masked": set_("loc", (0, "m"), None),
    "masked at": set_("at", (1, "m"), 5),
    "masked misfit": set_("loc", (0, "m"), 1.5),
    "masked column": item("m", lambda d: d["m"] + 1),
    "masked += 1": lambda d: item("m", d["m"] + 1)(d),
    "zoned": set_("loc", (0, "z"), pd.Timestamp("2021-01-01", tz="UTC")),
    "zoned column": item("z", lambda d: d["z"] + pd.Timedelta(1, "h")),
    "zoned to UTC": item("z", lambda d: d["z"].dt.tz_convert("UTC")),
    "bool": set_("loc", (0, "q"), False),
    "bool misfit": set_("loc", (0, "q"), 5),
    "string": set_("loc", (0, "s"), "new"),
    "string same": set_("loc", (0, "s"), "a"),
    "string column": item("s", list("hgfedcba")),
    "string upper": item("s", lambda d: d["s"].str.upper()),
    "object": set_("loc", (0, "o"), "new"),
    "object at": set_("at", (0, "o"), "new"),
    "object column": item("o", lambda d: d["o"].str.upper()),
    "several families": set_("loc", (slice(0, 2), ["a", "k", "m"]), np.nan),
    "strings among others": set_("loc", (slice(0, 2), ["a", "s"]), None),
    "objects among others": set_("loc", (slice(0, 2), ["a", "o"]), None),
    "replace category": lambda d: d.replace({"k": {"x": "y"}}, inplace=True),
    "fillna masked": lambda d: d.fillna({"m": 7}, inplace=True),
}
