/* npush_atomic.h - read-modify-write of one element of an array, whole for every process and thread.
 *
 * An element is size bytes at an address that size divides; integers travel as 64 bits (sign-extended when signed),
 * floats as their bits. Sequentially consistent, but for load (acquire) and store (release). */
#ifndef NPUSH_ATOMIC_H
#define NPUSH_ATOMIC_H
#include <stdint.h>

/* cdef: begin */
#define NPUSH_UNSIGNED 0
#define NPUSH_SIGNED 1
#define NPUSH_FLOAT 2
#define NPUSH_ATOMIC_ADD 0
#define NPUSH_ATOMIC_SUB 1
#define NPUSH_ATOMIC_MIN 2
#define NPUSH_ATOMIC_MAX 3
#define NPUSH_ATOMIC_AND 4
#define NPUSH_ATOMIC_OR 5
#define NPUSH_ATOMIC_EXCHANGE 6
/* Apply op with `operand` (a double when kind is NPUSH_FLOAT, passed as bits) and store what was there in *old.
 * 0, or -EINVAL: no such size, kind or op. */
int npush_atomic_update(uintptr_t address, int size, int kind, int op, uint64_t operand, uint64_t *old);
/* Store `desired` if the element has the bits of `expected`; *old is what was there. 1: stored, 0: not, -EINVAL. */
int npush_atomic_compare_exchange(uintptr_t address, int size, int kind, uint64_t expected, uint64_t desired,
                                  uint64_t *old);
int npush_atomic_load(uintptr_t address, int size, int kind, uint64_t *value);
int npush_atomic_store(uintptr_t address, int size, int kind, uint64_t value);
/* cdef: end */
#endif
