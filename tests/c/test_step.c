/* test_step.c - npush_step.h: the end of a process at a step that was chosen. */
#include "check.h"
#include "npush_step.h"
#include "parties.h"
#include <signal.h>
#include <unistd.h>

static void step_twice(void *argument)
{
    (void)argument;
    npush_step_countdown = 2;
    NPUSH_STEP();
    if (npush_step_countdown != 1)
        _exit(1);
    NPUSH_STEP();
}

static void die_now(void *argument)
{
    (void)argument;
    npush_step_die();
}

static void test_steps(void)
{
    EQUAL(npush_step_countdown, 0);
    NPUSH_STEP();
    EQUAL(reap(spawn(step_twice, NULL)), -SIGKILL);
    EQUAL(reap(spawn(die_now, NULL)), -SIGKILL);
}

const test_t step_tests[] = {
    TEST(test_steps),
    {NULL, NULL},
};
