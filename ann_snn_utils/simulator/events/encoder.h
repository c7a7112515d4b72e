// The first layer: products of pixels and weights, formed once, and thresholds that climb over a sum that stays.

#pragma once
#include "spikes.h"
#include "team.h"

// The encoder's weights as they are multiplied: as they lie or, in `factors`, for each CLASS_LANES channels and four
// columns, those of the first and third column before those of the others.
static const Factor *prepare(const int8_t *weights, int64_t number, Factor *factors) {
#if defined(__AVX2__) && !defined(__AVX512VNNI__)
    for (int64_t at = 0; at < number; at++) {
        int64_t lane = at / 4 % CLASS_LANES, column = at % 4, block = at / (4 * CLASS_LANES) * (4 * CLASS_LANES);
        factors[block + column % 2 * (2 * CLASS_LANES) + 2 * lane + column / 2] = weights[at];
    }
    return factors;
#else
    return weights;
#endif
}

// Add the products of four pixels and of four weights of each of CLASS_LANES channels.
static Scores add_products(Scores sums, uint32_t pixels, const Factor *weights) {
#ifdef __AVX512VNNI__
    return (Scores)_mm512_dpbusd_epi32((__m512i)sums, _mm512_set1_epi32(pixels), *(const __m512i_u *)weights);
#elif defined(__AVX2__)
    // Two at a time: numbers of 16 bits.
    const __m256i first = _mm256_set1_epi32(pixels & 0x00FF00FF), second = _mm256_set1_epi32(pixels >> 8 & 0x00FF00FF);
    const __m256i_u *twos = (const __m256i_u *)weights;
    for (int half = 0; half < 2; half++) {
        const __m256i sum = _mm256_add_epi32(((__m256i_u *)&sums)[half], _mm256_madd_epi16(twos[half], first));
        ((__m256i_u *)&sums)[half] = _mm256_add_epi32(sum, _mm256_madd_epi16(twos[2 + half], second));
    }
    return sums;
#else
    const Scores fours = *(const Scores *)weights;
    for (int each = 0; each < 4; each++)
        sums += (fours << (24 - 8 * each) >> 24) * (int32_t)(pixels >> 8 * each & 0xFF);
    return sums;
#endif
}

// The same for LANES channels.
static Halves add_pixels(Halves sums, const uint8_t *four, const Factor *weights) {
    uint32_t pixels = *(const Four *)four;
    sums.halves[0] = add_products(sums.halves[0], pixels, weights);
    sums.halves[1] = add_products(sums.halves[1], pixels, weights + 4 * CLASS_LANES);
    return sums;
}

// Copy an image [C, H, W] into one with a border of zeros as wide as the padding, its rows `stride` bytes apart.
static void pad(const Synapses *synapses, const uint8_t *restrict image, uint8_t *restrict padded, int64_t stride) {
    int64_t height = synapses->in_height + 2 * synapses->padding;
    for (int64_t byte = 0; byte < synapses->in_channels * height * stride; byte++)
        padded[byte] = 0;
    for (int64_t channel = 0; channel < synapses->in_channels; channel++)
        for (int64_t y = 0; y < synapses->in_height; y++, image += synapses->in_width) {
            uint8_t *row = padded + (channel * height + y + synapses->padding) * stride + synapses->padding;
            for (int64_t x = 0; x < synapses->in_width; x++)
                row[x] = image[x];
        }
}

// Run LANES neurons of a place of the encoder over the block and send their spikes. corner: the first pixel that the
// place sees. fours … end: from there to each four of them.
INLINE void encode_lanes(const Sender *from, int64_t channel, int64_t steps, const uint8_t *corner,
                         const Factor *weights, const int32_t *fours, const int32_t *end) {
    const Run *run = from->run;
    const Layer *layer = run->layers;
    int64_t neuron = from->place * layer->pitch + channel, size = 4 * layer->pitch;
    weights += 4 * channel;
    // By turns, as each sum waits for its last product.
    Halves sums = {0}, others = {0};
    const int32_t *four = fours;
    for (; four + 1 < end; four += 2, weights += 2 * size) {
        sums = add_pixels(sums, corner + four[0], weights);
        others = add_pixels(others, corner + four[1], weights + size);
    }
    if (four < end)
        sums = add_pixels(sums, corner + four[0], weights);
    sums.all += others.all;
    Numbers counts = run->start ? counts_at(run, run->counts, neuron) : (Numbers){0};
    uint32_t fired[BLOCK], none[BLOCK], listed = 0;
    for (int64_t step = 0; step < steps; step++) {
        const int32_t *thresholds = (const int32_t *)layer->rising + (run->start + step + 1) * layer->pitch;
        Numbers over = __builtin_convertvector(sums.all >= *(const Ints *)(thresholds + channel), Numbers);
        fired[step] = bits_of(__builtin_convertvector(over, Answers));
        counts -= over;
    }
    set_counts(run, run->counts, neuron, counts);
    if (!fired[0])
        return;
    for (int64_t step = 0; step < steps; step++) {
        none[step] = 0;
        from->sent->rises[step] += __builtin_popcount(fired[step]);
        if (lists_nested(run, 0) && step + 1 < steps)
            fired[step] &= ~fired[step + 1];
        listed |= (uint32_t)(fired[step] > 0) << step;
    }
    send(from, channel, listed, fired, none);
}

// Run the encoder over the block. Its image stays and its thresholds ascend, so a neuron that fires has fired in every
// step before: without faults, events are listed at the last step of the block at which they come.
INLINE void encode(const Run *run, const uint8_t *image, Workspace *space) {
    const Layer *layer = run->layers;
    const Synapses *synapses = run->synapses + layer->inputs;
    uint8_t *padded = space->image;
    // Where the first of each four pixels lies that a place sees, from its corner on. Rows are not in use yet.
    int32_t *fours = space->rows.rows[0];
    Sent *sent = &space->sent;
    int64_t levels = SMALLER(run->task->levels, run->task->steps) - run->start;
    int64_t steps = LARGER(0, SMALLER(run->steps, levels)), *by_last = run->by_last + run->start;
    int64_t height = synapses->in_height + 2 * synapses->padding;
    int64_t stride = synapses->in_width + 2 * synapses->padding + 3;
    int32_t *end = fours;
    empty(run, 0, sent);
    for (int64_t row = 0; row < synapses->kernel_height; row++)
        for (int64_t input = 0; input < synapses->in_channels; input++)
            for (int64_t column = 0; column < synapses->kernel_width; column += 4)
                *end++ = (input * height + row) * stride + column;
    const Factor *weights = 0;
    if (steps) {
        pad(synapses, image, padded, stride);
        weights = prepare(synapses->weights, run->task->factor_room, space->factors);
    }
    for (int64_t y; (y = take_row(run, 0, layer->height)) >= 0; finish_row(run, 0)) {
        int64_t before[BLOCK];
        for (int64_t step = 0; step < steps; step++)
            before[step] = sent->rises[step];
        Sender from = sender(run, 0, y, sent);
        for (int64_t x = 0; x < layer->width; x++, next_place(&from)) {
            set_mark(&from);
            const uint8_t *corner = padded + y * synapses->stride * stride + x * synapses->stride;
            for (int64_t channel = 0; channel < layer->pitch && steps; channel += LANES)
                encode_lanes(&from, channel, steps, corner, weights, fours, end);
        }
        close_row(&from, y);
        // A neuron that fires now did so one step before, which then was not its last.
        for (int64_t step = 0; step < steps; step++) {
            by_last[step] -= sent->rises[step] - before[step];
            by_last[step + 1] += sent->rises[step] - before[step];
        }
    }
    count_sent(run, 0, steps, sent);
    wait_for_rows(run, 0, layer->height);
}
