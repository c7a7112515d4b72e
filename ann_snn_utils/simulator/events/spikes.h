// What the kernel works on, and how the spikes of a layer become events of the next one.

#pragma once
#include <stdint.h>
#ifdef __AVX512F__
#include <immintrin.h>
#endif

// The type of membranes, sums and thresholds: the narrowest that holds every number of the network.
#if MEMBRANE == 16
typedef int16_t Number;
#else
typedef int32_t Number;
#endif

#ifdef _WIN32
#define EXPORT __declspec(dllexport)
// A library is asked there whether it is ready.
int DllMainCRTStartup(void *library, uint32_t reason, void *unused) { return library || reason || !unused; }
#else
#define EXPORT
#endif

// LANES: channels whose membranes are compared at once. BLOCK: steps that a layer runs before the next layer does.
// WIDEST: channels whose sums of bytes are held in registers. TURN, SLICE_TURN: rows that are added in one turn of a
// loop. PLANES: bits of a count of rows.
enum { LANES = 32, BLOCK = 16, WIDEST = 256, CLASS_LANES = 16, TURN = 4, SLICE_TURN = 16, PLANES = 16 };

// Columns of the totals of a layer at a step.
enum { PLUS, MINUS, SYNAPSES, EFFECTIVE, TOTALS };

#define VECTOR(type, lanes) type __attribute__((vector_size((lanes) * sizeof(type)), aligned(1)))
#define SMALLER(a, b) ((a) < (b) ? (a) : (b))
#define LARGER(a, b) ((a) > (b) ? (a) : (b))
typedef VECTOR(int8_t, LANES) Bytes;
typedef VECTOR(int16_t, LANES) Shorts;
typedef VECTOR(int32_t, LANES) Ints;
typedef VECTOR(Number, LANES) Numbers;
typedef VECTOR(int32_t, CLASS_LANES) Scores;
typedef VECTOR(uint64_t, 8) Slice;
typedef union { Ints all; Scores halves[2]; } Halves;
typedef uint32_t Four __attribute__((aligned(1)));
typedef _Bool Answers __attribute__((ext_vector_type(LANES)));

// A layer; `layout.py` fills it in. Sizes first, then where its arrays lie.
typedef struct {
    int64_t channels, pitch, width, places;             // pitch: channels, rounded up to whole vectors
    int64_t in_channels, in_height, in_width;
    int64_t kernel_height, kernel_width, stride, padding;
    int64_t gain;                                       // counts that a spike carries which comes in
    int64_t crowd;                                      // rows of weights that add up within a byte
    int64_t levels;                                     // thresholds of a channel
    int64_t compared;                                   // steps whose counts come from comparing with all thresholds
    int64_t first;                                      // its first neuron among those of all layers
    int64_t row, flip, nothing;                         // bytes: from a row of weights to the next one, to the row for
                                                        // −1 instead of +1, and to one of zeros
    int64_t sliced;                                     // whether weights are bits
    int64_t event_width, event_row, event_flip;         // of the event that a spike is to the next layer
    // Encoder: [kernel row, input channel, four columns, pitch, 4]. Hidden layers: [kernel row, kernel column, input
    // channel, row], the same negated, and a row of zeros; where sliced, a row is a bit for each +1, then for each −1.
    const int8_t *weights;
    const void *rising, *falling;                       // [levels + 2, pitch], θ_n in row n
    const int32_t *fan;                                 // synapses of the next layer that a spike of each place reaches
    const int64_t *kinds;                               // where the effective fan-outs of each place begin …
    const int32_t *effective;                           // … here: for each channel, synapses other than 0
} Layer;

// What is asked of all images. fault: 0 deletes, 1 flips a spike on its way, with probability `rate`.
typedef struct {
    int64_t images, depth, levels, steps, fault, seed, classes, class_pitch, neurons, wide_counts;
    int64_t event_room, place_room, row_room;           // the most spikes of a layer, places, and inputs of a neuron
    int64_t image_room, pitch_room;                     // pixels with a border, and the most channels
    double rate;
    const int32_t *class_weights;                       // [neurons of the last layer, class_pitch]
} Task;

// Spikes on their way to the next layer: for each step of the block a list of them, place after place. An event is
// where the weights of its channel lie, from those of its row's first channel on. nested: each step lists what comes
// in this step and not in the next one.
typedef struct {
    int32_t *events[BLOCK], *first[BLOCK];              // first: of each place, and behind them the number of all
    int32_t used[BLOCK];
    int nested;
} Spikes;

// Of one image. membranes, last: of the hidden layers, kept from block to block.
typedef struct {
    const Layer *layers;
    const Task *task;
    int64_t sample, start, steps;                       // the block's first step, from 0 on, and how many it has
    Number *membranes;
    int16_t *last;
    void *counts;
    int64_t *totals, *pending;
} Run;

static int64_t *totals_of(const Run *run, int64_t layer, int64_t step) {
    return run->totals + ((run->start + step) * run->task->depth + layer) * TOTALS;
}

static uint32_t bits_of(Answers answers) {
    union { Answers answers; uint32_t bits; } same = {answers};
    return same.bits;
}

static Answers answers_of(uint32_t bits) {
    union { uint32_t bits; Answers answers; } same = {bits};
    return same.answers;
}

static Numbers counts_at(const Run *run, int64_t neuron) {
    if (run->task->wide_counts)
        return __builtin_convertvector(*(const Shorts *)((const int16_t *)run->counts + neuron), Numbers);
    return __builtin_convertvector(*(const Bytes *)((const int8_t *)run->counts + neuron), Numbers);
}

static void set_counts(const Run *run, int64_t neuron, Numbers counts) {
    if (run->task->wide_counts)
        *(Shorts *)((int16_t *)run->counts + neuron) = __builtin_convertvector(counts, Shorts);
    else
        *(Bytes *)((int8_t *)run->counts + neuron) = __builtin_convertvector(counts, Bytes);
}

// ---- Spikes become events ------------------------------------------------------------------------------------------

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

// List the spikes of LANES channels. What is listed too much lies behind the end.
static void list(Spikes *to, int64_t step, uint32_t bits, Halves events) {
    int32_t *end = to->events[step] + to->used[step], number = __builtin_popcount(bits);
    to->used[step] += number;
#ifdef __AVX512F__
    int32_t before = __builtin_popcount(bits & 0xFFFF);
    __m512i one = _mm512_maskz_compress_epi32(bits, (__m512i)events.halves[0]);
    __m512i other = _mm512_maskz_compress_epi32(bits >> 16, (__m512i)events.halves[1]);
    // One behind the other: mostly all of them fit one vector.
    _mm512_storeu_si512(end, _mm512_mask_expand_epi32(one, 0xFFFF << before, other));
    if (number > CLASS_LANES)
        _mm512_storeu_si512(end + before, other);
#else
    for (; bits; bits &= bits - 1)
        *end++ = events.all[__builtin_ctz(bits)];
#endif
}

// What a layer sends in the block: its spikes at each step, and the synapses other than 0 that they reach, by lanes.
// lanes: where the weights of LANES channels lie, from those of the first one on.
typedef struct {
    _Alignas(64) Scores effective[BLOCK];
    Ints lanes;
    int64_t rises[BLOCK], falls[BLOCK];
} Sent;

static void begin_layer(Sent *sent, const Layer *layer, int64_t steps) {
    const Ints lanes = {0,  1,  2,  3,  4,  5,  6,  7,  8,  9,  10, 11, 12, 13, 14, 15,
                        16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31};
    sent->lanes = lanes * (int32_t)layer->event_row;
    for (int64_t step = 0; step < steps; step++) {
        sent->rises[step] = sent->falls[step] = 0;
        sent->effective[step] = (Scores){0};
    }
}

// Where spikes of LANES channels of a place go, from `channel` on: what is the same for all steps of the block.
typedef struct {
    const Run *run;
    Spikes *to;
    Sent *sent;
    const int32_t *effective;
    int64_t index, neuron;
    int32_t first, flip;                                // the event of the first channel, and how far to that of −1
} Sender;

static Sender sender(const Run *run, int64_t index, int64_t place, int64_t column, int64_t channel, Spikes *to,
                     Sent *sent) {
    const Layer *layer = run->layers + index;
    return (Sender){run, to, sent, layer->effective + layer->kinds[place] + channel, index,
                    place * layer->channels + channel, (column * layer->channels + channel) * layer->event_row,
                    layer->event_flip};
}

// Send what fires in one step.
static void send(const Sender *from, int64_t step, uint32_t rises, uint32_t falls) {
    const Run *run = from->run;
    if (run->task->rate) {
        uint32_t hit = struck(run, from->index, step, from->neuron, rises | falls);
        uint32_t flipped = run->task->fault ? hit : 0, risen = rises;
        rises = (rises & ~hit) | (falls & flipped);
        falls = (falls & ~hit) | (risen & flipped);
    }
    Halves events = {from->sent->lanes + from->first}, reached = {*(const Ints *)from->effective};
    list(from->to, step, rises, events);
    if (falls) {
        events.all += from->flip;
        list(from->to, step, falls, events);
    }
    Halves fired = {__builtin_convertvector(answers_of(rises | falls), Ints) * -1};
    from->sent->effective[step] += (reached.halves[0] & fired.halves[0]) + (reached.halves[1] & fired.halves[1]);
}

// Where the rows of weights lie that the spikes of each step add to a place: a list for each step, rounded up to whole
// turns of a loop by rows of zeros, which `used` leaves out. nested: as in `Spikes`.
typedef struct {
    int32_t *rows[BLOCK];
    int64_t used[BLOCK];
    int nested;
} Rows;

// A thread's memory to work in. membranes, last: see `Run`. image: with its border. rows, sums, planes, differences: of
// one place. scores: of the classes, so far. between: spikes from one layer to the next, by turns.
typedef struct {
    int64_t *pending;
    Number *membranes, *sums;
    int16_t *last;
    int32_t *scores;
    uint8_t *image;
    Slice *planes, *differences;
    Sent *sent;
    Rows rows;
    Spikes between[2];
} Workspace;

// Remember where the spikes of a place begin.
static void begin_place(Spikes *to, int64_t place, int64_t steps) {
    for (int64_t step = 0; step < steps; step++)
        to->first[step][place] = to->used[step];
}

// Add what a layer sent in the block to the totals. What is nested comes in all steps before the one that lists it too.
static void count(const Run *run, int64_t index, int64_t steps, const Spikes *to, const Sent *sent) {
    const Layer *layer = run->layers + index;
    int64_t synapses = 0, effective = 0;
    for (int64_t step = steps - 1; step >= 0; step--) {
        int64_t *totals = totals_of(run, index, step);
        totals[PLUS] += sent->rises[step];
        totals[MINUS] += sent->falls[step];
        // The read-out is no layer: what it takes is not counted.
        if (index + 1 == run->task->depth)
            continue;
        if (!to->nested)
            synapses = effective = 0;
        for (int64_t place = 0; place < layer->places; place++)
            synapses += (to->first[step][place + 1] - to->first[step][place]) * (int64_t)layer->fan[place];
        for (int lane = 0; lane < CLASS_LANES; lane++)
            effective += sent->effective[step][lane];
        totals[TOTALS + SYNAPSES] += synapses;
        totals[TOTALS + EFFECTIVE] += effective;
    }
}
