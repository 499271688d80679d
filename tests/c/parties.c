/* parties.c - see parties.h. */
#include "parties.h"
#include "check.h"
#include <pthread.h>
#include <stdio.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

void nap(int64_t ns)
{
    struct timespec t = {.tv_sec = (time_t)(ns / 1000000000), .tv_nsec = (long)(ns % 1000000000)};

    nanosleep(&t, NULL);
}

double now(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

int reap(pid_t child)
{
    int status = 0;

    EQUAL(waitpid(child, &status, 0), child);
    return WIFSIGNALED(status) ? -WTERMSIG(status) : WEXITSTATUS(status);
}

pid_t spawn(void (*function)(void *), void *argument)
{
    pid_t child;

    fflush(NULL);
    child = fork();
    CHECK(child >= 0);
    if (child == 0) {
        alarm(60);
        function(argument);
        _exit(0);
    }
    return child;
}

void in_threads(void *(*function)(void *), void *argument)
{
    pthread_t threads[N_WORKERS];

    for (int i = 0; i < N_WORKERS; i++)
        EQUAL(pthread_create(&threads[i], NULL, function, argument), 0);
    for (int i = 0; i < N_WORKERS; i++)
        EQUAL(pthread_join(threads[i], NULL), 0);
}

void in_processes(void (*function)(void *), void *argument)
{
    pid_t children[N_WORKERS];

    for (int i = 0; i < N_WORKERS; i++)
        children[i] = spawn(function, argument);
    for (int i = 0; i < N_WORKERS; i++)
        EQUAL(reap(children[i]), 0);
}
