"""CSV files into shared frames: what pandas reads of them."""

from __future__ import annotations

import io

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from arrow_tables import check, segments
from numpush import filling

N = 3333

CSV = {
    "types": ("a,b,c,d\n1,1.5,x,True\n2,,y,False\n3,2.5,,True\n", {}),
    "duplicate_names": ("a,a,,b,a\n1,2,3,4,5\n", {}),
    "signs_and_spaces": ("a,b\n+5,x y\n 6 , z\n", {}),
    "hexadecimal_is_text": ("a\n0x10\n5\n", {}),
    "blank_lines": ("a\n1\n\n3\n", {}),
    "nothing_in_a_column": ("a,b\n1,\n2,\n", {}),
    "no_rows": ("a,b\n", {}),
    "unsigned": ("a\n18446744073709551615\n1\n", {}),
    "negative": ("a\n-5\n7\n", {}),
    "floats": ("a\ninf\n-inf\n.5\n1.\n1e5\n", {}),
    "missing": ("a,b\nNA,null\n1,x\n#N/A,nan\n", {}),
    "quotes": ('a,b\n"x\ny",1\n"q""q",2\n"",3\n', {}),
    "bom": ("\ufeffa,b\n1,2\n", {}),
    "no_end_of_line": ("a,b\n1,2", {}),
    "windows": ("a,b\r\n1,x\r\n2,y\r\n", {}),
    "sep": ("a;b\n1;2\n", {"sep": ";"}),
    "tabs": ("a\tb\n1\t2\n", {"delimiter": "\t"}),
    "no_header": ("1,2\n3,4\n", {"header": None}),
    "names": ("1,2\n3,4\n", {"names": ["x", "y"]}),
    "other_names": ("h,g\n1,2\n", {"names": ["x", "y"], "header": 0}),
    "usecols": ("a,b,c\n1,2,3\n", {"usecols": ["c", "a"]}),
    "usecols_by_position": ("a,b,c\n1,2,3\n", {"usecols": [0, 2]}),
    "usecols_by_function": ("a,b,c\n1,2,3\n", {"usecols": lambda name: name != "b"}),
    "index": ("a,b,c\n1,x,3\n2,y,4\n", {"index_col": "b"}),
    "index_by_position": ("a,b,c\n1,2,3\n", {"index_col": 0}),
    "category": ("a,b\n1,x\n2,y\n1,\n3,a\n", {"dtype": {"b": "category", "a": "int8"}}),
    "masked": ("a,b,c\n1,x,True\n,y,\n", {"dtype": {"a": "Int64", "b": "string", "c": "boolean"}}),
    "given": ("a,b\n1,007\n,8\n", {"dtype": {"a": "float32", "b": "str"}}),
    "all_text": ("a,b\n1,007\n,8\n", {"dtype": str}),
    "na_values": ("a,b\n1,x\n-,y\n", {"na_values": "-"}),
    "na_values_only": ("a,b\nNA,x\n-,\n", {"na_values": ["-"], "keep_default_na": False}),
    "truth": ("a\nyes\nno\nTrue\n", {"true_values": ["yes"], "false_values": ["no"]}),
    "skiprows": ("junk\na,b\n1,2\n", {"skiprows": 1}),
    "dates": ("t\n2020-01-01\n2020-02-03\n\n", {"parse_dates": ["t"]}),
    "times": ("t,b\n2020-01-01 10:00:00.5,1\n,2\n", {"parse_dates": ["t"]}),
    "nanoseconds": ("t,b\n2020-01-01 00:00:00.123456789,1\n", {"parse_dates": [0]}),
    "american_dates": ("t,b\n01/02/2020,1\n02/13/2020,1\n", {"parse_dates": ["t"]}),
    "zone": ("t,b\n2020-01-01T00:00:00Z,1\n", {"parse_dates": ["t"]}),
    "no_dates": ("t,b\nhello,1\n", {"parse_dates": ["t"]}),
    "latin": ("a,b\nh\xe9,1\n", {"encoding": "latin-1"}),
}


class TestCsv:
    @pytest.mark.parametrize("kind", CSV)
    def test_it_is_what_pandas_reads(self, kind, tmp_path):
        text, kwargs = CSV[kind]
        path = tmp_path / "f.csv"
        path.write_bytes(text.encode(kwargs.get("encoding", "utf-8")))
        check(filling.read_csv(path, **kwargs), pd.read_csv(path, **kwargs))

    def test_types_are_those_of_the_whole_file(self, tmp_path, monkeypatch):
        """What a column is may show late, and then once more."""
        monkeypatch.setattr(filling.csv, "_BLOCK", 1000)
        path = tmp_path / "f.csv"
        rows = [f"{i},{i},{i / 7},{i % 2 == 0},,w{i},2020-01-01" for i in range(N)]
        rows[1000] = "1.5,1,1,True,,x,"
        rows[2000] = "1.5,1,,maybe,7,x,2021-01-01 00:00:00"
        path.write_text("a,b,c,d,e,f,g\n" + "\n".join(rows) + "\n")
        expected = pd.read_csv(path, low_memory=False)
        check(filling.read_csv(path), expected)
        monkeypatch.setattr(filling.csv, "_KEEP", 1000)
        check(filling.read_csv(path), expected)
        only = {"usecols": ["a", "b", "c"]}
        check(filling.read_csv(path, **only), expected[only["usecols"]])

    def test_compressed_files_and_file_objects(self, tmp_path):
        frame = pd.DataFrame({"a": [1, 2], "b": ["x", "y"]})
        for suffix in (".gz", ".bz2"):
            path = tmp_path / f"f.csv{suffix}"
            frame.to_csv(path, index=False)
            check(filling.read_csv(path), frame)
        text = frame.to_csv(index=False)
        check(filling.read_csv(io.BytesIO(text.encode())), frame)
        with pytest.raises(TypeError, match="binary file wanted"):
            filling.read_csv(io.StringIO(text))

    @pytest.mark.parametrize(
        "kwargs",
        [
            {"nrows": 1}, {"chunksize": 5}, {"sep": r"\s+"}, {"header": 3}, {"index_col": [0, 1]},
            {"na_values": {"a": "x"}}, {"parse_dates": True}, {"skiprows": [1, 2]}, {"names": ["x"]},
            {"thousands": ","}, {"converters": {}},
        ],
        ids=str,
    )  # fmt: skip
    def test_what_it_does_not_take_is_named_with_the_remedy(self, tmp_path, kwargs):
        path = tmp_path / "f.csv"
        path.write_text("a,b\n1,2\n")
        (key,) = kwargs
        with pytest.raises(TypeError, match=rf"{key}=.*SDataFrame\(pd\.read_csv"):
            filling.read_csv(path, **kwargs)

    @pytest.mark.parametrize(
        ("text", "kwargs", "error", "words"),
        [
            ("a,b\n1,2\n3\n", {}, ValueError, "f.csv: .*Expected 2 columns"),
            ("", {}, ValueError, "f.csv: no columns"),
            ("a\n1\n\nx\n", {"dtype": {"a": "i8"}}, ValueError, "f.csv.*column 'a'"),
            ("a,b\n1,2\n,3\n", {"dtype": {"a": "i8"}}, ValueError, "missing values"),
            ("a\n99999999999999999999\n", {}, TypeError, "column 'a' has integers beyond 64 bits"),
            ("a\n1\n", {"dtype": {"a": "Sparse[int]"}}, TypeError, "column 'a'"),
            ("a\n1\n", {"usecols": ["z"]}, ValueError, "no column 'z'"),
            ("a\n1\n", {"parse_dates": ["z"]}, ValueError, "no column 'z'"),
        ],
    )
    def test_errors_name_what_is_wrong(self, tmp_path, text, kwargs, error, words):
        path = tmp_path / "f.csv"
        path.write_text(text)
        with pytest.raises(error, match=words):
            filling.read_csv(path, **kwargs)
        assert segments() == set()

    @settings(max_examples=40, deadline=None)
    @given(st.data())
    def test_what_pandas_writes_comes_back(self, data):
        n = data.draw(st.integers(1, 30))
        kinds = {
            "i": st.integers(-(2**63), 2**63 - 1),
            "f": st.floats(allow_nan=False, allow_infinity=False),
            "s": st.text("abc,\"'; é", min_size=1, max_size=5).map(lambda s: f"_{s}"),
            "b": st.booleans(),
        }
        frame = pd.DataFrame(
            {
                name: data.draw(st.lists(some, min_size=n, max_size=n))
                for name, some in kinds.items()
            }
        )
        text = frame.to_csv(index=False).encode()
        expected = pd.read_csv(io.BytesIO(text))
        check(filling.read_csv(io.BytesIO(text)), expected)
