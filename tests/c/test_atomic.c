/* test_atomic.c - npush_atomic.h: each operation on each kind and size of element; what is refused; contention. */
#include "check.h"
#include "npush_atomic.h"
#include "parties.h"
#include "shared_memory.h"
#include <limits.h>
#include <math.h>
#include <string.h>

static uint64_t from_double(double d)
{
    uint64_t bits;

    memcpy(&bits, &d, sizeof bits);
    return bits;
}

static double to_double(uint64_t bits)
{
    double d;

    memcpy(&d, &bits, sizeof d);
    return d;
}

/* `value` as an element of that size and kind would hold it. */
static uint64_t as_element(uint64_t value, int size, int kind)
{
    if (kind == NPUSH_FLOAT)
        return size == 8 ? value : from_double((double)(float)to_double(value));
    switch (size) {
    case 1: return kind == NPUSH_SIGNED ? (uint64_t)(int8_t)value : (uint8_t)value;
    case 2: return kind == NPUSH_SIGNED ? (uint64_t)(int16_t)value : (uint16_t)value;
    case 4: return kind == NPUSH_SIGNED ? (uint64_t)(int32_t)value : (uint32_t)value;
    default: return value;
    }
}

static uint64_t expected_int(int op, int kind, uint64_t a, uint64_t b)
{
    int less = kind == NPUSH_SIGNED ? (int64_t)a < (int64_t)b : a < b;

    switch (op) {
    case NPUSH_ATOMIC_ADD: return a + b;
    case NPUSH_ATOMIC_SUB: return a - b;
    case NPUSH_ATOMIC_MIN: return less ? a : b;
    case NPUSH_ATOMIC_MAX: return less ? b : a;
    case NPUSH_ATOMIC_AND: return a & b;
    case NPUSH_ATOMIC_OR: return a | b;
    default: return b;
    }
}

static double expected_float(int op, double a, double b)
{
    switch (op) {
    case NPUSH_ATOMIC_ADD: return a + b;
    case NPUSH_ATOMIC_SUB: return a - b;
    case NPUSH_ATOMIC_MIN: return isnan(a) || isnan(b) ? (double)NAN : fmin(a, b);
    case NPUSH_ATOMIC_MAX: return isnan(a) || isnan(b) ? (double)NAN : fmax(a, b);
    default: return b;
    }
}

static void check_same(uint64_t got, uint64_t wanted, int kind)
{
    if (kind == NPUSH_FLOAT && isnan(to_double(wanted)))
        CHECK(isnan(to_double(got)));
    else if (kind == NPUSH_FLOAT)
        CHECK(to_double(got) <= to_double(wanted) && to_double(got) >= to_double(wanted));
    else
        EQUAL(got, wanted);
}

static void test_atomics(void)
{
    static const uint64_t ints[] = {0, 1, 2, 127, 128, 255, 256, 32767, 65535, 0x7fffffff, 0xffffffff,
                                    INT64_MAX, UINT64_MAX, UINT64_MAX - 41, UINT64_C(1) << 63};
    const double floats[] = {0.0, 1.0, -1.5, 1e30, -1e-30, (double)INFINITY, (double)-INFINITY, (double)NAN};
    uint64_t *cells = shared(3 * sizeof *cells);
    uintptr_t address = (uintptr_t)&cells[1];

    for (int kind = NPUSH_UNSIGNED; kind <= NPUSH_FLOAT; kind++)
        for (int size = kind == NPUSH_FLOAT ? 4 : 1; size <= 8; size *= 2)
            for (int op = NPUSH_ATOMIC_ADD; op <= NPUSH_ATOMIC_EXCHANGE; op++) {
                int n = kind == NPUSH_FLOAT ? (int)(sizeof floats / sizeof *floats) : (int)(sizeof ints / sizeof *ints);

                if (kind == NPUSH_FLOAT && (op == NPUSH_ATOMIC_AND || op == NPUSH_ATOMIC_OR)) {
                    uint64_t old;

                    EQUAL(npush_atomic_update(address, size, kind, op, 0, &old), -EINVAL);
                    continue;
                }
                for (int i = 0; i < n * n; i++) {
                    uint64_t a = kind == NPUSH_FLOAT ? from_double(floats[i / n]) : ints[i / n];
                    uint64_t b = kind == NPUSH_FLOAT ? from_double(floats[i % n]) : ints[i % n];
                    uint64_t old = 1, now_ = 1, result;

                    a = as_element(a, size, kind);
                    b = as_element(b, size, kind);
                    result = kind == NPUSH_FLOAT ? from_double(expected_float(op, to_double(a), to_double(b)))
                                                 : expected_int(op, kind, a, b);
                    result = as_element(result, size, kind);
                    EQUAL(npush_atomic_store(address, size, kind, a), 0);
                    EQUAL(npush_atomic_update(address, size, kind, op, b, &old), 0);
                    EQUAL(npush_atomic_load(address, size, kind, &now_), 0);
                    check_same(old, a, kind);
                    check_same(now_, result, kind);
                    EQUAL(npush_atomic_compare_exchange(address, size, kind, now_, a, &old), 1);
                    check_same(old, result, kind);
                    EQUAL(npush_atomic_load(address, size, kind, &now_), 0);
                    check_same(now_, a, kind);
                }
                EQUAL(cells[0], 0); /* the neighbours */
                EQUAL(cells[2], 0);
            }
    unshare_(cells, 3 * sizeof *cells);
}

static void test_atomics_refuse(void)
{
    static const int sizes[] = {-1, 0, 3, 5, 16, 64, INT_MAX, INT_MIN};
    uint64_t cell[2] = {5, 0}, old = 0;
    uintptr_t address = (uintptr_t)cell;

    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        EQUAL(npush_atomic_update(address, sizes[i], NPUSH_SIGNED, NPUSH_ATOMIC_ADD, 1, &old), -EINVAL);
        EQUAL(npush_atomic_compare_exchange(address, sizes[i], NPUSH_SIGNED, 1, 2, &old), -EINVAL);
        EQUAL(npush_atomic_load(address, sizes[i], NPUSH_SIGNED, &old), -EINVAL);
        EQUAL(npush_atomic_store(address, sizes[i], NPUSH_SIGNED, 1), -EINVAL);
    }
    for (int size = 2; size <= 8; size *= 2) /* not aligned */
        EQUAL(npush_atomic_store(address + 1, size, NPUSH_SIGNED, 1), -EINVAL);
    EQUAL(npush_atomic_store(address, 2, NPUSH_FLOAT, 1), -EINVAL);
    EQUAL(npush_atomic_store(address, 8, 3, 1), -EINVAL);
    EQUAL(npush_atomic_store(address, 8, -1, 1), -EINVAL);
    EQUAL(npush_atomic_update(address, 8, 0, 7, 1, &old), -EINVAL);
    EQUAL(npush_atomic_update(address, 8, 0, -1, 1, &old), -EINVAL);
    EQUAL(npush_atomic_compare_exchange(address, 8, NPUSH_UNSIGNED, 4, 9, &old), 0);
    EQUAL(old, 5);
    EQUAL(cell[0], 5);
}

typedef struct {
    uintptr_t address;
    int size, kind;
} element_t;

static void add_often(void *argument)
{
    const element_t *e = argument;
    uint64_t one = e->kind == NPUSH_FLOAT ? from_double(1.0) : 1, old;

    for (int i = 0; i < N_TIMES; i++)
        EQUAL(npush_atomic_update(e->address, e->size, e->kind, NPUSH_ATOMIC_ADD, one, &old), 0);
}

static void *add_often_in_thread(void *argument)
{
    add_often(argument);
    return NULL;
}

static void test_atomics_under_contention(void)
{
    uint64_t *cell = shared(sizeof *cell);
    element_t e = {(uintptr_t)cell, 0, 0};

    for (e.kind = NPUSH_UNSIGNED; e.kind <= NPUSH_FLOAT; e.kind++)
        for (e.size = e.kind == NPUSH_FLOAT ? 4 : 1; e.size <= 8; e.size *= 2) {
            uint64_t value = 0, wanted = 2 * N_WORKERS * N_TIMES;

            EQUAL(npush_atomic_store(e.address, e.size, e.kind, 0), 0);
            in_threads(add_often_in_thread, &e);
            in_processes(add_often, &e);
            EQUAL(npush_atomic_load(e.address, e.size, e.kind, &value), 0);
            check_same(value, as_element(e.kind == NPUSH_FLOAT ? from_double((double)wanted) : wanted, e.size, e.kind),
                       e.kind);
        }
    unshare_(cell, sizeof *cell);
}

const test_t atomic_tests[] = {
    TEST(test_atomics),
    TEST(test_atomics_refuse),
    TEST(test_atomics_under_contention),
    {NULL, NULL},
};
