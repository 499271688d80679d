"""IR and bitcode become object code for this CPU, object code becomes functions, and what is refused."""

from __future__ import annotations

import ctypes
import functools
import os
import subprocess
import sys
import threading

import llvmlite.binding as ll
import pytest

import processes
from numpush import llvm
from numpush.llvm.build import _check_intrinsics

TWICE = "define i32 @twice(i32 %x) {\n %y = add i32 %x, %x\n ret i32 %y\n}"
EXP = (
    "declare double @exp(double)\n"
    "define double @f(double %x) {\n %y = call double @exp(double %x)\n ret double %y\n}"
)
STRANGER = EXP.replace("@exp(", "@no_such_function(")


def call_twice(linked, x):
    return ctypes.CFUNCTYPE(ctypes.c_int32, ctypes.c_int32)(linked.address("twice"))(x)


@functools.cache
def object_for(triple):
    """Return `twice` for another machine."""
    llvm.host()
    ll.initialize_all_targets()
    ll.initialize_all_asmprinters()
    machine = ll.Target.from_triple(triple).create_target_machine(reloc="pic", codemodel="small")
    return bytes(machine.emit_object(llvm.parse(TWICE)))


def test_text_and_bitcode_become_a_function():
    for source in (TWICE, llvm.parse(TWICE).as_bitcode()):
        linked = llvm.link(llvm.build(source), ["twice"])
        assert call_twice(linked, 21) == 42


def test_the_object_says_what_it_calls_and_defines():
    assert llvm.symbols(llvm.build(TWICE)) == (frozenset(), {"twice"})
    assert llvm.symbols(llvm.build(EXP)) == ({"exp"}, {"f"})
    linked = llvm.link(llvm.build(EXP), ["f"])
    f = ctypes.CFUNCTYPE(ctypes.c_double, ctypes.c_double)(linked.address("f"))
    assert f(0.0) == 1.0


def test_an_intrinsic_that_becomes_a_call_is_seen():
    """In the IR there is no exp, only llvm.exp.f64."""
    text = EXP.replace("@exp(", "@llvm.exp.f64(")
    assert llvm.symbols(llvm.build(text)).undefined == {"exp"}


def test_an_unknown_symbol_is_named_unless_its_address_is_given():
    code = llvm.build(STRANGER)
    with pytest.raises(llvm.UnknownSymbol, match="no_such_function"):
        llvm.link(code, ["f"])
    ours = ctypes.CFUNCTYPE(ctypes.c_double, ctypes.c_double)(lambda x: x + 1)
    address = ctypes.cast(ours, ctypes.c_void_p).value
    linked = llvm.link(code, ["f"], {"no_such_function": address})
    assert ctypes.CFUNCTYPE(ctypes.c_double, ctypes.c_double)(linked.address("f"))(2.0) == 3.0


def test_an_entry_that_is_not_there_is_named():
    with pytest.raises(llvm.UnknownSymbol, match="thrice"):
        llvm.link(llvm.build(TWICE), ["thrice"])


@pytest.mark.parametrize(
    "source",
    ["define", b"", b"BC", b"no bitcode at all", b"BC\xc0\xde", "define i32 @f() { ret i64 0 }"],
)
def test_what_is_no_code_is_refused(source):
    with pytest.raises(llvm.BadCode, match="LLVM"):
        llvm.parse(source)


def test_damaged_object_code_is_refused():
    code = llvm.build(TWICE)
    for n in range(64):
        with pytest.raises(llvm.BadCode):
            llvm.symbols(code[:n])
    for head in (b"\x7fELF\x01", b"\x7fELF\x02\x02"):
        with pytest.raises(llvm.BadCode, match="ELF64"):
            llvm.symbols(head + code[len(head) :])
    with pytest.raises(llvm.BadCode, match="relocatable"):
        llvm.symbols(code[:16] + b"\3\0" + code[18:])


def test_code_for_another_architecture_is_refused():
    triple = "aarch64-unknown-linux-gnu"
    if llvm.host().architecture == "aarch64":
        triple = "x86_64-unknown-linux-gnu"
    with pytest.raises(llvm.WrongMachine, match="ELF machine"):
        llvm.link(object_for(triple), ["twice"])
    with pytest.raises(llvm.WrongMachine, match=triple):
        llvm.build(f'target triple = "{triple}"\n{TWICE}')


def test_intrinsics_are_refused_where_the_cpu_has_them_not():
    bare = llvm.Target("x86_64-unknown-linux-gnu", frozenset({"sse2"}), frozenset(), "20.1.8")
    _check_intrinsics("call void @llvm.x86.sse2.pause()", bare)
    with pytest.raises(llvm.WrongMachine, match="avx512f"):
        _check_intrinsics("call <8 x double> @llvm.x86.avx512.add.pd.512()", bare)
    with pytest.raises(llvm.WrongMachine, match="not known"):
        _check_intrinsics("call void @llvm.x86.newest.thing()", bare)
    with pytest.raises(llvm.WrongMachine, match="this is x86_64"):
        _check_intrinsics("call void @llvm.aarch64.neon.add()", bare)
    full = bare._replace(
        features=bare.features | {f"avx512{x}" for x in ("f", "bw", "cd", "dq", "vl")}
    )
    _check_intrinsics("call <8 x double> @llvm.x86.avx512.add.pd.512()", full)


def test_code_for_a_lesser_cpu_fits_a_better_one_and_not_the_other_way_round():
    old = llvm.Target("x86_64-unknown-linux-gnu", frozenset({"avx"}), frozenset({"avx"}), "15")
    new = old._replace(features=old.features | {"avx2"}, flags=old.flags | {"avx2"}, llvm="22")
    assert old.fits(old)
    assert old.fits(new)
    assert not new.fits(old)
    assert llvm.host().fits(llvm.host())
    assert not old._replace(triple="aarch64-unknown-linux-gnu").fits(new)
    # LLVM has renamed a feature; the kernel's names settle it.
    assert old._replace(features=frozenset({"avx-by-another-name"})).fits(new)
    assert old._replace(features=old.features | {"x87"}, flags=frozenset({"?"})).fits(new)


def test_the_cpu_that_it_was_made_for_is_forgotten():
    """Built with its attributes, this would be code for a CPU without AVX2."""
    ir = (
        "define void @f(<8 x i32>* %p) #0 {\n %v = load <8 x i32>, <8 x i32>* %p\n"
        " %w = add <8 x i32> %v, %v\n"
        ' store <8 x i32> %w, <8 x i32>* %p\n ret void\n}\nattributes #0 = { "target-features"="-avx2,-avx" }'
    )
    if not {"avx", "avx2"} <= llvm.host().features:
        pytest.skip("this CPU lacks AVX2")
    module = llvm.parse(ir)
    as_it_is = llvm.machine().emit_assembly(module)
    assert "ymm" not in as_it_is
    assert llvm.build(ir) == llvm.build(ir.replace('"target-features"="-avx2,-avx"', "nounwind"))


def test_noinline_gives_way_when_asked():
    ir = (
        "define internal i32 @inner(i32 %x) noinline {\n %y = mul i32 %x, 3\n ret i32 %y\n}\n"
        "define i32 @outer(i32 %x) {\n %y = call i32 @inner(i32 %x)\n ret i32 %y\n}"
    )
    assert len(llvm.build(ir, inline=True)) < len(llvm.build(ir))


def test_what_is_linked_goes_when_nobody_has_it():
    linked = [llvm.link(llvm.build(TWICE), ["twice"]) for _ in range(3)]
    addresses = {each.address("twice") for each in linked}
    assert len(addresses) == 3
    del linked[0]
    assert call_twice(linked[0], 4) == 8


def test_threads_build_and_link_at_once():
    failures = []

    def work(n):
        try:
            for i in range(10):
                code = llvm.build(TWICE.replace("%x, %x", f"%x, {n * 100 + i}"))
                assert call_twice(llvm.link(code, ["twice"]), 1) == n * 100 + i + 1
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []


def test_a_child_has_what_was_linked_and_links_more():
    linked = llvm.link(llvm.build(TWICE), ["twice"])

    def child():
        assert call_twice(linked, 5) == 10
        assert call_twice(llvm.link(llvm.build(TWICE), ["twice"]), 6) == 12

    assert processes.wait(processes.fork(child)) == 0


def test_a_fork_waits_for_a_thread_that_is_in_llvm():
    stop = threading.Event()

    def keep_busy():
        while not stop.is_set():
            ll.parse_assembly(TWICE)  # not by our functions: llvmlite's own lock counts too
            llvm.build(TWICE)

    thread = threading.Thread(target=keep_busy)
    thread.start()
    try:
        for _ in range(20):
            child = processes.fork(lambda: llvm.link(llvm.build(TWICE), ["twice"]))
            assert processes.wait(child) == 0
    finally:
        stop.set()
        thread.join()


def test_it_needs_no_numba():
    code = (
        "import sys\nfrom numpush import llvm\n"
        f"llvm.link(llvm.build({TWICE!r}), ['twice'])\n"
        "print('numba' in sys.modules, 'pandas' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.split() == ["False", "False"]


def test_without_llvmlite_the_error_says_what_to_install(tmp_path):
    (tmp_path / "llvmlite.py").write_text("raise ImportError('no llvmlite here')")
    done = subprocess.run(
        [sys.executable, "-c", "import numpush.llvm"],
        capture_output=True, text=True, timeout=60, check=False,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
    )  # fmt: skip
    assert "pip install 'numpush[kernels]'" in done.stderr
