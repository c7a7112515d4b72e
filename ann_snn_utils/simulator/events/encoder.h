// The first layer: products of pixels and weights, formed once, and thresholds that climb over a sum that stays.

#pragma once
#include "spikes.h"
#include "team.h"

// Add the products of two pixels and of two weights of each of LANES channels.
static Ints add_products(Ints sums, const uint8_t *two, const int16_t *weights) {
    const Ints twos = *(const Ints *)weights;
    Ints products;
#ifdef __AVX512BW__
    for (int part = 0; part < 2; part++)
        ((__m512i_u *)&products)[part] = _mm512_madd_epi16(((__m512i_u *)&twos)[part],
                                                           _mm512_set1_epi32(two[0] | two[1] << 16));
#elif defined(__AVX2__)
    for (int part = 0; part < 4; part++)
        ((__m256i_u *)&products)[part] = _mm256_madd_epi16(((__m256i_u *)&twos)[part],
                                                           _mm256_set1_epi32(two[0] | two[1] << 16));
#else
    products = (twos << 16 >> 16) * two[0] + (twos >> 16) * two[1];
#endif
    return sums + products;
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
// place sees. twos … end: from there to each two of them.
INLINE void encode_lanes(const Sender *from, int64_t channel, int64_t steps, const uint8_t *corner,
                         const int32_t *twos, const int32_t *end) {
    const Run *run = from->run;
    const Layer *layer = run->layers;
    int64_t neuron = from->place * layer->pitch + channel, size = 2 * layer->pitch;
    const int16_t *weights = (const int16_t *)run->synapses->weights + 2 * channel;
    Ints sums = {0};
    for (; twos < end; twos++, weights += size)
        sums = add_products(sums, corner + *twos, weights);
    Numbers counts = run->start ? counts_at(run, run->counts, neuron) : (Numbers){0};
    uint32_t fired[BLOCK], none[BLOCK], listed = 0;
    for (int64_t step = 0; step < steps; step++) {
        const int32_t *thresholds = (const int32_t *)layer->rising + (run->start + step + 1) * layer->pitch;
        Numbers over = __builtin_convertvector(sums >= *(const Ints *)(thresholds + channel), Numbers);
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
    // Where the first of each two pixels lies that a place sees, from its corner on. Rows are not in use yet.
    int32_t *twos = space->rows.rows[0];
    Sent *sent = &space->sent;
    int64_t levels = SMALLER(run->task->levels, run->task->steps) - run->start;
    int64_t steps = LARGER(0, SMALLER(run->steps, levels)), *by_last = run->by_last + run->start;
    int64_t height = synapses->in_height + 2 * synapses->padding;
    int64_t stride = synapses->in_width + 2 * synapses->padding + 1;
    int32_t *end = twos;
    empty(run, 0, sent);
    for (int64_t row = 0; row < synapses->kernel_height; row++)
        for (int64_t input = 0; input < synapses->in_channels; input++)
            for (int64_t column = 0; column < synapses->kernel_width; column += 2)
                *end++ = (input * height + row) * stride + column;
    if (steps)
        pad(synapses, image, padded, stride);
    for (int64_t y; (y = take_row(run, 0, layer->height)) >= 0; finish_row(run, 0)) {
        int64_t before[BLOCK];
        for (int64_t step = 0; step < steps; step++)
            before[step] = sent->rises[step];
        Sender from = sender(run, 0, y, sent);
        for (int64_t x = 0; x < layer->width; x++, next_place(&from)) {
            set_mark(&from);
            const uint8_t *corner = padded + y * synapses->stride * stride + x * synapses->stride;
            for (int64_t channel = 0; channel < layer->pitch && steps; channel += LANES)
                encode_lanes(&from, channel, steps, corner, twos, end);
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
