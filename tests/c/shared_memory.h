/* shared_memory.h - real shared memory for the tests, and a segment in it. */
#ifndef SHARED_MEMORY_H
#define SHARED_MEMORY_H
#include "npush_seg.h"
#include <stddef.h>

#define N_SLOTS 8
#define CAPACITY 16384
#define DATA_OFFSET 8192
#define IDENTITY 77
#define ME 1000

/* The name of each object of this process, one after the other; its pid is in it. */
extern char object_name[64];
void name_object(void);

/* Zeroed shared memory of `size` bytes, and no name left. */
void *shared(size_t size);
void unshare_(void *p, size_t size);

/* A live segment of CAPACITY bytes that ME has created. */
npush_seg_t *new_segment(void);
#endif
