// What the kernel works on, and how the spikes of a layer become events of the next one.

#pragma once
#include <stdint.h>
#ifdef __AVX512F__
#include <immintrin.h>
#endif

// The type of membranes, sums and thresholds: the narrowest that holds every number of the network.
#if MEMBRANE == 16
typedef int16_t Number;
#elif MEMBRANE == 32
typedef int32_t Number;
#else
typedef int64_t Number;
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

// Columns of the totals of a layer at a step. ENCODED: those of SYNAPSES that bring spikes of the encoder, or maxima.
enum { PLUS, MINUS, SYNAPSES, ENCODED, EFFECTIVE, TOTALS };

// How spikes of a layer come to membranes of another: as rows of weights, bytes or bits; by a window on neurons of the
// same channel alone, weighted; or as the largest count in it.
enum { BYTES, SLICES, WINDOW, MAXIMUM };

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

// A way: all synapses from a layer, or the image, to another. `layout.py` fills it in, as it does layers. Sizes first,
// then where the arrays lie.
typedef struct {
    int64_t source, target, next;                       // next: other synapses from that source, −1 for none
    int64_t in_channels, in_height, in_width;
    int64_t kernel_height, kernel_width, stride, padding, dilation;
    int64_t how;                                        // BYTES, SLICES, WINDOW or MAXIMUM
    int64_t crowd;                                      // rows of weights that add up within a byte
    int64_t row, nothing;                               // bytes: from a row of weights to the next one, and to one of
                                                        // zeros
    int64_t fan;                                        // neurons of a place that a spike reaches
    int64_t encoded;                                    // whether they bring spikes of the encoder, or maxima of these
    // Of the image: [kernel row, input channel, four columns, pitch, 4]. Rows: [kernel row, kernel column, input
    // channel, row], from `flip` rows on the same negated, and a row of zeros; in slices, a row is a bit for each +1,
    // then for each −1. Windows: [kernel row, kernel column, pitch].
    const int8_t *weights;
    const void *gain;                                   // by what sums are multiplied, [pitch]
    const int64_t *kinds;                               // where the effective fan-outs of each source place begin …
    const int32_t *effective;                           // … here: for each channel, synapses other than 0
} Synapses;

typedef struct {
    int64_t channels, pitch, width, places;             // pitch: channels, rounded up to whole vectors
    int64_t levels, lowest;                             // thresholds of a channel; its least count
    int64_t compared;                                   // steps whose counts come from comparing with all thresholds
    int64_t first;                                      // its first neuron among those of all layers
    int64_t inputs, ways;                               // its first synapses among all, and how many there are
    int64_t outputs;                                    // the first synapses from here, −1 for none
    int64_t slot;                                       // where its spikes lie until the last layer has read them
    int64_t event_width, flip;                          // events: places of a row, and how far −1 is from +1
    const void *rising, *falling;                       // θ_n in row n, [pitch]; there is one beyond both ends
} Layer;

// What is asked of all images. fault: 0 deletes, 1 flips a spike on its way, with probability `rate`.
typedef struct {
    int64_t images, depth, levels, steps, fault, seed, classes, class_pitch, neurons, wide_counts, ways, slots;
    int64_t event_room, place_room, row_room;           // the most spikes of a layer, places, and inputs of a neuron
    int64_t image_room, pitch_room, window_room;        // pixels with a border, the most channels, and of a window
    double rate;
    const int32_t *class_weights;                       // [neurons of the last layer, class_pitch]
} Task;

// Spikes on their way to other layers: for each step of the block a list of them, place after place. An event is a
// number: column · channels + channel, and `flip` more for −1. nested: each step lists what comes in this step and not
// in the next one.
typedef struct {
    int32_t *events[BLOCK], *first[BLOCK];              // first: of each place, and behind them the number of all
    int32_t used[BLOCK];
    int nested;
} Spikes;

// Of one image. membranes, last: of the hidden layers, kept from block to block. arrived: counts as the layers behind
// see them, which are those of `counts` where no fault strikes.
typedef struct {
    const Layer *layers;
    const Synapses *synapses;
    const Task *task;
    int64_t sample, start, steps;                       // the block's first step, from 0 on, and how many it has
    Number *membranes;
    int16_t *last;
    void *counts, *arrived;
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

static Numbers counts_at(const Run *run, const void *counts, int64_t neuron) {
    if (run->task->wide_counts)
        return __builtin_convertvector(*(const Shorts *)((const int16_t *)counts + neuron), Numbers);
    return __builtin_convertvector(*(const Bytes *)((const int8_t *)counts + neuron), Numbers);
}

static void set_counts(const Run *run, void *counts, int64_t neuron, Numbers to) {
    if (run->task->wide_counts)
        *(Shorts *)((int16_t *)counts + neuron) = __builtin_convertvector(to, Shorts);
    else
        *(Bytes *)((int8_t *)counts + neuron) = __builtin_convertvector(to, Bytes);
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

// List the spikes of LANES channels. Vectors are written whole: what lies behind the end is written over by the next.
static void list(Spikes *to, int64_t step, uint32_t bits, Halves events) {
    int32_t *end = to->events[step] + to->used[step], number = __builtin_popcount(bits);
    to->used[step] += number;
#ifdef __AVX512F__
    int32_t before = __builtin_popcount(bits & 0xFFFF);
    __m512i one = _mm512_maskz_compress_epi32(bits, (__m512i)events.halves[0]);
    __m512i other = _mm512_maskz_compress_epi32(bits >> 16, (__m512i)events.halves[1]);
    // Both halves, one behind the other, in one vector, which mostly holds all; what it does not is written again.
    _mm512_storeu_si512(end, _mm512_mask_expand_epi32(one, 0xFFFF << before, other));
    if (number > CLASS_LANES)
        _mm512_storeu_si512(end + before, other);
#else
    for (; bits; bits &= bits - 1)
        *end++ = events.all[__builtin_ctz(bits)];
#endif
}

// Spikes of a layer at each step of the block, and the synapses other than 0 that they reach, by lanes: [ways, BLOCK],
// of all ways.
typedef struct {
    int64_t rises[BLOCK], falls[BLOCK];
    Scores *effective;
} Sent;

static void empty(const Run *run, int64_t index, Spikes *to, Sent *sent) {
    for (int64_t step = 0; step < run->steps; step++)
        to->used[step] = sent->rises[step] = sent->falls[step] = 0;
    for (int64_t way = run->layers[index].outputs; way >= 0; way = run->synapses[way].next)
        for (int64_t step = 0; step < run->steps; step++)
            sent->effective[way * BLOCK + step] = (Scores){0};
}

// A place of a layer that sends spikes; column: of its events.
typedef struct {
    const Run *run;
    Spikes *to;
    Sent *sent;
    int64_t index, place, column;
} Sender;

static Sender sender(const Run *run, int64_t index, int64_t place, int64_t x, Spikes *to, Sent *sent) {
    const Layer *layer = run->layers + index;
    return (Sender){run, to, sent, index, place, layer->event_width == layer->width ? x : place};
}

// Let a fault strike what LANES neurons send in one step, and keep what of it arrives.
static void disturb(const Sender *from, int64_t channel, int64_t step, uint32_t *rises, uint32_t *falls) {
    const Run *run = from->run;
    const Layer *layer = run->layers + from->index;
    int64_t kept = layer->first + from->place * layer->pitch + channel;
    uint32_t hit = struck(run, from->index, step, from->place * layer->channels + channel, *rises | *falls);
    uint32_t flipped = run->task->fault ? hit : 0, risen = *rises;
    *rises = (*rises & ~hit) | (*falls & flipped);
    *falls = (*falls & ~hit) | (risen & flipped);
    Numbers change = __builtin_convertvector(answers_of(*rises), Numbers)
                   - __builtin_convertvector(answers_of(*falls), Numbers);
    set_counts(run, run->arrived, kept, counts_at(run, run->arrived, kept) + change);
}

// Send what LANES neurons of a place list in each step, from `channel` on.
static inline __attribute__((always_inline)) void send(const Sender *from, int64_t channel, int64_t steps,
                                                       uint32_t *rises, uint32_t *falls) {
    const Run *run = from->run;
    const Layer *layer = run->layers + from->index;
    const Ints lanes = {0,  1,  2,  3,  4,  5,  6,  7,  8,  9,  10, 11, 12, 13, 14, 15,
                        16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31};
    Halves plus = {lanes + (int32_t)(from->column * layer->channels + channel)};
    const int32_t flip = layer->flip;
    const Synapses *ways = run->synapses;
    const int64_t outputs = layer->outputs;
    Scores *effective = from->sent->effective;
    for (int64_t step = 0; step < steps; step++) {
        if (!(rises[step] | falls[step]))
            continue;
        if (run->task->rate)
            disturb(from, channel, step, rises + step, falls + step);
        list(from->to, step, rises[step], plus);
        if (falls[step]) {
            Halves minus = {plus.all + flip};
            list(from->to, step, falls[step], minus);
        }
        Halves fired = {__builtin_convertvector(answers_of(rises[step] | falls[step]), Ints) * -1};
        for (int64_t way = outputs; way >= 0; way = ways[way].next) {
            const Synapses *synapses = ways + way;
            Halves reached = {*(const Ints *)(synapses->effective + synapses->kinds[from->place] + channel)};
            effective[way * BLOCK + step] +=
                (reached.halves[0] & fired.halves[0]) + (reached.halves[1] & fired.halves[1]);
        }
    }
}

// Where the rows of weights lie that the spikes of each step add to a place: a list for each step, rounded up to whole
// turns of a loop by rows of zeros, which `used` leaves out. nested: as in `Spikes`.
typedef struct {
    int32_t *rows[BLOCK];
    int64_t used[BLOCK];
    int nested;
} Rows;

// A thread's memory to work in. membranes, last, arrived: see `Run`. image: with its border. rows, sums, planes,
// differences, window, values: of one place. sent: by a layer. came: synapses that spikes reach, [ways, BLOCK].
// scores: of the classes, so far. between: spikes from one layer to others, in slots.
typedef struct {
    int64_t *pending, *came;
    Number *membranes, *sums, *window, *values;
    int16_t *last;
    int32_t *scores;
    void *arrived;
    uint8_t *image;
    Slice *planes, *differences;
    Sent sent;
    Rows rows;
    Spikes *between;
} Workspace;

// Remember where the spikes of a place begin.
static void begin_place(Spikes *to, int64_t place, int64_t steps) {
    for (int64_t step = 0; step < steps; step++)
        to->first[step][place] = to->used[step];
}

// Add what a layer sent in the block to the totals. What is nested comes in all steps before the one that lists it too.
static void count_sent(const Run *run, int64_t index, int64_t steps, const Spikes *to, const Sent *sent) {
    for (int64_t step = 0; step < steps; step++) {
        int64_t *totals = totals_of(run, index, step);
        totals[PLUS] += sent->rises[step];
        totals[MINUS] += sent->falls[step];
    }
    for (int64_t way = run->layers[index].outputs; way >= 0; way = run->synapses[way].next) {
        Scores effective = {0};
        for (int64_t step = steps - 1; step >= 0; step--) {
            effective = sent->effective[way * BLOCK + step] + (to->nested ? effective : (Scores){0});
            for (int lane = 0; lane < CLASS_LANES; lane++)
                totals_of(run, run->synapses[way].target, step)[EFFECTIVE] += effective[lane];
        }
    }
}

// The same of what came in by one way.
static void count_received(const Run *run, const Synapses *synapses, int nested, const int64_t *came) {
    int64_t number = 0;
    for (int64_t step = run->steps - 1; step >= 0; step--) {
        int64_t *totals = totals_of(run, synapses->target, step);
        number = came[step] * synapses->fan + (nested ? number : 0);
        totals[SYNAPSES] += number;
        totals[ENCODED] += synapses->encoded ? number : 0;
    }
}
