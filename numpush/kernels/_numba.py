"""Every name of numba that is none of its public interface, for 0.61 to 0.68. Nobody else uses one.

`missing` looks for all of them; what compiles asks it first, so that another numba is named instead
of failing somewhere.
"""

from __future__ import annotations

import functools
import importlib
import warnings
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

try:
    import numba
except ImportError as error:
    raise ImportError(
        f"kernels are compiled by numba ({error}): pip install 'numpush[kernels]'"
    ) from error

import llvmlite.binding as ll
import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import lower_builtin, type_callable

from .. import llvm
from .arguments import ARRAY, MOST_ROWS, NUMBER, Argument

__all__ = [
    "CompileError",
    "Compiled",
    "Element",
    "argument_of",
    "compile_element",
    "compile_function",
    "element_pointer",
    "is_disabled",
    "missing",
    "provide",
    "runtime_addresses",
]

#: "module:name.name" of all that is used below.
PRIVATE_NAMES = (
    "numba.core.cgutils:get_item_pointer",
    "numba.core.cgutils:unpack_tuple",
    "numba.core.errors:NumbaError",
    "numba.core.errors:TypingError",
    "numba.core.errors:UnsupportedBytecodeError",
    "numba.core.registry:cpu_target.target_context",
    "numba.core.base:BaseContext.create_module",
    "numba.core.base:BaseContext.declare_function",
    "numba.core.base:BaseContext.get_abi_sizeof",
    "numba.core.base:BaseContext.get_data_type",
    "numba.core.base:BaseContext.unpack_value",
    "numba.core.compiler:CompilerBase",
    "numba.core.compiler:DefaultPassBuilder.define_nopython_pipeline",
    "numba.core.compiler_machinery:FunctionPass",
    "numba.core.compiler_machinery:PassManager.add_pass_after",
    "numba.core.compiler_machinery:register_pass",
    "numba.core.ir:Scope.make_temp",
    "numba.core.ir_utils:build_definitions",
    "numba.core.untyped_passes:IRProcessing",
    "numba.core.callconv:CPUCallConv.call_function",
    "numba.core.callconv:CPUCallConv.return_user_exc",
    "numba.core.codegen:CPUCodeLibrary._finalize_final_module",
    "numba.core.codegen:CPUCodeLibrary.get_llvm_str",
    "numba.core.codegen:CPUCodeLibrary.has_dynamic_globals",
    "numba.core.compiler:CompileResult.fndesc",
    "numba.core.compiler:CompileResult.library",
    "numba.core.runtime:rtsys.initialize",
    "numba.np.arrayobj:make_array",
    "numba.np.arrayobj:populate_array",
    "numba.np.numpy_support:as_dtype",
    "numba.np.numpy_support:from_dtype",
    "llvmlite.binding:ffi.lib._lock._lock",
)


def missing(names: Sequence[str] = PRIVATE_NAMES) -> list[str]:
    """Return those of *names* that this numba and llvmlite do not have."""
    return [name for name in names if not _has(name)]


def _has(name: str) -> bool:
    module, _, path = name.partition(":")
    try:
        found: Any = importlib.import_module(module)
        for part in path.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError):
        return False
    return True


@functools.cache
def _check() -> None:
    if lacking := missing():
        raise ImportError(
            f"numba {numba.__version__} lacks what numpush uses of it: {', '.join(lacking)}; "
            "0.61 to 0.68 have it"
        )


_check()

from numba.core import cgutils  # noqa: E402  # what is missing is named first
from numba.core import ir as numba_ir  # noqa: E402
from numba.core.compiler import CompilerBase, DefaultPassBuilder  # noqa: E402
from numba.core.compiler_machinery import FunctionPass, register_pass  # noqa: E402
from numba.core.errors import (  # noqa: E402
    NumbaError,
    TypingError,
    UnsupportedBytecodeError,
)
from numba.core.ir_utils import build_definitions  # noqa: E402
from numba.core.untyped_passes import IRProcessing  # noqa: E402
from numba.np import arrayobj  # noqa: E402
from numba.np.numpy_support import as_dtype, from_dtype  # noqa: E402

#: What may come of compiling: the second is not derived from the first.
CompileError = (NumbaError, UnsupportedBytecodeError)

ENTRY = "np_entry"
#: numba's name for a pointer to a function that it has not compiled yet.
_UNRESOLVED = ".numba.unresolved$"
_WORD = ir.IntType(64)
_BYTES = ir.IntType(8).as_pointer()


# -- types


def argument_of(name: str, type_: Any) -> Argument:
    """Return the argument that one of numba's types stands for.

    Raises
    ------
    TypeError : it is neither an array nor a number.
    """
    try:
        if isinstance(type_, types.Array):
            return Argument(
                name, ARRAY, as_dtype(type_.dtype), type_.ndim, type_.layout,
                not type_.mutable, type_.aligned,
            )  # fmt: skip
        return Argument(name, NUMBER, as_dtype(type_))
    except (NotImplementedError, NumbaError) as error:
        raise TypeError(f"argument {name!r}: {type_} is neither an array nor a number") from error


def _type_of(argument: Argument) -> Any:
    element = from_dtype(argument.dtype)
    if argument.kind != ARRAY:
        return element
    return types.Array(
        element, argument.ndim, argument.layout, argument.readonly, aligned=argument.aligned
    )


# -- compiling


class Compiled(NamedTuple):
    """A function as numba left it, with `np_entry` beside it."""

    module: Any  #: of llvmlite, optimised, with nothing exported but the entry
    returns: str | None  #: the type of what it returns, None: nothing
    has_dynamic_globals: bool  #: addresses of this process are part of the code


def is_disabled() -> bool:
    """Whether NUMBA_DISABLE_JIT is set, so that njit leaves functions as they are."""
    return bool(numba.config.DISABLE_JIT)


def compile_function(
    function: Any, arguments: Sequence[Argument], options: dict[str, Any]
) -> Compiled:
    """Compile ``function(i0, i1, *arguments)`` and the entry that calls it.

    Raises
    ------
    CompileError : numba cannot compile it.
    """
    signature = (types.int64, types.int64, *map(_type_of, arguments))
    dispatcher = numba.njit(
        no_cpython_wrapper=True, no_cfunc_wrapper=True, pipeline_class=_Compiler, **options
    )(function)
    dispatcher.compile(signature)
    result = dispatcher.overloads[signature]
    returned = result.fndesc.restype
    module = llvm.parse(result.library._final_module.as_bitcode())
    module.link_in(llvm.parse(_entry(result, signature[2:], arguments, _recursive(module))))
    for item in (*module.functions, *module.global_variables):
        if not item.is_declaration and item.name != ENTRY and not _is_environment(item.name):
            item.linkage = "internal"
    llvm.optimise(module)
    return Compiled(
        module,
        None if isinstance(returned, types.NoneType) else str(returned),
        result.library.has_dynamic_globals,
    )


def _known_row(row: int) -> int:
    """Return *row*, of which the compiler knows from now on that it is 0 to MOST_ROWS."""
    return row


@register_pass(mutates_CFG=False, analysis_only=False)
class _KnownRows(FunctionPass):  # type: ignore[misc]  # numba has no types
    """Begin a kernel by ``i0, i1 = _known_row(i0), _known_row(i1)``."""

    _name = "numpush_known_rows"

    def __init__(self) -> None:
        FunctionPass.__init__(self)

    def run_pass(self, state: Any) -> bool:
        blocks = state.func_ir.blocks
        first = blocks[min(blocks)]
        body: list[Any] = []
        for statement in first.body:
            value, loc = getattr(statement, "value", None), statement.loc
            if not (isinstance(value, numba_ir.Arg) and value.index < 2):
                body.append(statement)
                continue
            given, known = first.scope.make_temp(loc), first.scope.make_temp(loc)
            body += [
                numba_ir.Assign(value, given, loc),
                numba_ir.Assign(numba_ir.Global("_known_row", _known_row, loc), known, loc),
                numba_ir.Assign(numba_ir.Expr.call(known, [given], (), loc), statement.target, loc),
            ]
        first.body = body
        state.func_ir._definitions = build_definitions(blocks)
        return True


class _Compiler(CompilerBase):  # type: ignore[misc]  # numba has no types
    def define_pipelines(self) -> list[Any]:
        pipeline = DefaultPassBuilder.define_nopython_pipeline(self.state)
        pipeline.add_pass_after(_KnownRows, IRProcessing)
        pipeline.finalize()
        return [pipeline]


def _recursive(module: Any) -> list[str]:
    """Return the functions that are called through a pointer, since they call themselves."""
    return [
        pointer.name.removeprefix(_UNRESOLVED)
        for pointer in module.global_variables
        if pointer.is_declaration and pointer.name.startswith(_UNRESOLVED)
    ]


class Element(NamedTuple):
    """A function of numbers as numba left it: ``int32 name(result *, exception **, args...)``."""

    ir: str
    name: str
    result: np.dtype[Any] | None  #: None: it returns no number
    returns: str
    has_dynamic_globals: bool


def compile_element(
    function: Any, args: Sequence[np.dtype[Any]], result: np.dtype[Any] | None
) -> Element:
    """Compile ``function(*args)`` for numbers; without *result*, numba finds the type of that.

    Raises
    ------
    CompileError : numba cannot compile it.
    """
    signature: Any = tuple(map(from_dtype, args))
    if result is not None:
        signature = from_dtype(result)(*signature)
    options: dict[str, Any] = {"no_cpython_wrapper": True, "no_cfunc_wrapper": True}
    dispatcher = numba.njit(signature, error_model="numpy", **options)(function)
    (compiled,) = dispatcher.overloads.values()
    returned = compiled.fndesc.restype
    try:
        dtype = as_dtype(returned)
    except (NumbaError, NotImplementedError):
        dtype = None
    return Element(
        compiled.library.get_llvm_str(),
        compiled.fndesc.llvm_func_name,
        dtype,
        str(returned),
        compiled.library.has_dynamic_globals,
    )


def _is_environment(name: str) -> bool:
    """Whether it is where numba keeps a function's Python objects: null, until a process fills it."""
    return name.startswith("_ZN08NumbaEnv")


def _entry(
    result: Any,
    signature: Sequence[Any],
    arguments: Sequence[Argument],
    recursive: Sequence[str],
) -> str:
    """Return IR of ``int32 np_entry(const int64 *block, int64 i0, int64 i1, void **excinfo)``."""
    context, function = result.target_context, result.fndesc
    module = context.create_module(ENTRY)
    entry = ir.Function(
        module,
        ir.FunctionType(ir.IntType(32), [_WORD.as_pointer(), _WORD, _WORD, _BYTES.as_pointer()]),
        ENTRY,
    )
    block, first, last, excinfo = entry.args
    builder = ir.IRBuilder(entry.append_basic_block())
    values, at = [first, last], 0
    for type_, argument in zip(signature, arguments):
        values.append(_load(context, builder, block, at, type_))
        at += argument.n_words
    status, _ = context.call_conv.call_function(
        builder,
        context.declare_function(module, function),
        function.restype,
        function.argtypes,
        values,
    )
    builder.store(builder.bitcast(status.excinfoptr, _BYTES), excinfo)
    builder.ret(status.code)
    for name in recursive:  # numba's linker would fill these in
        function = ir.Function(module, ir.FunctionType(ir.VoidType(), []), name)
        pointer = ir.GlobalVariable(module, _BYTES, _UNRESOLVED + name)
        pointer.initializer = function.bitcast(_BYTES)
    return str(module)


def _load(context: Any, builder: Any, block: Any, at: int, type_: Any) -> Any:
    """Load one argument from the words that begin at *at*: see arguments.py, (1)."""

    def word(k: int) -> Any:
        return builder.gep(block, [ir.Constant(_WORD, at + k)])

    if not isinstance(type_, types.Array):
        data_type = context.get_data_type(type_)
        return context.unpack_value(
            builder, type_, builder.bitcast(word(0), data_type.as_pointer())
        )
    n = type_.ndim
    words = [builder.load(word(k)) for k in range(1 + 2 * n)]
    element = context.get_data_type(type_.dtype)
    array = arrayobj.make_array(type_)(context, builder)
    arrayobj.populate_array(
        array,
        data=builder.inttoptr(words[0], element.as_pointer()),
        shape=words[1 : 1 + n],
        strides=words[1 + n :],
        itemsize=context.get_constant(types.intp, context.get_abi_sizeof(element)),
        meminfo=None,
    )
    return array._getvalue()


# -- what compiled code needs of numba


@functools.cache
def _start_runtime() -> None:
    from numba.core.registry import cpu_target
    from numba.core.runtime import rtsys

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        rtsys.initialize(cpu_target.target_context)


def runtime_addresses(names: Sequence[str]) -> dict[str, int]:
    """Return the addresses of functions of numba's runtime, as far as it has them."""
    _start_runtime()
    found = {name: ll.address_of_symbol(name) for name in names}
    return {name: int(address) for name, address in found.items() if address}


# -- functions that numba compiles to instructions


def provide(
    function: Callable[..., Any], typer: Callable[..., Any], lower: Callable[..., Any]
) -> None:
    """Have numba compile calls of *function*: *typer* gives the signature, *lower* the instructions."""
    type_callable(function)(lambda context: typer)
    lower_builtin(function, types.VarArg(types.Any))(lower)


def element_pointer(context: Any, builder: Any, signature: Any, args: Sequence[Any]) -> Any:
    """Return a pointer to the element that the first two of *args*, array and index, mean."""
    array_type, index_type = signature.args[:2]
    array = arrayobj.make_array(array_type)(context, builder, args[0])
    if isinstance(index_type, types.BaseTuple):
        indexes = cgutils.unpack_tuple(builder, args[1], len(index_type))
        kinds = list(index_type)
    else:
        indexes, kinds = [args[1]], [index_type]
    places = [context.cast(builder, index, kind, types.intp) for index, kind in zip(indexes, kinds)]
    return cgutils.get_item_pointer(
        context,
        builder,
        array_type,
        array,
        places,
        wraparound=any(kind.signed for kind in kinds),
        boundscheck=context.enable_boundscheck,
    )


def typing_error(message: str) -> Exception:
    return TypingError(message)


provide(
    _known_row,
    lambda row: types.int64,
    lambda context, builder, signature, args: builder.and_(args[0], ir.Constant(_WORD, MOST_ROWS)),
)
