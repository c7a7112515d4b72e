// The first layer: products of pixels and weights, formed once, and thresholds that climb over a sum that stays.

#pragma once
#include "spikes.h"
#include "team.h"

// A group of neighbouring pixels in 32 bits: their products with a channel's weights are added in one instruction.
#if defined(__AVX512VNNI__) || defined(__AVXVNNI__)
typedef uint8_t Pixel;
#else
typedef int16_t Pixel;
#endif
typedef int32_t Group __attribute__((aligned(1)));

enum { GROUP = sizeof(Group) / sizeof(Pixel) };

// Add the products of the pixels of a group and of the weights that each of LANES channels has for them.
static Ints add_products(Ints sums, const Pixel *pixels, const int8_t *weights) {
    const Ints groups = *(const Ints *)weights;
#if defined(__AVX512VNNI__)
    for (int part = 0; part < 2; part++)
        ((__m512i_u *)&sums)[part] = _mm512_dpbusd_epi32(
            ((__m512i_u *)&sums)[part], _mm512_set1_epi32(*(const Group *)pixels), ((__m512i_u *)&groups)[part]);
#elif defined(__AVXVNNI__)
    for (int part = 0; part < 4; part++)
        ((__m256i_u *)&sums)[part] = _mm256_dpbusd_avx_epi32(
            ((__m256i_u *)&sums)[part], _mm256_set1_epi32(*(const Group *)pixels), ((__m256i_u *)&groups)[part]);
#elif defined(__AVX2__)
    Ints products;
    for (int part = 0; part < 4; part++)
        ((__m256i_u *)&products)[part] = _mm256_madd_epi16(((__m256i_u *)&groups)[part],
                                                           _mm256_set1_epi32(*(const Group *)pixels));
    sums += products;
#else
    sums += (groups << 16 >> 16) * pixels[0] + (groups >> 16) * pixels[1];
#endif
    return sums;
}

// Copy an image [C, H, W] into one with a border of zeros as wide as the padding, its rows `stride` pixels apart.
static void pad(const Synapses *synapses, const uint8_t *restrict image, Pixel *restrict padded, int64_t stride) {
    int64_t height = synapses->in_height + 2 * synapses->padding;
    for (int64_t pixel = 0; pixel < synapses->in_channels * height * stride; pixel++)
        padded[pixel] = 0;
    for (int64_t channel = 0; channel < synapses->in_channels; channel++)
        for (int64_t y = 0; y < synapses->in_height; y++, image += synapses->in_width) {
            Pixel *row = padded + (channel * height + y + synapses->padding) * stride + synapses->padding;
            for (int64_t x = 0; x < synapses->in_width; x++)
                row[x] = image[x];
        }
}

// The sums of LANES channels of neighbouring places; where there are fewer, the first one's stand for the rest. corner:
// the first pixel that the first one sees. groups … end: where groups begin from there.
INLINE void add_up(const Synapses *synapses, const Layer *layer, int64_t channel, int64_t places, const Pixel *corner,
                   const int32_t *groups, const int32_t *end, Ints sums[SIDE_BY_SIDE]) {
    const int8_t *weights = synapses->weights + sizeof(Group) * channel;
    for (int place = 0; place < SIDE_BY_SIDE; place++)
        sums[place] = (Ints){0};
    for (const int32_t *group = groups; group < end; group++, weights += sizeof(Group) * layer->pitch)
        for (int place = 0; place < SIDE_BY_SIDE; place++)
            sums[place] = add_products(sums[place],
                                       corner + *group + (place < places ? place : 0) * synapses->stride, weights);
}

// Compare these sums with the channels' thresholds, step by step. words: those of +1, from the first place on.
INLINE void climb(const Run *run, int64_t neuron, int64_t channel, int64_t places, int64_t steps,
                  const Ints sums[SIDE_BY_SIDE], uint32_t *words) {
    const Layer *layer = run->layers;
    const int32_t *thresholds = (const int32_t *)layer->rising + (run->start + 1) * layer->pitch + channel;
    const int64_t pitch = layer->pitch, next = words_of(layer);
    Numbers counts[SIDE_BY_SIDE];
    for (int place = 0; place < SIDE_BY_SIDE; place++)
        counts[place] = run->start && place < places ? counts_at(run, run->counts, neuron + place * pitch)
                                                     : (Numbers){0};
    for (int64_t step = 0; step < steps; step++, thresholds += pitch, words += next) {
        const Ints threshold = *(const Ints *)thresholds;
        for (int place = 0; place < SIDE_BY_SIDE; place++) {
            Numbers over = __builtin_convertvector(sums[place] >= threshold, Numbers);
            counts[place] -= over;
            if (place < places)
                words[place * pitch / LANES] = bits_of(__builtin_convertvector(over, Answers));
        }
    }
    for (int place = 0; place < SIDE_BY_SIDE; place++)
        if (place < places)
            set_counts(run, run->counts, neuron + place * pitch, counts[place]);
}

// Run the encoder over the block. Its image stays and its thresholds ascend, so a neuron that fires has fired in every
// step before: without faults, events are listed at the last step of the block at which they come.
INLINE void encode(const Run *run, const uint8_t *image, Workspace *space) {
    const Layer *layer = run->layers;
    const Synapses *synapses = run->synapses + layer->inputs;
    Pixel *padded = space->image;
    // Where the groups of pixels begin that a place sees, from its corner on. Rows are not in use yet.
    int32_t *groups = space->rows.rows[0], *end = groups;
    int64_t levels = SMALLER(run->task->levels, run->task->steps) - run->start;
    int64_t steps = LARGER(0, SMALLER(run->steps, levels));
    int64_t height = synapses->in_height + 2 * synapses->padding;
    int64_t stride = synapses->in_width + 2 * synapses->padding + GROUP - 1;
    empty(run, 0, &space->sent);
    for (int64_t row = 0; row < synapses->kernel_height; row++)
        for (int64_t input = 0; input < synapses->in_channels; input++)
            for (int64_t column = 0; column < synapses->kernel_width; column += GROUP)
                *end++ = (input * height + row) * stride + column;
    if (steps)
        pad(synapses, image, padded, stride);
    int64_t rows = 0;
    for (int64_t y; (y = take_row(run, 0, layer->height)) >= 0; rows++) {
        const Pixel *corner = padded + y * synapses->stride * stride;
        for (int64_t x = 0; x < layer->width && steps; x += SIDE_BY_SIDE)
            for (int64_t channel = 0; channel < layer->pitch; channel += LANES) {
                int64_t places = SMALLER(SIDE_BY_SIDE, layer->width - x), first = x * layer->pitch + channel;
                Ints sums[SIDE_BY_SIDE];
                add_up(synapses, layer, channel, places, corner + x * synapses->stride, groups, end, sums);
                climb(run, y * layer->width * layer->pitch + first, channel, places, steps, sums,
                      space->rises + first / LANES);
            }
        send_row(run, 0, y, steps, space);
    }
    count_sent(run, 0, &space->sent);
    finish_rows(run, 0, rows);
    wait_for_rows(run, 0, layer->height);
}
