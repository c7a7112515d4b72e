// How the spikes of a layer become events of the next one: words of bits, of a row of the map, are counted, and listed.

#pragma once
#include "task.h"

// A number in [0, 1) that depends on nothing but its arguments: see `disturb.uniform`.
static double uniform(const Run *run, int64_t layer, int64_t step, int64_t neuron) {
    uint64_t word = run->task->seed, parts[] = {run->sample, layer, step, neuron};
    for (int part = 0; part < 4; part++) {
        word = (word ^ parts[part]) + 0x9E3779B97F4A7C15;
        word = (word ^ (word >> 30)) * 0xBF58476D1CE4E5B9;
        word = (word ^ (word >> 27)) * 0x94D049BB133111EB;
        word ^= word >> 31;
    }
    return (word >> 11) * 0x1p-53;
}

// Of the spikes in `bits`, those that a fault strikes.
static uint32_t struck(const Run *run, int64_t layer, int64_t step, int64_t neuron, uint32_t bits) {
    uint32_t hit = 0;
    for (; bits; bits &= bits - 1)
        if (uniform(run, layer, run->start + step + 1, neuron + __builtin_ctz(bits)) < run->task->rate)
            hit |= bits & -bits;
    return hit;
}

// Which of LANES neurons fire +1 in a step, and which −1: a bit for each.
typedef struct { uint32_t rises, falls; } Fired;

static void empty(const Run *run, int64_t index, Sent *sent) {
    for (int64_t step = 0; step < run->steps; step++) {
        sent->used[step] = (step * run->task->members + run->member) * (run->task->event_room + LANES);
        sent->rises[step] = sent->falls[step] = sent->last[step] = (Words){0};
    }
    for (int64_t way = run->layers[index].outputs; way >= 0; way = run->synapses[way].next)
        for (int64_t step = 0; step < run->steps; step++)
            sent->reached[way * BLOCK + step] = sent->effective[way * BLOCK + step] = 0;
}

// Empty so many words, as they are before a row is run.
static void empty_words(const Workspace *space, int64_t number) {
    for (int64_t word = 0; word < number; word += WORDS)
        *(Words *)(space->rises + word) = *(Words *)(space->falls + word) = (Words){0};
}

// Keep that neurons fired last in this step, for runs of several blocks. fresh: a bit for each, from `neuron` on.
static void remember_last(const Run *run, int64_t index, int64_t neuron, int64_t step, Words fresh) {
    for (int word = 0; word < WORDS; word++)
        for (uint32_t bits = fresh[word]; bits; bits &= bits - 1) {
            int16_t *last = run->team.last + neuron + word * LANES + __builtin_ctz(bits);
            // Before the first spike `last` is 0, where nothing is read.
            run->by_last[index * (run->task->steps + 1) + *last]--;
            *last = run->start + step + 1;
        }
}

// Count what a row sends, behind which step there is nothing. Of what is nested, each step keeps what does not come in
// the next one. Returns the steps in which there are spikes, and in which there are some of −1, a bit for each.
static Fired count_row(const Run *run, int64_t index, int64_t y, int64_t steps, const Workspace *space, Sent *sent) {
    const Layer *layer = run->layers + index;
    const int nested = lists_nested(run, index);
    int64_t number = words_of(layer), first = layer->first + y * layer->width * layer->pitch;
    Fired sends = {0, 0};
    for (int64_t word = 0; word < number; word += WORDS) {
        Words later = {0};
        for (int64_t step = steps - 1; step >= 0; step--) {
            Words *rises = (Words *)(space->rises + step * number + word), risen = *rises;
            Words fallen = *(const Words *)(space->falls + step * number + word), fired = risen | fallen;
            sent->rises[step] += __builtin_elementwise_popcount(risen);
            sent->falls[step] += __builtin_elementwise_popcount(fallen);
            sent->last[step] += __builtin_elementwise_popcount(fired & ~later);
            if (run->task->steps > BLOCK && index)
                remember_last(run, index, first + word * LANES, step, fired & ~later);
            else if (run->start && !step)
                // A neuron of the encoder that fires now did so one step before, which then was not its last.
                run->by_last[run->start] -= __builtin_reduce_add(__builtin_elementwise_popcount(fired));
            if (nested)
                *rises &= ~later;
            later |= fired;
            sends.rises |= (uint32_t)(__builtin_reduce_or(fired) != 0) << step;
            sends.falls |= (uint32_t)(__builtin_reduce_or(fallen) != 0) << step;
        }
    }
    return sends;
}

// Let faults strike what a row sends, and leave what of it arrives.
static void disturb(const Run *run, int64_t index, int64_t y, int64_t steps, const Workspace *space) {
    const Layer *layer = run->layers + index;
    int64_t blocks = layer->pitch / LANES, row = layer->width * blocks;
    for (int64_t word = 0; word < steps * row; word++) {
        int64_t step = word / row, place = y * layer->width + word % row / blocks, channel = word % blocks * LANES;
        int64_t kept = layer->first + place * layer->pitch + channel, at = step * words_of(layer) + word % row;
        uint32_t *rises = space->rises + at, *falls = space->falls + at;
        uint32_t hit = struck(run, index, step, place * layer->channels + channel, *rises | *falls);
        uint32_t flipped = run->task->fault ? hit : 0, risen = *rises;
        *rises = (*rises & ~hit) | (*falls & flipped);
        *falls = (*falls & ~hit) | (risen & flipped);
        Numbers change = __builtin_convertvector(answers_of(*rises), Numbers)
                       - __builtin_convertvector(answers_of(*falls), Numbers);
        set_counts(run, run->arrived, kept, counts_at(run, run->arrived, kept) + change);
    }
}

// List the spikes of LANES channels, whose events begin with `first`, and return how many there are. More is written:
// what lies behind the end is written over by the next.
INLINE int32_t list(int32_t *end, uint32_t rises, uint32_t falls, int32_t first, int32_t flip) {
    uint32_t bits = rises | falls;
#ifdef __AVX512F__
    const Ints lanes = {0,  1,  2,  3,  4,  5,  6,  7,  8,  9,  10, 11, 12, 13, 14, 15,
                        16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31};
    Halves events = {lanes + first};
    __m512i one = (__m512i)events.halves[0], other = (__m512i)events.halves[1], flips = _mm512_set1_epi32(flip);
    one = _mm512_mask_add_epi32(one, falls, one, flips);
    other = _mm512_mask_add_epi32(other, falls >> 16, other, flips);
    _mm512_storeu_si512(end, _mm512_maskz_compress_epi32(bits, one));
    _mm512_storeu_si512(end + __builtin_popcount(bits & 0xFFFF), _mm512_maskz_compress_epi32(bits >> 16, other));
#else
    // Eight at a time: a branch for each would be guessed wrong once a list. The last bit stands for none, too.
    for (uint32_t left = bits; left;)
        for (int each = 0; each < 8; each++, left &= left - 1) {
            int lane = __builtin_ctz(left | 1u << (LANES - 1));
            *end++ = first + lane + (falls >> lane & 1) * flip;
        }
#endif
    return __builtin_popcount(bits);
}

// List what a row sends in a step, and mark where the spikes of each place begin. falls: NULL where there are none.
INLINE void list_row(const Run *run, int64_t index, int64_t y, int64_t step, const uint32_t *rises,
                     const uint32_t *falls, int32_t *used) {
    const Layer *layer = run->layers + index;
    int32_t *events = spikes_of(run, index)->events, *mark = marks_of(run, index, step, y);
    int32_t first = layer->event_width == layer->width ? 0 : y * layer->width * layer->channels, at = *used;
    const int64_t pitch = layer->pitch, width = layer->width, channels = layer->channels, flip = layer->flip;
    for (int64_t x = 0; x < width; x++, first += channels) {
        *mark++ = at;
        for (int64_t channel = 0; channel < pitch; channel += LANES)
            at += list(events + at, *rises++, falls ? *falls++ : 0, first + channel, flip);
    }
    *mark = *used = at;
}

// The synapses that the spikes of a row reach in a step. marks: of the row. fans: of its places, and 0 behind them, as
// what is read behind the last mark may be anything.
static int64_t reached_by(int64_t width, const int32_t *marks, const int32_t *fans) {
    Scores reached = {0};
    for (int64_t x = 0; x < width; x += CLASS_LANES)
        reached += (*(const Scores *)(marks + x + 1) - *(const Scores *)(marks + x)) * *(const Scores *)(fans + x);
    return __builtin_reduce_add(reached);
}

// Those other than 0. fans: [width, pitch].
static int64_t effective_of(const Layer *layer, const int32_t *fans, const uint32_t *rises, const uint32_t *falls) {
    Ints reached = {0};
    for (int64_t word = 0; word < layer->width * layer->pitch / LANES; word++) {
        Ints fired = __builtin_convertvector(answers_of(rises[word] | falls[word]), Ints);
        reached += *(const Ints *)(fans + word * LANES) & -fired;
    }
    return __builtin_reduce_add(reached);
}

// Send what a row of the map fires in the first `steps` of the block; in the others it does nothing.
static void send_row(const Run *run, int64_t index, int64_t y, int64_t steps, Workspace *space) {
    const Layer *layer = run->layers + index;
    Sent *sent = &space->sent;
    Fired sends = count_row(run, index, y, steps, space, sent);
    if (run->task->rate) {
        disturb(run, index, y, steps, space);
        sends.falls = sends.rises;
    }
    for (int64_t step = 0; step < run->steps; step++) {
        const uint32_t *rises = space->rises + step * words_of(layer), *falls = space->falls + step * words_of(layer);
        if (sends.falls >> step & 1)
            list_row(run, index, y, step, rises, falls, sent->used + step);
        else if (sends.rises >> step & 1)
            list_row(run, index, y, step, rises, 0, sent->used + step);
        else
            for (int64_t x = 0; x <= layer->width; x += CLASS_LANES)
                *(Scores *)(marks_of(run, index, step, y) + x) = (Scores){0} + sent->used[step];
    }
    for (int64_t way = layer->outputs; way >= 0; way = run->synapses[way].next) {
        const Synapses *synapses = run->synapses + way;
        const int32_t *fans = synapses->fans + y * marks_in(layer->width);
        const int32_t *effective = synapses->effective + synapses->kinds[y];
        for (uint32_t left = sends.rises; left; left &= left - 1) {
            int64_t step = __builtin_ctz(left), first = step * words_of(layer);
            sent->reached[way * BLOCK + step] += reached_by(layer->width, marks_of(run, index, step, y), fans);
            sent->effective[way * BLOCK + step] +=
                effective_of(layer, effective, space->rises + first, space->falls + first);
        }
    }
    empty_words(space, steps * words_of(layer));
}

// Steps of the block in which a layer sent spikes, a bit for each.
static uint32_t sent_by(const Run *run, int64_t index) {
    const Layer *layer = run->layers + index;
    uint32_t sent = 0;
    for (int64_t step = 0; step < run->steps; step++)
        for (int64_t y = 0; y < layer->height && !(sent >> step & 1); y++) {
            const int32_t *row = marks_of(run, index, step, y);
            sent |= (uint32_t)(row[layer->width] > row[0]) << step;
        }
    return sent;
}

// Add what a layer sent in the block to the totals. What is nested comes in all steps before the one that lists it too.
static void count_sent(const Run *run, int64_t index, const Sent *sent) {
    int nested = lists_nested(run, index);
    for (int64_t step = 0; step < run->steps; step++) {
        int64_t *totals = totals_of(run, index, step);
        totals[PLUS] += __builtin_reduce_add(sent->rises[step]);
        totals[MINUS] += __builtin_reduce_add(sent->falls[step]);
        run->by_last[index * (run->task->steps + 1) + run->start + step + 1] += __builtin_reduce_add(sent->last[step]);
    }
    for (int64_t way = run->layers[index].outputs; way >= 0; way = run->synapses[way].next) {
        const Synapses *synapses = run->synapses + way;
        int64_t reached = 0, effective = 0;
        for (int64_t step = run->steps - 1; step >= 0; step--) {
            int64_t *totals = totals_of(run, synapses->target, step);
            reached = sent->reached[way * BLOCK + step] + (nested ? reached : 0);
            effective = sent->effective[way * BLOCK + step] + (nested ? effective : 0);
            totals[SYNAPSES] += reached;
            totals[ENCODED] += synapses->encoded ? reached : 0;
            totals[EFFECTIVE] += effective;
        }
    }
}
