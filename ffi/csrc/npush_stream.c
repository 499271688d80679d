/* npush_stream.c - see npush_stream.h. */
#include "npush_stream.h"
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/types.h>
#include <time.h>
#include <unistd.h>

#define AT_ONCE (UINT64_C(1) << 30) /* the kernel moves 2 GiB less a page at most */
/* What is to be there before a wait for a large body ends. Woken by each packet, the receiver and its acknowledgements take
 * the sender's time: 256 MiB on loopback took 118 ms, 96 with 256 KiB, 90 with 512 KiB or 1 MiB, 99 with 2 MiB. */
#define WAKE_AT (1 << 20)

static size_t rest(uint64_t size, uint64_t done)
{
    return (size_t)(size - done < AT_ONCE ? size - done : AT_ONCE);
}

static ssize_t peek(int sock)
{
    char byte;

    return recv(sock, &byte, 1, MSG_PEEK | MSG_DONTWAIT);
}

/* Whether a socket that hung up has nothing more for us. After our own shutdown TIPC's says EAGAIN for ever, not 0. */
static int has_ended(int sock)
{
    return peek(sock) < 0 && errno == EAGAIN;
}

/* After a call on the socket has failed: wait if that can help. 0: try again. */
static int wait_for(int sock, short events, int64_t wait_ns)
{
    struct pollfd p = {.fd = sock, .events = events};
    struct timespec t = {.tv_sec = (time_t)(wait_ns / 1000000000), .tv_nsec = (long)(wait_ns % 1000000000)};
    int n;

    if (errno != EAGAIN)
        return -errno;
    n = ppoll(&p, 1, &t, NULL);
    if (n > 0 && events == POLLIN && p.revents & POLLHUP && has_ended(sock))
        return -ENODATA;
    if (n == 0 && events == POLLIN && peek(sock) > 0) /* less than WAKE_AT, but no silence */
        return 0;
    return n > 0 ? 0 : n == 0 ? -EAGAIN : -errno;
}

/* Have poll(2) call the socket readable when WAKE_AT bytes are there, or one when fewer are to come; *low is what it is told
 * last. TCP listens to it, others wake us as they like. errno stays. */
static void wake_at(int sock, int *low, uint64_t to_come)
{
    int wanted = to_come < WAKE_AT ? 1 : WAKE_AT, error = errno;

    if (*low != wanted)
        setsockopt(sock, SOL_SOCKET, SO_RCVLOWAT, &wanted, sizeof wanted);
    *low = wanted;
    errno = error;
}

int npush_stream_recv(int sock, uintptr_t address, uint64_t size, int64_t wait_ns, uint64_t *done)
{
    int low = 1, rc = 0;

    while (*done < size && rc == 0) {
        ssize_t n = recv(sock, (char *)address + *done, rest(size, *done), MSG_DONTWAIT);

        if (n > 0) {
            *done += (uint64_t)n;
            continue;
        }
        wake_at(sock, &low, size - *done);
        rc = n == 0 ? -ENODATA : wait_for(sock, POLLIN, wait_ns);
    }
    wake_at(sock, &low, 0);
    return rc;
}

/* Move what is in the pipe, n bytes, into the file. */
static int empty_pipe(int pipe_in, int fd, uint64_t offset, size_t n)
{
    loff_t at = (loff_t)offset;

    while (n > 0) {
        ssize_t moved = splice(pipe_in, NULL, fd, &at, n, SPLICE_F_MOVE);

        if (moved == 0)
            return -EIO;
        if (moved < 0 && errno != EINTR)
            return -errno;
        if (moved > 0)
            n -= (size_t)moved;
    }
    return 0;
}

int npush_stream_splice(int sock, int pipe_in, int pipe_out, int fd, uint64_t offset, uint64_t size, int64_t wait_ns,
                        uint64_t *done)
{
    int low = 1, rc = 0;

    while (*done < size && rc == 0) {
        ssize_t n = splice(sock, NULL, pipe_out, NULL, rest(size, *done), SPLICE_F_MOVE | SPLICE_F_NONBLOCK);

        if (n > 0) {
            rc = empty_pipe(pipe_in, fd, offset + *done, (size_t)n);
            *done += rc ? 0 : (uint64_t)n;
            continue;
        }
        wake_at(sock, &low, size - *done);
        rc = n == 0 ? -ENODATA : wait_for(sock, POLLIN, wait_ns);
    }
    wake_at(sock, &low, 0);
    return rc;
}

int npush_stream_send(int sock, uintptr_t address, uint64_t size, int more, int64_t wait_ns, uint64_t *done)
{
    int flags = MSG_DONTWAIT | MSG_NOSIGNAL | (more ? MSG_MORE : 0);

    while (*done < size) {
        ssize_t n = send(sock, (const char *)address + *done, rest(size, *done), flags);
        int rc = n >= 0 ? 0 : wait_for(sock, POLLOUT, wait_ns);

        if (rc)
            return rc;
        if (n > 0)
            *done += (uint64_t)n;
    }
    return 0;
}

int npush_stream_sendfile(int sock, int fd, uint64_t offset, uint64_t size, int64_t wait_ns, uint64_t *done)
{
    while (*done < size) {
        off_t at = (off_t)(offset + *done);
        ssize_t n = sendfile(sock, fd, &at, rest(size, *done));
        int rc = n > 0 ? 0 : n == 0 ? -EIO /* the file ends before */ : wait_for(sock, POLLOUT, wait_ns);

        if (rc)
            return rc;
        if (n > 0)
            *done += (uint64_t)n;
    }
    return 0;
}
