"""NumPy's inner loops as LLVM IR, around functions of one element.

    void loop(char **args, intptr_t *n, intptr_t *steps, void *report)

(1) A loop has two ways: one for operands that lie together, which LLVM vectorises, and one for any steps.
(2) Functions that numba made return a status. The first that is not 0 ends the loop: `report`, if there
    is one, is called with it and gives the exception, which is set with the GIL held; NumPy then raises
    it.
(3) Booleans are bytes in memory and bits in LLVM's functions.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .. import llvm
from ..llvm.guard import guarded
from .ir import Function, quote
from .signatures import llvm_of_dtype

__all__ = ["C_API", "add_loop", "is_scalar"]

_SIZES = {"i1": 1, "i8": 1, "i16": 2, "i32": 4, "i64": 8, "float": 4, "double": 8}

#: What a loop of rule (2) calls of Python.
C_API = (
    "PyErr_SetObject", "PyGILState_Ensure", "PyGILState_Release", "PyObject_Type", "Py_DecRef"
)  # fmt: skip
_FAILURE = """\
declare i32 @PyGILState_Ensure()
declare void @PyGILState_Release(i32)
declare i8* @PyObject_Type(i8*)
declare void @PyErr_SetObject(i8*, i8*)
declare void @Py_DecRef(i8*)
"""
_REPORT = """\
failed:
  %status = phi i32 {statuses}
  %what = load i8*, i8** %exception
  %state = call i32 @PyGILState_Ensure()
  %reporter = bitcast i8* %data to i8* (i32, i8*)*
  %error = call i8* %reporter(i32 %status, i8* %what)
  %class = call i8* @PyObject_Type(i8* %error)
  call void @PyErr_SetObject(i8* %class, i8* %error)
  call void @Py_DecRef(i8* %class)
  call void @Py_DecRef(i8* %error)
  call void @PyGILState_Release(i32 %state)
  ret void
"""


def is_scalar(function: Function) -> bool:
    """Whether there can be a loop around it: numbers in, one number out."""
    types = (*function.args, function.result)
    return bool(function.args) and not function.is_vararg and all(t in _SIZES for t in types)


@guarded
def add_loop(
    module: Any, name: str, function: Function, symbol: str, *, result: np.dtype | None = None
) -> None:
    """Put a loop around a function of *module* into it, as *symbol*.

    Parameters
    ----------
    result : dtype, optional
        The function is one that numba made, as ``int32 name(result *, exception **, args...)``; its
        `Function` has the arguments after those two.
    """
    if result is None:
        text = _loop(quote(name), function, quote(symbol), function.result, has_status=False)
    else:
        text = _loop(quote(name), function, quote(symbol), llvm_of_dtype(result), has_status=True)
    around = llvm.parse(text)
    around.triple, around.data_layout = module.triple, module.data_layout
    module.link_in(around)


def _loop(name: str, function: Function, symbol: str, result: str, *, has_status: bool) -> str:
    n_in = len(function.args)
    types = [*function.args, result]
    parameters = list(function.args)
    if has_status:
        parameters[:0] = [f"{_memory(result)}*", "i8**"]
    lines = [
        _FAILURE if has_status else "",
        f"declare {'i32' if has_status else result} @{name}({', '.join(parameters)})",
        f"define void @{symbol}(i8** noalias %args, i64* noalias %dims, i64* noalias %steps, i8* %data) {{",
        "entry:",
        "  %n = load i64, i64* %dims",
    ]
    if has_status:
        lines += [f"  %slot = alloca {_memory(result)}", "  %exception = alloca i8*"]
    together = "true"
    for i, kind in enumerate(types):
        lines += [
            f"  %pp{i} = getelementptr i8*, i8** %args, i64 {i}",
            f"  %p{i} = load i8*, i8** %pp{i}",
            f"  %t{i} = bitcast i8* %p{i} to {_memory(kind)}*",
            f"  %sp{i} = getelementptr i64, i64* %steps, i64 {i}",
            f"  %s{i} = load i64, i64* %sp{i}",
            f"  %c{i} = icmp eq i64 %s{i}, {_SIZES[kind]}",
            f"  %a{i} = and i1 {together}, %c{i}",
        ]
        together = f"%a{i}"
    lines += [
        "  %any = icmp sgt i64 %n, 0",
        "  br i1 %any, label %some, label %done",
        "some:",
        f"  br i1 {together}, label %fast, label %slow",
    ]
    for way in ("fast", "slow"):
        last = f"{way}_good" if has_status else way
        lines += [f"{way}:", f"  %{way}_i = phi i64 [0, %some], [%{way}_next, %{last}]"]
        values = []
        for i, kind in enumerate(types):
            lines += _place(way, i, kind)
            if i < n_in:
                lines += _load(f"%{way}_v{i}", kind, f"%{way}_q{i}")
                values.append(f"{kind} {function.widening[i]} %{way}_v{i}")
        lines += _call(name, values, way, result, has_status=has_status)
        stored = f"%{way}_r"
        if result == "i1" and not has_status:
            lines.append(f"  %{way}_byte = zext i1 {stored} to i8")
            stored = f"%{way}_byte"
        lines += [
            f"  store {_memory(result)} {stored}, {_memory(result)}* %{way}_q{n_in}, align 1",
            f"  %{way}_next = add nuw nsw i64 %{way}_i, 1",
            f"  %{way}_end = icmp eq i64 %{way}_next, %n",
            f"  br i1 %{way}_end, label %done, label %{way}",
        ]
    lines += ["done:", "  ret void"]
    if has_status:
        lines.append(_REPORT.format(statuses="[%fast_status, %fast], [%slow_status, %slow]"))
    return "\n".join([*lines, "}"])


def _memory(kind: str) -> str:
    return "i8" if kind == "i1" else kind


def _place(way: str, i: int, kind: str) -> list[str]:
    """Return the address of this iteration's element of operand *i*: %way_q<i>."""
    memory = _memory(kind)
    if way == "fast":
        return [f"  %fast_q{i} = getelementptr inbounds {memory}, {memory}* %t{i}, i64 %fast_i"]
    return [
        f"  %slow_o{i} = mul nsw i64 %slow_i, %s{i}",
        f"  %slow_b{i} = getelementptr inbounds i8, i8* %p{i}, i64 %slow_o{i}",
        f"  %slow_q{i} = bitcast i8* %slow_b{i} to {memory}*",
    ]


def _load(value: str, kind: str, address: str) -> list[str]:
    if kind != "i1":
        return [f"  {value} = load {kind}, {kind}* {address}, align 1"]
    return [f"  {value}_ = load i8, i8* {address}, align 1", f"  {value} = icmp ne i8 {value}_, 0"]


def _call(name: str, values: list[str], way: str, result: str, *, has_status: bool) -> list[str]:
    """Return a call that leaves the result in %way_r."""
    if not has_status:
        return [f"  %{way}_r = call {result} @{name}({', '.join(values)})"]
    memory = _memory(result)
    arguments = ", ".join([f"{memory}* %slot", "i8** %exception", *values])
    return [
        f"  %{way}_status = call i32 @{name}({arguments})",
        f"  %{way}_ok = icmp eq i32 %{way}_status, 0",
        f"  br i1 %{way}_ok, label %{way}_good, label %failed",
        f"{way}_good:",
        f"  %{way}_r = load {memory}, {memory}* %slot",
    ]
