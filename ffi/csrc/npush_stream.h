/* npush_stream.h - bytes between a socket and memory or a file, as many as were asked for, without the interpreter.
 *
 * (1) A call moves bytes until `size` are moved or it has to stop, and adds to *done as it goes; call again with the rest.
 * (2) The socket is non-blocking. No call sleeps but in ppoll(2), and there for wait_ns at most.
 * (3) The socket's SO_RCVLOWAT is 1 before and after a call that receives; within, large bodies wake us less often.
 * (4) npush_stream_splice leaves the pipe empty, whatever it returns but for an error of the file.
 *
 * Results: 0, all of it; -EAGAIN, nothing came or went for wait_ns; -EINTR, a signal handler wants to run; -ENODATA, the
 * peer has closed its side (receiving); any other -errno is the socket's, or the file's. Any thread, any process. */
#ifndef NPUSH_STREAM_H
#define NPUSH_STREAM_H
#include <stdint.h>

/* cdef: begin */
/* Receive into memory. recv(2). */
int npush_stream_recv(int sock, uintptr_t address, uint64_t size, int64_t wait_ns, uint64_t *done);
/* Receive into a file from `offset`, through a pipe that nobody else uses: no page of ours is touched, so a fresh file's
 * pages are neither faulted in nor cleared. splice(2). */
int npush_stream_splice(int sock, int pipe_in, int pipe_out, int fd, uint64_t offset, uint64_t size, int64_t wait_ns,
                        uint64_t *done);
/* Send from memory; more: hold a last part of a packet back for what follows. send(2). */
int npush_stream_send(int sock, uintptr_t address, uint64_t size, int more, int64_t wait_ns, uint64_t *done);
/* Send from a file, whose pages the socket refers to until the peer has them: what is stored there before, it sees.
 * sendfile(2). SIGPIPE is to be ignored, as Python does. */
int npush_stream_sendfile(int sock, int fd, uint64_t offset, uint64_t size, int64_t wait_ns, uint64_t *done);
/* cdef: end */
#endif
