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

// Places whose sums are formed side by side, as many as registers hold: for one alone, each product would wait until
// the one before is added.
#if defined(__AVX512F__)
enum { PLACES = 4 };
#elif defined(__AVX2__)
enum { PLACES = 2 };
#else
enum { PLACES = 1 };
#endif
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

// The sums of all channels of neighbouring places, [PLACES, pitch]; where there are fewer places, the first one's stand
// for the rest. corner: the first pixel that the first one sees. groups … end: where groups begin from there.
INLINE void add_up(const Synapses *synapses, const Layer *layer, int64_t places, const Pixel *corner,
                   const int32_t *groups, const int32_t *end, int32_t *to) {
    for (int64_t channel = 0; channel < layer->pitch; channel += LANES) {
        const int8_t *weights = synapses->weights + sizeof(Group) * channel;
        Ints sums[PLACES] = {{0}};
        for (const int32_t *group = groups; group < end; group++, weights += sizeof(Group) * layer->pitch)
            for (int place = 0; place < PLACES; place++)
                sums[place] = add_products(sums[place],
                                           corner + *group + (place < places ? place : 0) * synapses->stride, weights);
        for (int place = 0; place < PLACES; place++)
            *(Ints *)(to + place * layer->pitch + channel) = sums[place];
    }
}

// Compare the sums of LANES neurons of a place with their thresholds, step by step, and send their spikes.
INLINE void climb(const Sender *from, int64_t channel, int64_t steps, Ints sums) {
    const Run *run = from->run;
    const Layer *layer = run->layers;
    int64_t neuron = from->place * layer->pitch + channel;
    Numbers counts = run->start ? counts_at(run, run->counts, neuron) : (Numbers){0};
    const int nested = lists_nested(run, 0);
    uint32_t fired[BLOCK];
    for (int64_t step = 0; step < steps; step++) {
        const int32_t *thresholds = (const int32_t *)layer->rising + (run->start + step + 1) * layer->pitch;
        Numbers over = __builtin_convertvector(sums >= *(const Ints *)(thresholds + channel), Numbers);
        fired[step] = bits_of(__builtin_convertvector(over, Answers));
        counts -= over;
    }
    set_counts(run, run->counts, neuron, counts);
    // No neuron fires behind the first step in which none does.
    for (int64_t step = 0; step < steps && fired[step]; step++) {
        from->sent->rises[step] += __builtin_popcount(fired[step]);
        send(from, channel, step, nested && step + 1 < steps ? fired[step] & ~fired[step + 1] : fired[step], 0);
    }
}

// Run the encoder over the block. Its image stays and its thresholds ascend, so a neuron that fires has fired in every
// step before: without faults, events are listed at the last step of the block at which they come.
INLINE void encode(const Run *run, const uint8_t *image, Workspace *space) {
    const Layer *layer = run->layers;
    const Synapses *synapses = run->synapses + layer->inputs;
    Pixel *padded = space->image;
    // Where the groups of pixels begin that a place sees, from its corner on. Rows are not in use yet.
    int32_t *groups = space->rows.rows[0], *end = groups;
    Sent *sent = &space->sent;
    int64_t levels = SMALLER(run->task->levels, run->task->steps) - run->start;
    int64_t steps = LARGER(0, SMALLER(run->steps, levels)), *by_last = run->by_last + run->start;
    int64_t height = synapses->in_height + 2 * synapses->padding;
    int64_t stride = synapses->in_width + 2 * synapses->padding + GROUP - 1;
    empty(run, 0, sent);
    for (int64_t row = 0; row < synapses->kernel_height; row++)
        for (int64_t input = 0; input < synapses->in_channels; input++)
            for (int64_t column = 0; column < synapses->kernel_width; column += GROUP)
                *end++ = (input * height + row) * stride + column;
    if (steps)
        pad(synapses, image, padded, stride);
    for (int64_t y; (y = take_row(run, 0, layer->height)) >= 0; finish_row(run, 0)) {
        int64_t before[BLOCK];
        for (int64_t step = 0; step < steps; step++)
            before[step] = sent->rises[step];
        Sender from = sender(run, 0, y, sent);
        const Pixel *corner = padded + y * synapses->stride * stride;
        for (int64_t x = 0; x < layer->width; x++, next_place(&from)) {
            int64_t ahead = x % PLACES;
            if (!ahead && steps)
                add_up(synapses, layer, SMALLER(PLACES, layer->width - x), corner + x * synapses->stride, groups, end,
                       space->encoded);
            set_mark(&from);
            for (int64_t channel = 0; channel < layer->pitch && steps; channel += LANES)
                climb(&from, channel, steps, *(const Ints *)(space->encoded + ahead * layer->pitch + channel));
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
