/* xsave.c - lets user-mode Linux 6.1 run on processors with more state than it has room for (LD_PRELOAD).
 *
 * It keeps a process's registers in XSAVE form in a buffer of fixed size, which ends behind PKRU. ptrace reads into a buffer that is too
 * short what fits, but refuses to write from one: on a processor with AMX the first switch to a process fails and
 * user-mode Linux panics. Here a write is made as long as the host wants: what is missing is zero, and marked in XSTATE_BV
 * as being in its initial state.
 *
 * (1) The form is the standard one: a component lies where CPUID leaf 0xD says, in every buffer that is long enough for it.
 * (2) The guest has no state behind its buffer: AMX needs a permission (arch_prctl) that it does not ask for.
 * (3) linux.uml calls ptrace from one thread, so a static buffer will do.
 *
 * Source: xstateregs_set in arch/x86/kernel/fpu/regset.c; Intel SDM vol. 1, 13.4. */

#define _GNU_SOURCE
#include <cpuid.h>
#include <dlfcn.h>
#include <elf.h>
#include <stdarg.h>
#include <stdint.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/types.h>
#include <sys/uio.h>

enum { XSTATE_BV = 512, HEADER_END = 576, LARGEST = 1 << 16 };

typedef long ptrace_t(enum __ptrace_request, ...);

static _Alignas(64) unsigned char state[LARGEST];

/* Return the bits of the components that lie within the first size bytes. 0 and 1, x87 and SSE, always do. */
static uint64_t
components_within(size_t size)
{
    uint64_t bits = 3;
    for (unsigned i = 2; i < 63; i++) {
        unsigned length, offset, c, d;
        if (__get_cpuid_count(0xd, i, &length, &offset, &c, &d) && length && offset + length <= size)
            bits |= UINT64_C(1) << i;
    }
    return bits;
}

static long
write_state(ptrace_t *next, pid_t pid, const struct iovec *given)
{
    static size_t wanted;
    static uint64_t within;

    struct iovec whole = {state, sizeof state};
    if (!wanted) {
        if (next(PTRACE_GETREGSET, pid, (void *)NT_X86_XSTATE, &whole) < 0)
            return -1;
        wanted = whole.iov_len;
        within = components_within(given->iov_len);
    }
    if (given->iov_len < HEADER_END || given->iov_len >= wanted)
        return next(PTRACE_SETREGSET, pid, (void *)NT_X86_XSTATE, given);

    uint64_t present;
    memset(state, 0, wanted);
    memcpy(state, given->iov_base, given->iov_len);
    memcpy(&present, state + XSTATE_BV, sizeof present);
    present &= within;
    memcpy(state + XSTATE_BV, &present, sizeof present);
    whole.iov_len = wanted;
    return next(PTRACE_SETREGSET, pid, (void *)NT_X86_XSTATE, &whole);
}

long
ptrace(enum __ptrace_request request, ...)
{
    static ptrace_t *next;
    if (!next)
        next = (ptrace_t *)dlsym(RTLD_NEXT, "ptrace");

    va_list arguments;
    va_start(arguments, request);
    pid_t pid = va_arg(arguments, pid_t);
    void *address = va_arg(arguments, void *);
    void *data = va_arg(arguments, void *);
    va_end(arguments);

    if (request == PTRACE_SETREGSET && address == (void *)NT_X86_XSTATE)
        return write_state(next, pid, data);
    return next(request, pid, address, data);
}
