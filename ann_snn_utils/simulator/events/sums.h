// What events add to membranes: sums of the rows of weights that they stand for, or what is seen through a window.

#pragma once
#include "spikes.h"

// Steps in which something came, for which the `listed` ones have events.
static uint32_t steps_of(uint32_t listed, int nested) {
    for (int shift = 1; shift < BLOCK && nested; shift *= 2)
        listed |= listed >> shift;
    return listed;
}

// Neighbouring places of a row of the map before, from one mark to another: their events are neighbours too, and where
// the weights of these lie differs by a constant.
typedef struct { int32_t first, end, base; } Stretch;

// The stretches that the place (y, x) sees, and those abreast of it: for each row of the kernel one, or one for each
// place that a dilated kernel sees. Returns where they end.
static Stretch *stretches_of(const Synapses *synapses, int64_t y, int64_t x, Stretch *to) {
    const int64_t apart = synapses->dilation, width = synapses->kernel_width, across = apart == 1 ? width : 1;
    const int64_t top = y * synapses->stride - synapses->padding, left = x * synapses->stride - synapses->padding;
    const int64_t height = synapses->in_height, row_marks = marks_in(synapses->in_width);
    const int64_t size = synapses->in_channels * synapses->row, end_row = top + synapses->kernel_height * apart;
    for (int64_t column = 0; column < width; column += across) {
        int64_t corner = left + column * apart, base = (column - corner) * size;
        int64_t first = LARGER(0, corner), end = SMALLER(synapses->in_width, corner + across);
        for (int64_t row = top; row < end_row && first < end; row += apart, base += width * size)
            if (row >= 0 && row < height)
                *to++ = (Stretch){row * row_marks + first, row * row_marks + end, base};
    }
    return to;
}

// Collect the rows that places abreast receive. Returns a bit for each step in which something came.
static uint32_t collect(const Run *run, const Synapses *synapses, int64_t steps, uint32_t sent, int64_t y, int64_t x,
                        Rows *to) {
    Stretch stretches[synapses->kernel_height * (synapses->dilation == 1 ? 1 : synapses->kernel_width)];
    const Stretch *last = stretches_of(synapses, y, x, stretches);
    const int32_t *events = spikes_of(run, synapses->source)->events, *marks = marks_of(run, synapses->source, 0, 0);
    const int64_t next_marks = run->task->mark_room;
    const int32_t size = synapses->row, nothing = synapses->nothing;
    uint32_t listed = 0;
    to->nested = lists_nested(run, synapses->source);
    for (int64_t step = 0; step < steps; step++, marks += next_marks) {
        int32_t *first = to->rows[step], *rows = first;
        for (const Stretch *one = stretches; one < last && sent >> step & 1; one++) {
            const int32_t *event = events + marks[one->first];
            int32_t number = marks[one->end] - marks[one->first], at = 0;
            do
                *(Ints *)(rows + at) = *(const Ints *)(event + at) * size + one->base;
            while ((at += LANES) < number);
            rows += number;
        }
        *(Scores *)rows = (Scores){0} + nothing;
        int64_t used = rows - first;
        to->used[step] = used;
        listed |= (uint32_t)(used > 0) << step;
    }
    return steps_of(listed, to->nested);
}

// What the rows of each step add to `WIDTH` membranes of places abreast, from `channel` on: sums[step · pitch], set, or
// with `more` added to. They are added in registers, as many as cannot leave a byte. Nibbles hold 1 more than a weight.
#define SUM(WIDTH)                                                                                                    \
    static void sum_##WIDTH(const Synapses *synapses, const Rows *rows, int64_t steps, int64_t pitch, int64_t channel,\
                            int more, Number *sums) {                                                                 \
        typedef VECTOR(int8_t, WIDTH) Row;                                                                            \
        typedef VECTOR(uint8_t, WIDTH / 2) Half;                                                                      \
        typedef VECTOR(Number, WIDTH) Total;                                                                          \
        const int nibbles = synapses->how == NIBBLES;                                                                 \
        const int64_t crowd = nibbles ? 255 / (2 * NIBBLE_TURN) * NIBBLE_TURN : synapses->crowd & -TURN;              \
        const int8_t *weights = synapses->weights + (nibbles ? channel / 2 : channel);                                \
        const Total gain = *(const Total *)((const Number *)synapses->gain + channel);                                \
        Total total = {0};                                                                                            \
        for (int64_t step = steps - 1; step >= 0; step--) {                                                           \
            const int32_t *row = rows->rows[step], *end = row + rows->used[step];                                     \
            Total *sum = (Total *)(sums + step * pitch + channel);                                                    \
            for (; row < end && synapses->crowd < TURN; row++)                                                        \
                total += __builtin_convertvector(*(const Row *)(weights + *row), Total);                              \
            while (row < end) {                                                                                       \
                const int32_t *until = row + SMALLER(crowd, end - row);                                               \
                union { Half halves[2]; VECTOR(uint8_t, WIDTH) counts; Row bytes; } all = {{{0}, {0}}};               \
                for (; row < until && nibbles; row += NIBBLE_TURN)                                                    \
                    for (int part = 0; part < NIBBLE_TURN; part += NIBBLE_CROWD) {                                    \
                        Half packed = *(const Half *)(weights + row[part]);                                           \
                        for (int each = 1; each < NIBBLE_CROWD; each++)                                               \
                            packed += *(const Half *)(weights + row[part + each]);                                    \
                        all.halves[0] += packed & 15;                                                                 \
                        all.halves[1] += packed >> 4;                                                                 \
                    }                                                                                                 \
                for (; row < until; row += TURN)                                                                      \
                    all.bytes += (*(const Row *)(weights + row[0]) + *(const Row *)(weights + row[1]))                \
                               + (*(const Row *)(weights + row[2]) + *(const Row *)(weights + row[3]));               \
                total += nibbles ? __builtin_convertvector(all.counts, Total)                                         \
                                 : __builtin_convertvector(all.bytes, Total);                                         \
            }                                                                                                         \
            total -= (Number)(nibbles ? rows->used[step] : 0);                                                        \
            if (more)                                                                                                 \
                *sum += total * gain;                                                                                 \
            else                                                                                                      \
                *sum = total * gain;                                                                                  \
            if (!rows->nested)                                                                                        \
                total = (Total){0};                                                                                   \
        }                                                                                                             \
    }

SUM(32)
SUM(64)
SUM(128)
SUM(256)

// The places of the map before that the place (y, x) sees, by those of the kernel; −1 outside of the map.
static void see(const Synapses *synapses, int64_t y, int64_t x, int64_t *places) {
    for (int64_t row = 0; row < synapses->kernel_height; row++)
        for (int64_t column = 0; column < synapses->kernel_width; column++) {
            int64_t map_row = y * synapses->stride - synapses->padding + row * synapses->dilation;
            int64_t map_column = x * synapses->stride - synapses->padding + column * synapses->dilation;
            int outside = map_row < 0 || map_row >= synapses->in_height || map_column < 0
                       || map_column >= synapses->in_width;
            *places++ = outside ? -1 : map_row * synapses->in_width + map_column;
        }
}

// The weighted sum of the counts in a window, or the largest of them, for LANES channels.
static Numbers value_of(const Synapses *synapses, const Number *window, int64_t size, int64_t pitch, int64_t channel) {
    Numbers sum = {0}, largest = *(const Numbers *)(window + channel);
    for (int64_t at = channel; at < size * pitch; at += pitch) {
        Numbers counts = *(const Numbers *)(window + at);
        if (synapses->how == MAXIMUM)
            largest = __builtin_elementwise_max(largest, counts);
        else
            sum += counts * __builtin_convertvector(*(const Bytes *)(synapses->weights + at), Numbers);
    }
    return synapses->how == MAXIMUM ? largest : sum;
}

// Take the events of a place in one step back from its counts, [channels].
static void take_back(const Run *run, int64_t index, int64_t step, int64_t place, Number *counts) {
    const Layer *source = run->layers + index;
    int64_t column = source->event_width == source->width ? place % source->width : place;
    const int32_t *mark = marks_of(run, index, step, place / source->width) + place % source->width;
    const int32_t *events = spikes_of(run, index)->events, *event = events + mark[0], *end = events + mark[1];
    for (counts -= column * source->channels; event < end; event++) {
        int64_t falls = *event >= source->flip;
        counts[*event - falls * source->flip] -= 1 - 2 * falls;
    }
}

// What a place adds to its sums that sees, in each channel, a window on neurons of the same channel alone. The counts
// in it are known at the end of the block: from there on its spikes are taken back, step by step. See `receive`.
static uint32_t sum_window(const Run *run, const Synapses *synapses, int64_t steps, int64_t y, int64_t x,
                           const Workspace *space, int more) {
    const Layer *source = run->layers + synapses->source;
    const Number outside = synapses->how == MAXIMUM ? -((1LL << (MEMBRANE - 1)) - 1) : 0, *gain = synapses->gain;
    int64_t pitch = source->pitch, size = synapses->kernel_height * synapses->kernel_width, places[size];
    uint32_t listed = 0;
    int nested = lists_nested(run, synapses->source);
    see(synapses, y, x, places);
    for (int64_t at = 0; at < size; at++)
        for (int64_t step = 0; step < steps && places[at] >= 0; step++) {
            const int32_t *mark =
                marks_of(run, synapses->source, step, places[at] / source->width) + places[at] % source->width;
            listed |= (uint32_t)(mark[1] > mark[0]) << step;
        }
    uint32_t received = steps_of(listed, nested);
    if (!received)
        return 0;
    for (int64_t at = 0; at < size; at++)
        for (int64_t channel = 0; channel < pitch; channel += LANES)
            *(Numbers *)(space->window + at * pitch + channel) =
                places[at] < 0 ? (Numbers){0} + outside
                               : counts_at(run, run->arrived, source->first + places[at] * pitch + channel);
    for (int64_t channel = 0; channel < pitch; channel += LANES)
        *(Numbers *)(space->values + channel) = value_of(synapses, space->window, size, pitch, channel);
    for (int64_t step = steps - 1; step >= 0; step--) {
        int changes = received >> step & 1;
        for (int64_t at = 0; at < size && changes; at++)
            for (int64_t one = step; one < (nested ? steps : step + 1) && places[at] >= 0; one++)
                take_back(run, synapses->source, one, places[at], space->window + at * pitch);
        for (int64_t channel = 0; channel < pitch; channel += LANES) {
            Numbers *after = (Numbers *)(space->values + channel), before = *after;
            Numbers *sum = (Numbers *)(space->sums + step * pitch + channel);
            if (changes)
                before = value_of(synapses, space->window, size, pitch, channel);
            Numbers change = (*after - before) * *(const Numbers *)(gain + channel);
            *sum = more ? *sum + change : change;
            *after = before;
        }
    }
    return received;
}

// What reaches the place (y, x) and those abreast of it by one way, up to a step: sums[step · pitch], set, or added to
// with `more`. sent: steps in which spikes came from there.
static uint32_t receive(const Run *run, const Synapses *synapses, int64_t steps, uint32_t sent, int64_t y, int64_t x,
                        Workspace *space, int more) {
    const Layer *target = run->layers + synapses->target;
    int64_t pitch = target->abreast * target->pitch;
    Rows *rows = &space->rows;
    Number *sums = space->sums;
    if (synapses->how >= WINDOW)
        return sum_window(run, synapses, steps, y, x, space, more);
    uint32_t received = collect(run, synapses, steps, sent, y, x, rows);
    int64_t end = received ? pitch : 0;
    for (int64_t channel = 0, width = WIDEST; channel < end; channel += width) {
        while (width > pitch - channel)
            width /= 2;
        switch (width) {
        case 256: sum_256(synapses, rows, steps, pitch, channel, more, sums); break;
        case 128: sum_128(synapses, rows, steps, pitch, channel, more, sums); break;
        case 64: sum_64(synapses, rows, steps, pitch, channel, more, sums); break;
        default: sum_32(synapses, rows, steps, pitch, channel, more, sums); break;
        }
    }
    return received;
}
