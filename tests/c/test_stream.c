/* test_stream.c - npush_stream.h: bytes through sockets, each way, and taken up where they stopped. */
#include "check.h"
#include "npush_map.h"
#include "npush_stream.h"
#include "parties.h"
#include "shared_memory.h"
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

/* A connected pair of non-blocking sockets, and a shared-memory object with `size` bytes of a pattern. */
static void open_streams(int sock[2], int *fd, unsigned char **bytes, uint64_t size)
{
    uintptr_t address = 0;

    EQUAL(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, sock), 0);
    *fd = npush_map_open(object_name, 1);
    CHECK(*fd >= 0);
    EQUAL(npush_map_reserve(*fd, 0, (int64_t)size), size);
    EQUAL(npush_map_map(*fd, 0, size, NPUSH_MAP_RW, &address), 0);
    *bytes = (unsigned char *)address;
    for (uint64_t i = 0; i < size; i++)
        (*bytes)[i] = (unsigned char)(i * 7 + i / 251);
}

static void close_streams(int sock[2], int fd, unsigned char *bytes, uint64_t size)
{
    close(sock[0]);
    close(sock[1]);
    close(fd);
    EQUAL(npush_map_unmap((uintptr_t)bytes, size), 0);
    shm_unlink(object_name);
}

static void test_stream(void)
{
    enum { SIZE = 3333333, HALF = SIZE / 2 };
    int sock[2], fd, to, pipes[2], status;
    unsigned char *bytes, *received = calloc(1, SIZE);
    uint64_t done;

    open_streams(sock, &fd, &bytes, SIZE);
    EQUAL(pipe2(pipes, O_CLOEXEC), 0);
    to = memfd_create("to", MFD_CLOEXEC);
    EQUAL(ftruncate(to, SIZE), 0);
    for (int way = 0; way < 2; way++) {
        pid_t pid = fork();

        if (pid == 0) {
            done = 0;
            if (npush_stream_send(sock[1], (uintptr_t)bytes, HALF, 1, 10000 * MS, &done) || done != HALF)
                _exit(1);
            done = 0;
            _exit(npush_stream_sendfile(sock[1], fd, HALF, SIZE - HALF, 10000 * MS, &done) || done != SIZE - HALF);
        }
        done = 0;
        if (way == 0) {
            EQUAL(npush_stream_recv(sock[0], (uintptr_t)received, SIZE, 10000 * MS, &done), 0);
        } else {
            EQUAL(npush_stream_splice(sock[0], pipes[0], pipes[1], to, 0, SIZE, 10000 * MS, &done), 0);
            memset(received, 0, SIZE);
            EQUAL(pread(to, received, SIZE, 0), SIZE);
        }
        EQUAL(done, SIZE);
        CHECK(memcmp(bytes, received, SIZE) == 0);
        EQUAL(waitpid(pid, &status, 0), pid);
        EQUAL(status, 0);
    }
    free(received);
    close(pipes[0]);
    close(pipes[1]);
    close(to);
    close_streams(sock, fd, bytes, SIZE);
}

static void test_stream_stops(void)
{
    enum { SIZE = 1 << 20 };
    int sock[2], fd, pipes[2];
    unsigned char *bytes, received[16];
    uint64_t done = 0, sent;

    open_streams(sock, &fd, &bytes, SIZE);
    EQUAL(pipe2(pipes, O_CLOEXEC), 0);
    EQUAL(npush_stream_recv(sock[0], (uintptr_t)received, 16, 5 * MS, &done), -EAGAIN);
    EQUAL(npush_stream_splice(sock[0], pipes[0], pipes[1], fd, 0, 16, 5 * MS, &done), -EAGAIN);
    EQUAL(done, 0);
    /* Nobody reads: what fits is sent, and said. Then it is taken up where it stopped. */
    EQUAL(npush_stream_send(sock[1], (uintptr_t)bytes, SIZE, 0, 5 * MS, &done), -EAGAIN);
    CHECK(done > 0 && done < SIZE);
    sent = done;
    EQUAL(npush_stream_sendfile(sock[1], fd, 0, SIZE, 5 * MS, &done), -EAGAIN);
    done = 0;
    EQUAL(npush_stream_recv(sock[0], (uintptr_t)received, 4, 5 * MS, &done), 0);
    EQUAL(npush_stream_recv(sock[0], (uintptr_t)received, 16, 5 * MS, &done), 0);
    CHECK(memcmp(received, bytes, 16) == 0);
    /* The peer closes: what it sent is read, then the end is told; what is sent to it fails. */
    close(sock[1]);
    done = 16;
    EQUAL(npush_stream_splice(sock[0], pipes[0], pipes[1], fd, 0, 2 * SIZE, 5 * MS, &done), -ENODATA);
    CHECK(done >= sent);
    done = 0;
    EQUAL(npush_stream_recv(sock[0], (uintptr_t)received, 16, 5 * MS, &done), -ENODATA);
    EQUAL(npush_stream_send(sock[0], (uintptr_t)bytes, SIZE, 0, 5 * MS, &done), -EPIPE);
    EQUAL(npush_stream_recv(-1, (uintptr_t)received, 16, 5 * MS, &done), -EBADF);
    sock[1] = -1;
    close(pipes[0]);
    close(pipes[1]);
    close_streams(sock, fd, bytes, SIZE);
}

const test_t stream_tests[] = {
    TEST(test_stream),
    TEST(test_stream_stops),
    {NULL, NULL},
};
