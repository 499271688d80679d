/* npush_atomic.c - see npush_atomic.h. One compare-exchange loop serves every size, kind and op: under contention it is
 * the cache line that costs, not the instruction. */
#include "npush_atomic.h"
#include <errno.h>
#include <string.h>

/* The element's bits, zero-extended. */
static int load_bits(uintptr_t address, int size, int order, uint64_t *bits)
{
    switch (size) {
    case 1: *bits = __atomic_load_n((uint8_t *)address, order); return 0;
    case 2: *bits = __atomic_load_n((uint16_t *)address, order); return 0;
    case 4: *bits = __atomic_load_n((uint32_t *)address, order); return 0;
    case 8: *bits = __atomic_load_n((uint64_t *)address, order); return 0;
    default: *bits = 0; return -EINVAL;
    }
}

#define CAS(type)                                                                                                      \
    {                                                                                                                  \
        type e = (type)*expected;                                                                                      \
        int stored = __atomic_compare_exchange_n((type *)address, &e, (type)desired, 0, __ATOMIC_SEQ_CST,              \
                                                 __ATOMIC_SEQ_CST);                                                    \
        *expected = e;                                                                                                 \
        return stored;                                                                                                 \
    }

/* 1: stored; 0: *expected is now what is there. */
static int cas_bits(uintptr_t address, int size, uint64_t *expected, uint64_t desired)
{
    switch (size) {
    case 1: CAS(uint8_t)
    case 2: CAS(uint16_t)
    case 4: CAS(uint32_t)
    case 8: CAS(uint64_t)
    default: return -EINVAL;
    }
}

/* Element bits <-> the 64 bits they travel as. */
static uint64_t widen(uint64_t bits, int size, int kind)
{
    if (kind == NPUSH_FLOAT && size == 4) {
        uint32_t narrow = (uint32_t)bits;
        float f;
        double d;
        memcpy(&f, &narrow, sizeof f);
        d = (double)f;
        memcpy(&bits, &d, sizeof bits);
    }
    else if (kind == NPUSH_SIGNED && size < 8) {
        int shift = 64 - 8 * size;
        bits = (uint64_t)((int64_t)(bits << shift) >> shift);
    }
    return bits;
}

static uint64_t narrow(uint64_t value, int size, int kind)
{
    if (kind == NPUSH_FLOAT && size == 4) {
        double d;
        float f;
        uint32_t bits;
        memcpy(&d, &value, sizeof d);
        f = (float)d;
        memcpy(&bits, &f, sizeof bits);
        return bits;
    }
    return size == 8 ? value : value & ((UINT64_C(1) << (8 * size)) - 1);
}

static uint64_t apply_float(int op, uint64_t a_bits, uint64_t b_bits)
{
    double a, b, r;

    memcpy(&a, &a_bits, sizeof a);
    memcpy(&b, &b_bits, sizeof b);
    switch (op) {
    case NPUSH_ATOMIC_ADD: r = a + b; break;
    case NPUSH_ATOMIC_SUB: r = a - b; break;
    case NPUSH_ATOMIC_MIN: r = b < a || b != b ? b : a; break; /* a NaN stays, as in np.minimum */
    case NPUSH_ATOMIC_MAX: r = b > a || b != b ? b : a; break;
    default: r = b; break;
    }
    memcpy(&a_bits, &r, sizeof r);
    return a_bits;
}

static uint64_t apply_int(int op, int kind, uint64_t a, uint64_t b)
{
    int less = kind == NPUSH_SIGNED ? (int64_t)b < (int64_t)a : b < a;

    switch (op) {
    case NPUSH_ATOMIC_ADD: return a + b;
    case NPUSH_ATOMIC_SUB: return a - b;
    case NPUSH_ATOMIC_MIN: return less ? b : a;
    case NPUSH_ATOMIC_MAX: return less ? a : b;
    case NPUSH_ATOMIC_AND: return a & b;
    case NPUSH_ATOMIC_OR: return a | b;
    default: return b;
    }
}

static int is_valid(uintptr_t address, int size, int kind)
{
    if (kind < NPUSH_UNSIGNED || kind > NPUSH_FLOAT || (kind == NPUSH_FLOAT && size != 4 && size != 8))
        return 0;
    return (size == 1 || size == 2 || size == 4 || size == 8) && address % (uintptr_t)size == 0;
}

int npush_atomic_update(uintptr_t address, int size, int kind, int op, uint64_t operand, uint64_t *old)
{
    uint64_t bits, value;
    int is_bitwise = op == NPUSH_ATOMIC_AND || op == NPUSH_ATOMIC_OR;

    if (!is_valid(address, size, kind) || op < NPUSH_ATOMIC_ADD || op > NPUSH_ATOMIC_EXCHANGE)
        return -EINVAL;
    if (kind == NPUSH_FLOAT && is_bitwise)
        return -EINVAL;
    load_bits(address, size, __ATOMIC_RELAXED, &bits);
    do {
        *old = widen(bits, size, kind);
        value = kind == NPUSH_FLOAT ? apply_float(op, *old, operand) : apply_int(op, kind, *old, operand);
    } while (!cas_bits(address, size, &bits, narrow(value, size, kind)));
    return 0;
}

int npush_atomic_compare_exchange(uintptr_t address, int size, int kind, uint64_t expected, uint64_t desired,
                                  uint64_t *old)
{
    uint64_t bits;
    int stored;

    if (!is_valid(address, size, kind))
        return -EINVAL;
    bits = narrow(expected, size, kind);
    stored = cas_bits(address, size, &bits, narrow(desired, size, kind));
    *old = widen(bits, size, kind);
    return stored;
}

int npush_atomic_load(uintptr_t address, int size, int kind, uint64_t *value)
{
    uint64_t bits;

    if (!is_valid(address, size, kind))
        return -EINVAL;
    load_bits(address, size, __ATOMIC_ACQUIRE, &bits);
    *value = widen(bits, size, kind);
    return 0;
}

int npush_atomic_store(uintptr_t address, int size, int kind, uint64_t value)
{
    uint64_t bits;

    if (!is_valid(address, size, kind))
        return -EINVAL;
    bits = narrow(value, size, kind);
    switch (size) {
    case 1: __atomic_store_n((uint8_t *)address, (uint8_t)bits, __ATOMIC_RELEASE); break;
    case 2: __atomic_store_n((uint16_t *)address, (uint16_t)bits, __ATOMIC_RELEASE); break;
    case 4: __atomic_store_n((uint32_t *)address, (uint32_t)bits, __ATOMIC_RELEASE); break;
    default: __atomic_store_n((uint64_t *)address, bits, __ATOMIC_RELEASE); break;
    }
    return 0;
}
