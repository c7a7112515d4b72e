// Sums of the rows of weights that events stand for.

#pragma once
#include "spikes.h"

// Collect what the place (y, x) receives. It sees, for each row of its kernel, some neighbouring places of one row of
// the map before, whose events are neighbours too, and where their weights lie for this place differs by a constant.
static void collect(const Layer *layer, const Spikes *from, int64_t steps, int64_t y, int64_t x, Rows *to) {
    int64_t top = y * layer->stride - layer->padding, left = x * layer->stride - layer->padding;
    int64_t first_row = LARGER(0, -top), end_row = SMALLER(layer->kernel_height, layer->in_height - top);
    int64_t first = LARGER(0, left), end = SMALLER(layer->in_width, left + layer->kernel_width);
    int32_t column = layer->in_channels * layer->row, row_size = layer->kernel_width * column;
    to->nested = from->nested;
    for (int64_t step = 0; step < steps; step++) {
        int32_t *rows = to->rows[step];
        for (int64_t row = first_row; row < end_row && from->used[step]; row++) {
            const int32_t *place = from->first[step] + (top + row) * layer->in_width;
            const int32_t *event = from->events[step] + place[first];
            int32_t number = place[end] - place[first];
            int32_t base = row * row_size - left * column, at = 0;
            do
                *(Scores *)(rows + at) = *(const Scores *)(event + at) + base;
            while ((at += CLASS_LANES) < number);
            rows += number;
        }
        *(Scores *)rows = (Scores){0} + (int32_t)layer->nothing;
        to->used[step] = rows - to->rows[step];
    }
}

// What the rows of each step add to `WIDTH` membranes of a place, from `channel` on: sums[step · pitch]. They are added
// as bytes, in registers, as many as cannot leave them. Returns a bit for each step with rows.
#define SUM(WIDTH)                                                                                                    \
    static uint32_t sum_##WIDTH(const Layer *layer, const Rows *rows, int64_t steps, int64_t channel, Number *sums) { \
        typedef VECTOR(int8_t, WIDTH) Row;                                                                            \
        typedef VECTOR(Number, WIDTH) Total;                                                                          \
        const int8_t *weights = layer->weights + channel;                                                             \
        Total total = {0};                                                                                            \
        uint32_t received = 0;                                                                                        \
        for (int64_t step = steps - 1; step >= 0; step--) {                                                           \
            const int32_t *row = rows->rows[step], *end = row + ((rows->used[step] + TURN - 1) & -TURN);              \
            received |= (uint32_t)(row < end) << step;                                                                \
            for (; row < end && layer->crowd < TURN; row++)                                                           \
                total += __builtin_convertvector(*(const Row *)(weights + *row), Total);                              \
            while (row < end) {                                                                                       \
                const int32_t *until = row + SMALLER(layer->crowd & -TURN, end - row);                                \
                Row bytes = {0};                                                                                      \
                for (; row < until; row += TURN)                                                                      \
                    bytes += (*(const Row *)(weights + row[0]) + *(const Row *)(weights + row[1]))                    \
                           + (*(const Row *)(weights + row[2]) + *(const Row *)(weights + row[3]));                   \
                total += __builtin_convertvector(bytes, Total);                                                       \
            }                                                                                                         \
            *(Total *)(sums + step * layer->pitch + channel) = total * (Number)layer->gain;                           \
            if (rows->nested)                                                                                         \
                received |= received >> 1;                                                                            \
            else                                                                                                      \
                total = (Total){0};                                                                                   \
        }                                                                                                             \
        return received;                                                                                              \
    }

SUM(32)
SUM(64)
SUM(128)
SUM(256)

// A full adder for each of 512 bits: a + b + c = 2 · high + low.
static inline __attribute__((always_inline)) void add_three(Slice *high, Slice *low, Slice a, Slice b, Slice c) {
#ifdef __AVX512F__
    *high = (Slice)_mm512_ternarylogic_epi64((__m512i)a, (__m512i)b, (__m512i)c, 0xE8);
    *low = (Slice)_mm512_ternarylogic_epi64((__m512i)a, (__m512i)b, (__m512i)c, 0x96);
#else
    *high = (a & b) | ((a ^ b) & c);
    *low = a ^ b ^ c;
#endif
}

// Count the bits of 16 rows for each of their 512 columns: adds them to the four planes, the lowest first, and returns
// what exceeds these. Adders wait until there are three bits of a weight, so 16 rows need 15 of them.
static inline __attribute__((always_inline)) Slice count_sixteen(const int8_t *weights, const int32_t *row,
                                                                 Slice *planes) {
    Slice two[2], four[2], eight[2], sixteen;
    for (int half = 0; half < 2; half++) {
        for (int quarter = 0; quarter < 2; quarter++) {
            for (int pair = 0; pair < 2; pair++, row += 2)
                add_three(two + pair, planes, planes[0], *(const Slice *)(weights + row[0]),
                          *(const Slice *)(weights + row[1]));
            add_three(four + quarter, planes + 1, planes[1], two[0], two[1]);
        }
        add_three(eight + half, planes + 2, planes[2], four[0], four[1]);
    }
    add_three(&sixteen, planes + 3, planes[3], eight[0], eight[1]);
    return sixteen;
}

// Count the bits of rows, a multiple of SLICE_TURN of them. planes: `levels` bits of each count, at least 5, each
// `slices` behind the one before.
static void count_bits(const int8_t *weights, const int32_t *row, const int32_t *end, Slice *planes, int64_t slices,
                       int levels) {
    // In registers, as is what two turns leave for higher planes.
    Slice low[5];
    for (int level = 0; level < 5; level++)
        low[level] = planes[level * slices];
    for (; row < end; row += 2 * SLICE_TURN) {
        Slice one = count_sixteen(weights, row, low), other = {0}, carry;
        if (row + SLICE_TURN < end)
            other = count_sixteen(weights, row + SLICE_TURN, low);
        add_three(&carry, low + 4, low[4], one, other);
        for (int level = 5; level < levels; level++) {
            Slice plane = planes[level * slices];
            planes[level * slices] = plane ^ carry;
            carry &= plane;
        }
    }
    for (int level = 0; level < 5; level++)
        planes[level * slices] = low[level];
}

// From counts of +1 and, behind them, of −1 their differences: a bit more than they have, in two's complement.
static void subtract(const Layer *layer, const Slice *planes, int levels, Slice *differences) {
    for (int64_t byte = 0; byte < layer->pitch / 8; byte += sizeof(Slice)) {
        Slice borrow = {0}, low;
        for (int level = 0; level < levels; level++) {
            const char *plus = (const char *)planes + level * layer->row + byte;
            add_three(&borrow, &low, ~*(const Slice *)plus, *(const Slice *)(plus + layer->pitch / 8), borrow);
            *(Slice *)((char *)differences + level * layer->row + byte) = ~low;
        }
        *(Slice *)((char *)differences + levels * layer->row + byte) = borrow;
    }
}

// What the rows of each step add to all membranes of a place, where weights are bits: see `SUM`.
static uint32_t sum_slices(const Layer *layer, const Rows *rows, int64_t steps, const Workspace *space, Number *sums) {
    int64_t slices = layer->row / sizeof(Slice), counted = 0;
    uint32_t received = 0;
    for (int64_t step = steps - 1; step >= 0; step--) {
        const int32_t *row = rows->rows[step], *end = row + ((rows->used[step] + SLICE_TURN - 1) & -SLICE_TURN);
        received |= (uint32_t)(row < end) << step;
        int fresh = !counted || !rows->nested;
        counted = rows->used[step] + (fresh ? 0 : counted);
        int levels = LARGER(5, 32 - __builtin_clz((uint32_t)counted | 1));
        for (int64_t slice = 0; slice < (rows->nested ? PLANES : levels) * slices && fresh; slice++)
            space->planes[slice] = (Slice){0};
        for (int64_t slice = 0; slice < slices; slice++)
            count_bits(layer->weights + slice * sizeof(Slice), row, end, space->planes + slice, slices, levels);
        if (counted)
            subtract(layer, space->planes, levels, space->differences);
        for (int64_t channel = 0; channel < layer->pitch && counted; channel += LANES) {
            const char *bits = (const char *)space->differences + channel / 8;
            Numbers negated = {0};
            for (int level = levels; level >= 0; level--) {
                Numbers bit = __builtin_convertvector(answers_of(*(const Four *)(bits + level * layer->row)), Numbers);
                negated = level == levels ? bit : negated + negated - bit;
            }
            *(Numbers *)(sums + step * layer->pitch + channel) = negated * (Number)-layer->gain;
        }
        if (rows->nested)
            received |= received >> 1;
    }
    return received;
}
