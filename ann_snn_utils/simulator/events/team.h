// Threads that work together: how one calls others, and how they share an image. They take the rows of a layer's map
// one after the other, and none begins a layer before all rows of the one before are done. So a thread may join its
// team at any time, or never.

#pragma once
#include "task.h"

// What a thread calls others for; NULL for one that works alone. entered: those that came, and CLOSED from when on they
// are turned away. left: those of them that went. number: of the call. newest: that of the last one, of all calls.
typedef struct {
    int64_t entered, left, number, *newest;
} Call;

// LOOKS: how often a thread looks for something to come before it sleeps: for 0.1 to 0.4 ms where it can pause between
// two looks, as it takes half of that to wake.
enum { LOOKS = 10000 };
#define CLOSED (1LL << 32)

static void look_again(void) {
#ifdef __x86_64__
    __builtin_ia32_pause();
#endif
}

// Come to a call, by which the first member lets the others know of it. Returns whether it is still open.
static int enter(Call *call, int64_t member) {
    if (call && !member)
        __atomic_store_n(call->newest, call->number, __ATOMIC_RELEASE);
    return !call || __atomic_fetch_add(&call->entered, 1, __ATOMIC_ACQ_REL) < CLOSED;
}

// Be done, also who was turned away. All but the first member, who makes calls, stay awake for the next one: here, as
// whoever returns to Python waits there for its turn.
static void leave(Call *call, int64_t member) {
    if (call)
        __atomic_fetch_add(&call->left, 1, __ATOMIC_ACQ_REL);
    for (int look = 0; member && look < LOOKS; look++) {
        if (__atomic_load_n(call->newest, __ATOMIC_ACQUIRE) > call->number)
            break;
        look_again();
    }
}

// Close a call, and return how many are still at it, after a moment.
EXPORT int64_t close_call(Call *call) {
    int64_t at_it = 1;
    __atomic_fetch_or(&call->entered, CLOSED, __ATOMIC_ACQ_REL);
    for (int look = 0; at_it && look < LOOKS; look++) {
        // In this order: who is turned away adds to both, so there are never fewer than this says.
        int64_t left = __atomic_load_n(&call->left, __ATOMIC_ACQUIRE);
        at_it = (__atomic_load_n(&call->entered, __ATOMIC_ACQUIRE) & (CLOSED - 1)) - left;
        if (at_it)
            look_again();
    }
    return at_it;
}

// The next row of a layer in this block for this thread, or −1 where all are taken. `taken` counts those of all blocks.
static int64_t take_row(const Run *run, int64_t layer, int64_t rows) {
    int64_t before = run->start / BLOCK * rows, end = before + rows, *taken = run->team.taken + layer;
    int64_t row = __atomic_load_n(taken, __ATOMIC_RELAXED);
    if (run->task->members == 1)
        *taken = SMALLER(end, row + 1);
    else
        while (row < end && !__atomic_compare_exchange_n(taken, &row, row + 1, 1, __ATOMIC_RELAXED, __ATOMIC_RELAXED))
            continue;
    return row < end ? row - before : -1;
}

// Tell the others that as many rows are done, and all that is to be read of them is there.
static void finish_rows(const Run *run, int64_t layer, int64_t rows) {
    if (run->task->members > 1)
        __atomic_fetch_add(run->team.done + layer, rows, __ATOMIC_RELEASE);
}

// Wait until all rows are done. No thread sleeps meanwhile: the others need less time than it would take to wake it.
static void wait_for_rows(const Run *run, int64_t layer, int64_t rows) {
    int64_t end = (run->start / BLOCK + 1) * rows;
    while (run->task->members > 1 && __atomic_load_n(run->team.done + layer, __ATOMIC_ACQUIRE) < end)
        look_again();
}
