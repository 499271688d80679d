/* npush_step.h - the places where the crash suite kills a process.
 *
 * NPUSH_STEP() stands between any two stores to shared memory after which another process could look. When
 * npush_step_countdown is zero, as it always is outside the crash suite, a step is one load and a branch. The suite
 * sets it to n; the n-th step then ends the process with SIGKILL, as the kernel or a user would. */
#ifndef NPUSH_STEP_H
#define NPUSH_STEP_H

/* cdef: begin */
extern volatile int npush_step_countdown;
/* cdef: end */

void npush_step_die(void);

#define NPUSH_STEP()                                                                                                   \
    do {                                                                                                               \
        if (__builtin_expect(npush_step_countdown > 0, 0) && --npush_step_countdown == 0)                              \
            npush_step_die();                                                                                          \
    } while (0)
#endif
