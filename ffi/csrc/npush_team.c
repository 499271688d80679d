/* npush_team.c - see npush_team.h. */
#include "npush_team.h"
#include "npush_futex.h"
#include "npush_step.h"
#include <errno.h>
#include <limits.h>
#include <time.h>

#define ALWAYS INT64_C(86400000000000) /* ns; a futex wants some number: a day */

#define PATIENCE_NS 5000 /* for members that are awake to do a small job, before others are woken */

#define READ(what) __atomic_load_n(&(what), __ATOMIC_RELAXED)
#define LOAD(what) __atomic_load_n(&(what), __ATOMIC_ACQUIRE)
#define WRITE(what, value) __atomic_store_n(&(what), (value), __ATOMIC_RELAXED)

/* What a member copied of the job before it takes a chunk of it. */
typedef struct {
    uint64_t ticket;
    uint32_t number, plan, n_chunks;
    int64_t begin, end, chunk;
} view_t;

static int64_t now_ns(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

static inline uint32_t number_of(uint64_t ticket)
{
    return (uint32_t)(ticket >> 32);
}

uint64_t npush_team_size(uint32_t n_members)
{
    return sizeof(npush_team_t) + (uint64_t)n_members * sizeof(npush_member_t);
}

void npush_team_init(npush_team_t *team, uint32_t n_members)
{
    team->n_members = n_members;
    team->layout = NPUSH_TEAM_LAYOUT;
}

int npush_team_check(const npush_team_t *team, uint32_t n_members)
{
    return team->layout == NPUSH_TEAM_LAYOUT && team->n_members == n_members ? 0 : -EINVAL;
}

static void ring(npush_team_t *team, int n)
{
    __atomic_add_fetch(&team->bell, 1, __ATOMIC_RELEASE); /* pairs with the first load in npush_team_work */
    npush_futex_wake(&team->bell, n);
}

/* Look at a word until it differs from `is`, or is `wanted`: for ns nanoseconds. */
static void watch(const uint32_t *word, uint32_t is, int until_equal, int64_t ns)
{
    int64_t deadline = now_ns() + ns;

    while ((LOAD(*word) == is) != until_equal)
        if (now_ns() >= deadline)
            return;
}

/* -- the leader */

/* Let members see a job, and wake nobody. */
static uint32_t publish(npush_team_t *team, const npush_job_t *job)
{
    uint32_t number = number_of(READ(team->ticket)) + 1;

    if (number == 0)
        number = 1; /* 0 stands for none */
    WRITE(team->job.plan, job->plan);
    WRITE(team->job.n_chunks, job->n_chunks);
    WRITE(team->job.begin, job->begin);
    WRITE(team->job.end, job->end);
    WRITE(team->job.chunk, job->chunk);
    WRITE(team->job.n_patches, job->n_patches);
    for (uint32_t i = 0; i < job->n_patches; i++) {
        WRITE(team->job.place[i], job->place[i]);
        WRITE(team->job.value[i], job->value[i]);
    }
    WRITE(team->done, 0);
    /* Pairs with the acquire in see(): whoever sees the number sees the job. */
    __atomic_store_n(&team->ticket, (uint64_t)number << 32 | job->n_chunks, __ATOMIC_RELEASE);
    __atomic_add_fetch(&team->bell, 1, __ATOMIC_RELEASE); /* pairs with the first load in npush_team_work */
    return number;
}

static void wake_for(npush_team_t *team, const npush_job_t *job)
{
    npush_futex_wake(&team->bell, job->n_chunks < INT_MAX ? (int)job->n_chunks : INT_MAX);
}

uint32_t npush_team_start(npush_team_t *team, const npush_job_t *job)
{
    uint32_t number = publish(team, job);

    wake_for(team, job);
    return number;
}

static int is_one_awake(const npush_team_t *team)
{
    for (uint32_t i = 0; i < team->n_members; i++)
        if (READ(team->members[i].is_awake))
            return 1;
    return 0;
}

int npush_team_wait(npush_team_t *team, int64_t timeout_ns)
{
    uint32_t n_chunks = READ(team->job.n_chunks), done;

    /* Either the last member sees this, or we see its count: pairs with finish(). */
    __atomic_store_n(&team->is_waiting, 1, __ATOMIC_SEQ_CST);
    while ((done = __atomic_load_n(&team->done, __ATOMIC_SEQ_CST)) != n_chunks)
        if (npush_futex_wait(&team->done, done, timeout_ns))
            break;
    WRITE(team->is_waiting, 0);
    if (LOAD(team->done) != n_chunks)
        return 0;
    return READ(team->aborted) == number_of(READ(team->ticket)) ? NPUSH_TEAM_ABORTED : NPUSH_TEAM_OVER;
}

int npush_team_run(npush_team_t *team, const npush_job_t *job, int64_t timeout_ns, uint32_t *number)
{
    *number = publish(team, job);
    if (is_one_awake(team))
        watch(&team->done, job->n_chunks, 1, PATIENCE_NS);
    if (LOAD(team->done) != job->n_chunks)
        wake_for(team, job);
    return npush_team_wait(team, timeout_ns);
}

uint32_t npush_team_number(const npush_team_t *team)
{
    return number_of(LOAD(team->ticket));
}

uint32_t npush_team_left(const npush_team_t *team)
{
    return (uint32_t)LOAD(team->ticket);
}

uint32_t npush_team_done(const npush_team_t *team)
{
    return LOAD(team->done);
}

void npush_team_ring(npush_team_t *team)
{
    ring(team, INT_MAX);
}

void npush_team_tell(npush_team_t *team, uint32_t member)
{
    __atomic_add_fetch(&team->members[member].mail, 1, __ATOMIC_RELEASE);
    ring(team, INT_MAX);
}

void npush_team_close(npush_team_t *team)
{
    WRITE(team->is_closed, 1);
    ring(team, INT_MAX);
}

void npush_team_look(const npush_team_t *team, uint32_t member, npush_report_t *report)
{
    const npush_member_t *me = &team->members[member];
    uint64_t claim = LOAD(me->claim);

    report->claim_job = number_of(claim);
    report->claim_chunk = claim ? (uint32_t)claim - 1 : 0;
    report->state = READ(me->state);
    report->job = LOAD(me->job);
    report->done = LOAD(me->done);
    report->rc = LOAD(me->rc);
    report->failed = READ(me->failed);
}

void npush_team_replace(npush_team_t *team, uint32_t member)
{
    npush_member_t *me = &team->members[member];

    WRITE(me->claim, 0);
    WRITE(me->state, NPUSH_TEAM_STARTING);
    WRITE(me->job, 0);
    WRITE(me->done, 0);
    WRITE(me->failed, 0);
    WRITE(me->rc, 0);
    WRITE(me->mail, 0);
    WRITE(me->is_awake, 0);
}

void npush_team_raise_barrier(npush_team_t *team)
{
    WRITE(team->arrived, 0);
    WRITE(team->is_broken, 0);
}

/* -- both */

/* Count chunks as over; whoever counts the last wakes the leader. */
static void finish(npush_team_t *team, uint32_t n)
{
    /* The job is the one of these chunks until they are counted. */
    uint32_t n_chunks = READ(team->job.n_chunks);

    if (__atomic_add_fetch(&team->done, n, __ATOMIC_SEQ_CST) == n_chunks
        && __atomic_load_n(&team->is_waiting, __ATOMIC_SEQ_CST))
        npush_futex_wake(&team->done, 1);
}

static uint32_t take_back(npush_team_t *team, uint32_t number)
{
    uint64_t ticket = LOAD(team->ticket);

    WRITE(team->aborted, number);
    while (number_of(ticket) == number && (uint32_t)ticket)
        if (__atomic_compare_exchange_n(&team->ticket, &ticket, (uint64_t)number << 32, 0, __ATOMIC_ACQ_REL,
                                        __ATOMIC_ACQUIRE))
            return (uint32_t)ticket;
    return 0;
}

uint32_t npush_team_abort(npush_team_t *team, uint32_t number)
{
    uint32_t n = take_back(team, number);

    if (n)
        finish(team, n);
    return n;
}

/* -- a member */

/* Copy what is to be done, if chunks of it are left. */
static int see(const npush_team_t *team, view_t *view)
{
    view->ticket = LOAD(team->ticket);
    if (!(uint32_t)view->ticket)
        return 0;
    view->number = number_of(view->ticket);
    /* Acquire: before the ticket is looked at again. */
    view->plan = LOAD(team->job.plan);
    view->n_chunks = LOAD(team->job.n_chunks);
    view->begin = LOAD(team->job.begin);
    view->end = LOAD(team->job.end);
    view->chunk = LOAD(team->job.chunk);
    return 1;
}

/* Whether what was read since see() is of that job. */
static int is_same(const npush_team_t *team, const view_t *view)
{
    return number_of(LOAD(team->ticket)) == view->number;
}

/* Take a chunk of the job that was seen: its place, or -1. */
static int64_t take(npush_team_t *team, npush_member_t *me, view_t *view)
{
    while ((uint32_t)view->ticket && number_of(view->ticket) == view->number) {
        uint32_t chunk = view->n_chunks - (uint32_t)view->ticket;

        WRITE(me->claim, (uint64_t)view->number << 32 | (chunk + 1));
        NPUSH_STEP();
        /* Release: whoever sees the chunk gone sees our claim. Acquire and release: rule (1). */
        if (__atomic_compare_exchange_n(&team->ticket, &view->ticket, view->ticket - 1, 0, __ATOMIC_ACQ_REL,
                                        __ATOMIC_ACQUIRE)) {
            view->ticket--;
            NPUSH_STEP();
            return chunk;
        }
    }
    return -1;
}

static void rows_of(const view_t *view, int64_t chunk, int64_t *rows)
{
    rows[0] = view->begin + chunk * view->chunk;
    rows[1] = view->end - rows[0] > view->chunk ? rows[0] + view->chunk : view->end;
}

/* Store the job's words into the block of its plan; not, and 0, if what was read is not of that job. */
static int patch(const npush_team_t *team, const view_t *view, const npush_plan_t *plan)
{
    uint32_t n = LOAD(team->job.n_patches), place[NPUSH_TEAM_PATCHES];
    int64_t value[NPUSH_TEAM_PATCHES];

    for (uint32_t i = 0; i < n && i < NPUSH_TEAM_PATCHES; i++) {
        place[i] = LOAD(team->job.place[i]);
        value[i] = LOAD(team->job.value[i]);
    }
    if (!is_same(team, view))
        return 0;
    for (uint32_t i = 0; i < n; i++)
        plan->block[place[i]] = value[i];
    return 1;
}

/* Note that a chunk did not end well, and take the rest back: how many chunks that is, with the one. */
static uint32_t fail(npush_team_t *team, npush_member_t *me, uint32_t number, uint32_t chunk, int32_t rc)
{
    WRITE(me->failed, chunk);
    __atomic_store_n(&me->rc, rc, __ATOMIC_RELEASE);
    NPUSH_STEP();
    return 1 + take_back(team, number);
}

/* Do chunks of a job until there are none, or one fails: its result. */
static int32_t run_chunks(npush_team_t *team, npush_member_t *me, view_t *view, const npush_plan_t *plan, void **excinfo)
{
    uint32_t n = 0;
    int64_t chunk, rows[2];
    int32_t rc = 0;

    WRITE(me->done, 0);
    WRITE(me->rc, 0);
    __atomic_store_n(&me->job, view->number, __ATOMIC_RELEASE);
    while (!rc && (chunk = take(team, me, view)) >= 0) {
        rows_of(view, chunk, rows);
        rc = plan->entry(plan->block, rows[0], rows[1], excinfo);
        NPUSH_STEP();
        if (rc)
            n += fail(team, me, view->number, (uint32_t)chunk, rc);
        else
            __atomic_store_n(&me->done, ++n, __ATOMIC_RELEASE);
        NPUSH_STEP();
    }
    if (n)
        finish(team, n);
    NPUSH_STEP();
    __atomic_store_n(&me->claim, 0, __ATOMIC_RELEASE);
    return rc;
}

/* Wait for the bell to be rung since it was `bell`; without sleeping first, for awake_ns. */
static int rest_until(npush_team_t *team, npush_member_t *me, uint32_t bell, int64_t awake_ns)
{
    if (awake_ns) {
        WRITE(me->is_awake, 1);
        watch(&team->bell, bell, 0, awake_ns);
        WRITE(me->is_awake, 0);
    }
    return npush_futex_wait(&team->bell, bell, ALWAYS);
}

int npush_team_work(npush_team_t *team, uint32_t member, const npush_plan_t *plans, uint32_t n_read, uint32_t seen,
                    int64_t awake_ns, uint32_t *number, uint32_t *plan, int32_t *rc, void **excinfo)
{
    npush_member_t *me = &team->members[member];
    view_t view;
    int has_worked = 0;

    WRITE(me->state, NPUSH_TEAM_READY);
    for (;;) {
        uint32_t bell = LOAD(team->bell);
        int is_on = see(team, &view);

        if (READ(team->is_closed))
            return NPUSH_TEAM_CLOSED;
        /* After the ticket: what a job needs was sent before it was started. */
        if (LOAD(me->mail) != n_read)
            return NPUSH_TEAM_MAIL;
        if (is_on && view.number != seen) {
            const npush_plan_t *found = &plans[view.plan % NPUSH_TEAM_PLANS];

            *number = view.number;
            if (found->id != view.plan || !view.plan) {
                if (!is_same(team, &view))
                    continue;
                *plan = view.plan;
                return view.plan ? NPUSH_TEAM_UNKNOWN : NPUSH_TEAM_CALL;
            }
            if (!patch(team, &view, found))
                continue;
            *plan = view.plan;
            *rc = run_chunks(team, me, &view, found, excinfo);
            if (*rc)
                return NPUSH_TEAM_FAILED;
            has_worked = 1;
            continue;
        }
        if (rest_until(team, me, bell, has_worked ? awake_ns : 0) == -EINTR)
            return -EINTR;
        has_worked = 0;
    }
}

int64_t npush_team_take(npush_team_t *team, uint32_t member, uint32_t number, int64_t *rows)
{
    npush_member_t *me = &team->members[member];
    view_t view;
    int64_t chunk = -1;

    if (see(team, &view) && view.number == number)
        chunk = take(team, me, &view);
    if (chunk < 0)
        npush_team_rest(team, member);
    else
        rows_of(&view, chunk, rows);
    return chunk;
}

void npush_team_fail(npush_team_t *team, uint32_t member, uint32_t number, uint32_t chunk, int32_t rc)
{
    npush_member_t *me = &team->members[member];

    WRITE(me->done, 0);
    __atomic_store_n(&me->job, number, __ATOMIC_RELEASE);
    finish(team, fail(team, me, number, chunk, rc));
    npush_team_rest(team, member);
}

void npush_team_rest(npush_team_t *team, uint32_t member)
{
    __atomic_store_n(&team->members[member].claim, 0, __ATOMIC_RELEASE);
}

int npush_team_is_aborted(const npush_team_t *team, uint32_t number)
{
    return READ(team->aborted) == number;
}

/* -- the barrier */

uint32_t npush_team_arrive(npush_team_t *team, uint32_t n)
{
    uint32_t phase = LOAD(team->phase);

    if (__atomic_add_fetch(&team->arrived, 1, __ATOMIC_ACQ_REL) == n) {
        WRITE(team->arrived, 0); /* before the phase, which lets the others arrive again */
        npush_futex_post(&team->phase);
    }
    return phase + 1;
}

int npush_team_await(npush_team_t *team, uint32_t phase, int64_t timeout_ns)
{
    int64_t deadline = now_ns() + timeout_ns;

    for (;;) {
        uint32_t now = LOAD(team->phase);
        int64_t left = deadline - now_ns();

        if ((int32_t)(now - phase) >= 0)
            return 1;
        if (LOAD(team->is_broken))
            return -EPIPE;
        if (left <= 0)
            return 0;
        if (npush_futex_wait(&team->phase, now, left) == -EINTR)
            return 0;
    }
}

void npush_team_break_barrier(npush_team_t *team)
{
    __atomic_store_n(&team->is_broken, 1, __ATOMIC_RELEASE);
    npush_futex_wake(&team->phase, INT_MAX);
}
