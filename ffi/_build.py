"""Build script of numpush.ffi._numpush (cffi, API mode, out of line).

The C headers are the only place where a function is declared: the text between
``cdef: begin`` and ``cdef: end`` is what Python sees.
"""

import re
from pathlib import Path

from cffi import FFI

CSRC = Path("ffi") / "csrc"  # relative to setup.py
TOPICS = ["step", "map", "mutex", "futex", "seg", "range", "atomic", "stream", "team"]
HEADERS = [f"npush_{topic}.h" for topic in TOPICS]
SOURCES = [f"npush_{topic}.c" for topic in TOPICS]

ffibuilder = FFI()
ffibuilder.cdef(
    "typedef struct { ...; } npush_mutex_t; typedef struct { uint64_t generation; ...; } npush_seg_t;"
)
for name in HEADERS:
    text = (Path(__file__).parent / "csrc" / name).read_text()
    for block in re.findall(r"/\* cdef: begin \*/(.*?)/\* cdef: end \*/", text, re.DOTALL):
        ffibuilder.cdef(block)

ffibuilder.set_source(
    "numpush.ffi._numpush",
    "\n".join(f'#include "{name}"' for name in HEADERS),
    sources=[str(CSRC / name) for name in SOURCES],
    include_dirs=[str(CSRC)],
    depends=[str(CSRC / name) for name in HEADERS],
    extra_compile_args=["-std=c11", "-D_GNU_SOURCE", "-Wall", "-Wextra"],
    libraries=["rt", "pthread"],
)

if __name__ == "__main__":
    ffibuilder.compile(verbose=True)
