/* npush_team.h - the control block of a team: processes that sleep until there is a job, and draw its chunks.
 *
 *    0    u32  layout, u32  n_members       constant after npush_team_init
 *   64    bell                              a futex; raised after everything that a sleeping member is to see
 *  128    ticket                            number of the job << 32 | chunks that nobody has taken: all that is drawn from
 *  192    done, is_waiting, aborted         chunks that are over, a futex; whether the leader sleeps on it; a job given up
 *  256    arrived, phase, is_broken         the barrier; phase is a futex
 *  320    job                               what the ticket is about
 *  ...    members, a line each              written by the member, but for `mail`, and when it is not running
 *
 * The leader is the process that made the team; it runs one job at a time, by one thread.
 *
 * (1) The job is changed by the leader alone, and only while the ticket has no chunks left. A member reads it and then takes
 *     a chunk by compare-exchange of the whole ticket: that it had the number and chunks left all the time says that what it
 *     read belongs together. So nobody waits for a member that wakes up late: it finds no chunk, or one of the next job.
 * (2) A chunk of kernel work is counted in its member's line at once and in `done` when the member finds no more. `done` and
 *     the chunks taken back (npush_team_abort) add up to all chunks exactly when no member is in a kernel.
 * (3) A member writes which chunk it is going to take into its line before it takes it, and clears that after it has counted.
 *     After a crash: a member that died took at most the chunk of its claim, perhaps did not take it, perhaps did all of it.
 *     Nobody else waits for what it held; the leader sees that it is dead, and adds the lines up.
 * (4) Nothing here refers to memory of one process. What a plan means is in each member's own table. */
#ifndef NPUSH_TEAM_H
#define NPUSH_TEAM_H
#include <stddef.h>
#include <stdint.h>

/* cdef: begin */
#define NPUSH_TEAM_LAYOUT 1
#define NPUSH_TEAM_PLANS 64
#define NPUSH_TEAM_PATCHES 32
/* What npush_team_work returns. */
#define NPUSH_TEAM_MAIL 1
#define NPUSH_TEAM_CALL 2
#define NPUSH_TEAM_FAILED 3
#define NPUSH_TEAM_UNKNOWN 4
#define NPUSH_TEAM_CLOSED 5
/* What npush_team_wait returns. */
#define NPUSH_TEAM_OVER 1
#define NPUSH_TEAM_ABORTED 2
/* States of a member. */
#define NPUSH_TEAM_STARTING 0
#define NPUSH_TEAM_READY 1

/* What is to be done: the rows from `begin` to `end`, by plan `plan` (0: by Python), in n_chunks chunks of `chunk` rows, the
 * last maybe shorter. Before that each member stores value[i] at word place[i] of its block of the plan. */
typedef struct {
    uint32_t plan, n_chunks;
    int64_t begin, end, chunk;
    uint32_t n_patches, place[NPUSH_TEAM_PATCHES];
    int64_t value[NPUSH_TEAM_PATCHES];
} npush_job_t;

/* Plan `id` in a member's table, at place id % NPUSH_TEAM_PLANS; 0: none. entry does rows i0 to i1 of what block says and
 * returns 0, or else leaves in *excinfo what went wrong. */
typedef struct {
    uint32_t id;
    int32_t (*entry)(const int64_t *block, int64_t i0, int64_t i1, void **excinfo);
    int64_t *block;
} npush_plan_t;

/* What a member was at. claim_*: the chunk that it is about to take, in, or done with and not counted; job 0: none.
 * done: chunks of job `job` that it has finished. rc: not 0 if its chunk `failed` did not end well. */
typedef struct {
    uint32_t state, claim_job, claim_chunk, job, done, failed;
    int32_t rc;
} npush_report_t;

typedef struct npush_team npush_team_t;

/* Bytes that a team of n takes, at an address that 64 divides. */
uint64_t npush_team_size(uint32_t n_members);
/* Make zeroed memory a team. */
void npush_team_init(npush_team_t *team, uint32_t n_members);
/* 0, or -EINVAL: it is no team of n members and this layout. */
int npush_team_check(const npush_team_t *team, uint32_t n_members);

/* -- the leader. One thread at a time. */

/* Start a job, wait as npush_team_wait does. *number is the job's. As many members are woken as there are chunks for; but
 * where one is awake (npush_team_work), not before it has had 5 us for all of them. */
int npush_team_run(npush_team_t *team, const npush_job_t *job, int64_t timeout_ns, uint32_t *number);
/* Start a job and return its number. Members that see it at all see the mail and barrier from before it. */
uint32_t npush_team_start(npush_team_t *team, const npush_job_t *job);
/* Sleep until all chunks are over. NPUSH_TEAM_OVER; NPUSH_TEAM_ABORTED, over too. 0: not in time, or a signal came; ask
 * again. It does not spin first: on as many cores as members that takes a core from one of them. */
int npush_team_wait(npush_team_t *team, int64_t timeout_ns);
/* Take back the chunks of job `number` that nobody has taken, counting them as done; how many. Members do so too. */
uint32_t npush_team_abort(npush_team_t *team, uint32_t number);
/* The number of the latest job. */
uint32_t npush_team_number(const npush_team_t *team);
/* Chunks of the job that nobody has taken; those that are over, those in progress being counted late. */
uint32_t npush_team_left(const npush_team_t *team);
uint32_t npush_team_done(const npush_team_t *team);
/* Wake all members, who look what there is: for when the one that was woken died, or was stopped. */
void npush_team_ring(npush_team_t *team);
/* Say that a message for a member is on its way, and wake it; it goes to fetch it. */
void npush_team_tell(npush_team_t *team, uint32_t member);
void npush_team_close(npush_team_t *team);
/* Read a member's line. */
void npush_team_look(const npush_team_t *team, uint32_t member, npush_report_t *report);
/* Clear the line of a member that is dead, for the one that takes its place. */
void npush_team_replace(npush_team_t *team, uint32_t member);
/* Set the barrier up, while no job runs. */
void npush_team_raise_barrier(npush_team_t *team);

/* -- a member */

/* Sleep until there is something to do, and do kernel jobs, until one of these: NPUSH_TEAM_MAIL, more messages were sent than
 * n_read. NPUSH_TEAM_CALL, job *number is for Python; not if it is `seen`. NPUSH_TEAM_FAILED, the entry of plan *plan gave
 * *rc and *excinfo; it is counted, and the rest of the job taken back. NPUSH_TEAM_CLOSED. NPUSH_TEAM_UNKNOWN, plan
 * *plan of job *number is not in the table; again, not if it is `seen`. -EINTR: a signal handler wants to run.
 * After a job it stays awake for awake_ns, for the next one: to wake a core that sleeps takes longer than a small job. */
int npush_team_work(npush_team_t *team, uint32_t member, const npush_plan_t *plans, uint32_t n_read, uint32_t seen,
                    int64_t awake_ns, uint32_t *number, uint32_t *plan, int32_t *rc, void **excinfo);
/* Take a chunk of job `number`, for Python: rows[0] to rows[1]. Its place, or -1: there is none left. */
int64_t npush_team_take(npush_team_t *team, uint32_t member, uint32_t number, int64_t *rows);
/* Give up the chunk of job `number` that was taken, and what is left of the job, as an entry that returned rc does. */
void npush_team_fail(npush_team_t *team, uint32_t member, uint32_t number, uint32_t chunk, int32_t rc);
/* Hold no chunk any more. */
void npush_team_rest(npush_team_t *team, uint32_t member);
/* Whether job `number` was given up: somebody has taken back what was left of it, or would have. */
int npush_team_is_aborted(const npush_team_t *team, uint32_t number);

/* -- the barrier: whoever runs a job of one chunk for each member */

/* Arrive; the phase to wait for. The last of n to arrive opens it. */
uint32_t npush_team_arrive(npush_team_t *team, uint32_t n);
/* Wait for the phase that arrive gave. 1: all have arrived. 0: not in time, or a signal came. -EPIPE: it is broken. */
int npush_team_await(npush_team_t *team, uint32_t phase, int64_t timeout_ns);
/* Let nobody wait there any more: somebody will not come. */
void npush_team_break_barrier(npush_team_t *team);
/* cdef: end */

#define NPUSH_LINE 64 /* a cache line on x86-64 and most arm64 */

typedef struct {
    _Alignas(NPUSH_LINE) uint64_t claim; /* job << 32 | chunk + 1; 0: none */
    uint32_t state;
    uint32_t job;
    uint32_t done;
    uint32_t failed;
    int32_t rc;
    uint32_t mail;
    uint32_t is_awake;
} npush_member_t;

struct npush_team {
    _Alignas(NPUSH_LINE) uint32_t layout;
    uint32_t n_members;
    _Alignas(NPUSH_LINE) uint32_t bell;
    uint32_t is_closed;
    _Alignas(NPUSH_LINE) uint64_t ticket;
    _Alignas(NPUSH_LINE) uint32_t done;
    uint32_t is_waiting;
    uint32_t aborted;
    _Alignas(NPUSH_LINE) uint32_t arrived;
    uint32_t phase;
    uint32_t is_broken;
    _Alignas(NPUSH_LINE) npush_job_t job;
    npush_member_t members[];
};

_Static_assert(sizeof(npush_member_t) == NPUSH_LINE, "layout 1");
_Static_assert(offsetof(struct npush_team, ticket) == 128, "layout 1");
_Static_assert(offsetof(struct npush_team, done) == 192, "layout 1");
_Static_assert(offsetof(struct npush_team, job) == 320, "layout 1");
#endif
