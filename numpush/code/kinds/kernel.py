"""Kernels: what each kind of arguments was compiled to: the arguments, bitcode and object code."""

from __future__ import annotations

from typing import Any

from ...kernels.arguments import ARRAY, MUTEX, NUMBER, Argument
from ...kernels.declaring import Kernel, kernel
from ...kernels.variant import Variant
from ...layout.dtype import decode_dtype, encode_dtype
from ...layout.schema import SchemaError
from ..envelope import Payload
from ..errors import CodeError
from .machine import describe_target, place

__all__ = ["pack", "unpack"]


def pack(obj: Any, sig: Any, portable: bool) -> tuple[dict[str, Any], dict[str, bytes]]:
    if isinstance(obj, Variant):
        name, declared, variants = obj.name, [obj.arguments], (obj,)
    else:
        if not isinstance(obj, Kernel):
            obj = kernel(sig)(obj)
        name, declared, _, _, variants = obj.__reduce__()[1]
    meta = {
        "name": name,
        "is_variant": isinstance(obj, Variant),
        "declared": [list(map(_pack_argument, arguments)) for arguments in declared],
        "variants": [
            {
                "place": variant.place,
                "arguments": list(map(_pack_argument, variant.arguments)),
                "target": describe_target(variant.target),
            }
            for variant in variants
        ],
    }
    blobs = {}
    for i, variant in enumerate(variants):
        blobs[f"bitcode{i}"] = variant.bitcode
        if not portable:
            blobs[f"object{i}"] = variant.object_code
    return meta, blobs


def unpack(payload: Payload) -> Kernel | Variant:
    name = payload.get("name", str)
    variants = [
        _unpack_variant(payload, name, i, found)
        for i, found in enumerate(payload.get("variants", list))
    ]
    if payload.get("is_variant", bool) and len(variants) == 1:
        return variants[0]
    declared = [_unpack_arguments(found) for found in payload.get("declared", list)]
    return Kernel(name, declared, variants=variants)


def _unpack_variant(payload: Payload, name: str, i: int, found: Any) -> Variant:
    match found:
        case {"place": str(where), "arguments": list(arguments), "target": dict(target)}:
            bitcode = payload.blob(f"bitcode{i}")
            object_code, made_for = place(
                target, bitcode, payload.blobs.get(f"object{i}"), inline=False
            )
            return Variant(
                name, where, _unpack_arguments(arguments), bitcode, object_code, made_for
            )
    raise CodeError(f"payload of kernel: no variant of one: {found!r}")


def _pack_argument(argument: Argument) -> list[Any]:
    return list(argument._replace(dtype=encode_dtype(argument.dtype)))  # type: ignore[arg-type]  # as it travels


def _unpack_arguments(found: list[Any]) -> tuple[Argument, ...]:
    return tuple(map(_unpack_argument, found))


def _unpack_argument(found: Any) -> Argument:
    match found:
        case [str(name), str(kind), dtype, int(ndim), str(layout), bool(readonly), bool(aligned)]:
            if kind in (ARRAY, NUMBER, MUTEX) and layout in ("A", "C", "F"):
                try:
                    dtype = decode_dtype(dtype)
                except SchemaError as error:
                    raise CodeError(f"payload of kernel: argument {name}: {error}") from error
                return Argument(name, kind, dtype, ndim, layout, readonly, aligned)
    raise CodeError(f"payload of kernel: no argument of one: {found!r}")
