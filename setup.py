"""Build the C layer. Metadata and the package map live in pyproject.toml."""

import sysconfig

from setuptools import setup

# cffi emits stable-ABI code, so one wheel serves every CPython from 3.11 on;
# free-threaded builds have no stable ABI.
abi3 = not sysconfig.get_config_var("Py_GIL_DISABLED")

setup(
    cffi_modules=["ffi/_build.py:ffibuilder"],
    options={"bdist_wheel": {"py_limited_api": "cp311"}} if abi3 else {},
)
