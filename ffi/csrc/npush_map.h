/* npush_map.h - memory of a segment: reserve it, map it, give it back. Addresses travel as uintptr_t. */
#ifndef NPUSH_MAP_H
#define NPUSH_MAP_H
#include <stdint.h>

/* cdef: begin */
#define NPUSH_MAP_RW 0
#define NPUSH_MAP_RO 1
#define NPUSH_MAP_COW 2
/* Open (O_RDWR) or, with create, make (O_EXCL, mode 0600) the shared-memory object `name`. A descriptor (CLOEXEC), or
 * -errno. shm_open(3). */
int npush_map_open(const char *name, int create);
/* Reserve [from, to) of the file so that no later store can fail, in pieces. to, or how far it came when a signal
 * interrupted it (call again from there), or -errno; -ENOSPC: /dev/shm is full. posix_fallocate(3). */
int64_t npush_map_reserve(int fd, int64_t from, int64_t to);
/* Have what whole huge pages (2 MiB) fit into [from, to) of the file, which has that size and is empty there, be huge
 * pages, zero and reserved. Where the first is that is not: more is not to be had (no such kernel, no such memory, or only
 * after much moving of other memory), and small pages must do. No error. madvise(2), MADV_COLLAPSE. */
int64_t npush_map_collapse(int fd, int64_t from, int64_t to);
/* Map [offset, offset+size) of fd in one of the three modes; at an address that suits huge pages. */
int npush_map_map(int fd, uint64_t offset, uint64_t size, int mode, uintptr_t *address);
int npush_map_unmap(uintptr_t address, uint64_t size);
/* Fault in [address, address+size) for writing (or reading) in one go. -EINVAL before Linux 5.14. */
int npush_map_populate(uintptr_t address, uint64_t size, int write);
/* Ask for transparent huge pages; the kernel may say no. */
int npush_map_huge(uintptr_t address, uint64_t size);
/* Give the pages of [offset, offset+size) back while the file keeps its size: who still maps them reads zeros. */
int npush_map_punch(int fd, uint64_t offset, uint64_t size);
/* Give a new file on a disk its size and its blocks at once. 0 or -errno; -EOPNOTSUPP: its file system cannot. fallocate(2),
 * and not posix_fallocate(3), which writes into each block where that is so. */
int npush_map_preallocate(int fd, uint64_t size);
/* cdef: end */
#endif
