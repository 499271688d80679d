/* parties.h - who takes part in a test: real threads, and real processes that end, or are killed, as they do. */
#ifndef PARTIES_H
#define PARTIES_H
#include <stdint.h>
#include <sys/types.h>

#define MS INT64_C(1000000)
#define N_WORKERS 4
#define N_TIMES 5000

void nap(int64_t ns);

/* Seconds. */
double now(void);

/* The exit code of a child, or minus the signal that ended it. */
int reap(pid_t child);

/* fork() for a child that runs to its _exit and not on into the caller's tests. */
pid_t spawn(void (*function)(void *), void *argument);

/* Run N_WORKERS at once, to their end. */
void in_threads(void *(*function)(void *), void *argument);
void in_processes(void (*function)(void *), void *argument);
#endif
