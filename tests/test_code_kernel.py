"""Kernels travel signed, run where numba is not loaded, and are refused like other code."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

import numpush
from code_samples import run
from numpush import SArray, code, llvm
from numpush.code import CodeError, CodeMismatch, Keyring
from numpush.code.envelope import seal, unseal

RING = Keyring.generate()
TICK = np.dtype([("price", "f8"), ("size", "i4")], align=True)


@numpush.kernel("const f8[:], f8[:], f8", "const f4[:], f4[:], f4")
def scale(i0, i1, x, y, c):
    for i in range(i0, i1):
        if x[i] < 0:
            raise ValueError("negative", 7)
        y[i] = x[i] * c


@numpush.kernel("tick[:], f8[:]", types={"tick": TICK})
def value(i0, i1, ticks, out):
    for i in range(i0, i1):
        out[i] = ticks[i].price * ticks[i].size


@pytest.fixture(scope="module")
def payload():
    return code.dumps(scale, keyring=RING)


@pytest.mark.parametrize("portable", [False, True])
def test_a_kernel_runs_in_a_process_that_has_not_seen_it(tmp_path, portable):
    (tmp_path / "payload").write_bytes(code.dumps(scale, portable=portable, keyring=RING))
    found = run(
        "import sys\nfrom pathlib import Path\nimport numpy as np\nfrom numpush import SArray, code\n"
        "ring = code.Keyring.from_env('THE_KEYS')\n"
        "kernel = code.loads(Path(sys.argv[1]).read_bytes(), keyring=ring)\n"
        "for dtype in 'f8', 'f4':\n"
        "    x, y = SArray(np.arange(6, dtype=dtype)), SArray.zeros(6, dtype=dtype)\n"
        "    kernel(1, 5, x, y, x.dtype.type(3))\n"
        "    print(y.tolist())\n"
        "x[2] = -1\n"
        "try: kernel(0, 6, x, y, x.dtype.type(3))\n"
        "except ValueError as error: print(error.args)\n"
        "print(kernel, 'numba' in sys.modules)",
        tmp_path / "payload",
        THE_KEYS=RING.export(),
    )
    assert found.splitlines() == [
        "[0.0, 3.0, 6.0, 9.0, 12.0, 0.0]",
        "[0.0, 3.0, 6.0, 9.0, 12.0, 0.0]",
        "('negative', 7)",
        f"{scale!r} False",
    ]


def test_structured_elements_and_single_variants_travel():
    ticks, out = np.ones(3, TICK), np.zeros(3)
    ticks["size"] = 5
    for obj in (value, value.variant(ticks, out)):
        loaded = code.loads(code.dumps(obj, keyring=RING), keyring=RING)
        assert type(loaded) is type(obj)
        out[:] = 0
        loaded(0, 2, ticks, out)
        assert out.tolist() == [5, 5, 0]


def test_a_function_becomes_a_kernel_on_its_way():
    def add(i0, i1, x):
        for i in range(i0, i1):
            x[i] += 1

    data = code.dumps(add, kind="kernel", sig="i8[:]", keyring=RING)
    x = SArray.zeros(3, dtype="i8")
    code.loads(data, keyring=RING)(0, 2, x)
    assert x.tolist() == [1, 1, 0]


def test_what_arrived_is_sent_on_as_it_came(payload):
    loaded = code.loads(payload, keyring=RING)
    assert unseal(code.dumps(loaded, keyring=RING), RING) == unseal(payload, RING)
    assert [v.key for v in loaded.variants] == [v.key for v in scale.variants]


def changed(data, **fields):
    """The payload with other fields in its first variant, signed right."""
    payload = unseal(data, RING)
    variants = [payload.meta["variants"][0] | fields, *payload.meta["variants"][1:]]
    return seal(dataclasses.replace(payload, meta=payload.meta | {"variants": variants}), RING)


def test_a_kernel_that_is_not_for_this_machine_is_refused_or_made_anew(payload):
    here = llvm.host()
    better = {"triple": here.triple, "features": ["warp"], "flags": ["warp"], "llvm": here.llvm}
    loaded = code.loads(changed(payload, target=better), keyring=RING)
    assert loaded.variants[0].target == here
    x, y = np.arange(3.0), np.zeros(3)
    loaded(0, 3, x, y, 2.0)
    assert y.tolist() == [0, 2, 4]
    for other in ({"triple": "riscv64-linux-gnu"}, {"llvm": "99.0.0"}):
        with pytest.raises(CodeMismatch):
            code.loads(changed(payload, target=better | other), keyring=RING)


@pytest.mark.parametrize(
    "fields",
    [
        {"arguments": [["x", "array"]]},
        {"arguments": [["x", "thing", "<f8", 1, "C", False, True]]},
        {"arguments": [["x", "array", "nonsense", 1, "C", False, True]]},
        {"arguments": "f8"},
        {"place": None},
    ],
)
def test_a_kernel_whose_fields_mean_nothing_is_an_error_of_code(payload, fields):
    with pytest.raises(CodeError, match="payload of kernel"):
        code.loads(changed(payload, **fields), keyring=RING)
