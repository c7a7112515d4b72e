// Threads that run one image together. They take the rows of a layer's map one after the other, and none begins a layer
// before all rows of the one before are done. So a thread may join its team at any time, or never.

#pragma once
#include "task.h"

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
    while (run->task->members > 1 && __atomic_load_n(run->team.done + layer, __ATOMIC_ACQUIRE) < end) {
#ifdef __x86_64__
        __builtin_ia32_pause();
#endif
    }
}
