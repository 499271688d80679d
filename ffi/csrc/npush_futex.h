/* npush_futex.h - sleep until another process changes a word of shared memory. futex(2), not private. */
#ifndef NPUSH_FUTEX_H
#define NPUSH_FUTEX_H
#include <stdint.h>

/* cdef: begin */
/* Sleep while *word == expected, at most timeout_ns. 0: woken, or the word differs already. -ETIMEDOUT, -EINTR. */
int npush_futex_wait(uint32_t *word, uint32_t expected, int64_t timeout_ns);
/* Wake up to n sleepers; the number woken. Pairs with the load in npush_futex_wait. */
int npush_futex_wake(uint32_t *word, int n);
/* Add one to *word (release) and wake everybody. */
void npush_futex_post(uint32_t *word);
/* Load *word (acquire). */
uint32_t npush_futex_load(const uint32_t *word);
/* cdef: end */
#endif
