// What the kernel works on, and how the spikes of a layer become events of the next one.

#pragma once
#include <stdint.h>
#ifdef __AVX2__
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
// WIDEST: channels whose sums of bytes are held in registers. TURN, NIBBLE_TURN: rows that are added in one turn of a
// loop. CACHE_LINE: of how many bytes threads should not write to the same.
enum { LANES = 32, BLOCK = 16, WIDEST = 256, CLASS_LANES = 16, TURN = 4, NIBBLE_TURN = 7, CACHE_LINE = 64 };

// Columns of the totals of a layer at a step. ENCODED: those of SYNAPSES that bring spikes of the encoder, or maxima.
// PENDING: neurons that fire later. ENDED: not 0 at some step where a count reached its `end`.
enum { PLUS, MINUS, SYNAPSES, ENCODED, EFFECTIVE, PENDING, ENDED, TOTALS };

// How spikes of a layer come to membranes of another: as rows of weights, bytes or nibbles; by a window on
// neurons of the same channel alone, weighted; or as the largest count in it.
enum { BYTES, NIBBLES, WINDOW, MAXIMUM };

// Also for what runs a layer: where a run and its workspace are seen to be local, no store can change them, and they
// stay in registers.
#define INLINE static inline __attribute__((always_inline))
#define VECTOR(type, lanes) type __attribute__((vector_size((lanes) * sizeof(type)), aligned(1)))
#define SMALLER(a, b) ((a) < (b) ? (a) : (b))
#define LARGER(a, b) ((a) > (b) ? (a) : (b))
typedef VECTOR(int8_t, LANES) Bytes;
typedef VECTOR(int16_t, LANES) Shorts;
typedef VECTOR(int32_t, LANES) Ints;
typedef VECTOR(Number, LANES) Numbers;
typedef VECTOR(int32_t, CLASS_LANES) Scores;
typedef union { Ints all; Scores halves[2]; } Halves;
typedef _Bool Answers __attribute__((ext_vector_type(LANES)));

// A way: all synapses from a layer, or the image, to another. `layout.py` fills it in, as it does layers. Sizes first,
// then where the arrays lie.
typedef struct {
    int64_t source, target, next;                       // next: other synapses from that source, −1 for none
    int64_t in_channels, in_height, in_width;
    int64_t kernel_height, kernel_width, stride, padding, dilation;
    int64_t how;                                        // BYTES, NIBBLES, WINDOW or MAXIMUM
    int64_t crowd;                                      // rows of weights that add up within a byte
    int64_t row, nothing;                               // bytes: from a row of weights to the next one, and to one of
                                                        // zeros
    int64_t fan;                                        // neurons of a place that a spike reaches
    int64_t encoded;                                    // whether they bring spikes of the encoder, or maxima of these
    // Of the image: [kernel row, input channel, group of columns, pitch, GROUP]. Rows: [kernel row, kernel column,
    // input channel, row], from `flip` rows on the same negated, and a row of zeros. In nibbles, of each block of WIDEST
    // channels (of the rest half as many, and so on) a byte holds one of the first half and one of the second.
    // Windows: [kernel row, kernel column, pitch].
    const int8_t *weights;
    const void *gain;                                   // by what sums are multiplied, [pitch]
    const int64_t *kinds;                               // where the effective fan-outs of each row of the source's map
    const int32_t *effective;                           // begin here: synapses other than 0, of each event of +1
} Synapses;

typedef struct {
    int64_t channels, pitch, height, width;             // pitch: channels, rounded up to whole vectors
    int64_t levels, lowest;                             // thresholds of a channel; its least count
    int64_t end;                                        // a count that must be told, as more might be asked for
    int64_t compared;                                   // steps whose counts come from comparing with all thresholds
    int64_t first;                                      // its first neuron among those of all layers
    int64_t inputs, ways;                               // its first synapses among all, and how many there are
    int64_t outputs;                                    // the first synapses from here, −1 for none
    int64_t slot;                                       // where its spikes lie until the last layer has read them
    int64_t event_width, flip;                          // events: places of a row, and how far −1 is from +1
    const void *rising, *falling;                       // θ_n in row n, [pitch]; there is one beyond both ends
} Layer;

// What is asked of all images, and where the answers go. members: threads that run an image together. fault: 0 deletes,
// 1 flips a spike on its way, with probability `rate`.
typedef struct {
    int64_t images, members, depth, levels, steps, fault, seed, classes, class_pitch, neurons, wide_counts, ways, slots;
    int64_t first_sample;                               // the first image's number, by which faults are drawn
    int64_t event_room, mark_room, row_room;            // the most spikes of a layer, marks, and inputs of a neuron
    int64_t image_room, pitch_room, window_room;        // pixels with a border, the most channels, and of a window
    double rate;
    const Layer *layers;
    const Synapses *synapses;
    const int32_t *class_weights;                       // [neurons of the last layer, class_pitch]
    const uint8_t *pixels;                              // [images, C, H, W]
    char *counts;                                       // [images, neurons]
    int64_t *settled_at, *logits;                       // [images]; [steps, images, classes]
    int64_t *totals;                                    // of all images, [steps, depth, TOTALS]
} Task;

// Spikes on their way to other layers: for each step of the block lists of them, one for each thread of a team, place
// after place. An event is a number: column · channels + channel, and `flip` more for −1. first: marks, where those of
// a place begin, and behind each row of the map, where its last ones end.
typedef struct {
    int32_t *events[BLOCK], *first[BLOCK];
} Spikes;

// What the threads of an image share, be they one or several. taken, done: rows of the maps, see team.h. ended: the
// steps after which all is silent, once it is. by_last: neurons by the step of their last spike, as far as each thread
// knows, [members, depth, steps + 1]. membranes, last: of the hidden layers, kept from block to block. scores: of the
// classes, so far. arrived: counts as the layers behind see them, which are those of `counts` where no fault strikes.
// between: spikes from one layer to others, in slots.
typedef struct {
    int64_t *taken, *done, *ended, *by_last;
    Number *membranes;
    int16_t *last;
    int32_t *scores;
    void *arrived;
    Spikes *between;
} Team;

// One thread's work on an image. arrived: of the team, or `counts`. totals, by_last: this thread's own.
typedef struct {
    const Layer *layers;
    const Synapses *synapses;
    const Task *task;
    Team team;
    int64_t member, sample;
    int64_t start, steps;                               // the block's first step, from 0 on, and how many it has
    void *counts, *arrived;
    int64_t *totals, *by_last;
} Run;

static const Spikes *spikes_of(const Run *run, int64_t layer) {
    return run->team.between + run->layers[layer].slot;
}

// Whether each step lists what comes in this step and not in the next one: so does the encoder, but for the classes,
// and for faults, which strike each step's spikes as they are.
static int lists_nested(const Run *run, int64_t layer) {
    return layer == 0 && run->task->rate == 0 && run->task->depth > 1;
}

// Marks of a row of a map, in whole cache lines: threads that have the rows beside it write to others.
static int64_t marks(int64_t width) {
    return (width + CACHE_LINE / 4) & -(CACHE_LINE / 4);
}

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

// List the spikes of LANES channels, whose events begin with `first`. More is written than there are: what lies behind
// the end is written over by the next.
static void list(int32_t *list, int32_t *used, uint32_t bits, int32_t first) {
    int32_t *end = list + *used, number = __builtin_popcount(bits);
    *used += number;
#ifdef __AVX512F__
    const Ints lanes = {0,  1,  2,  3,  4,  5,  6,  7,  8,  9,  10, 11, 12, 13, 14, 15,
                        16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31};
    Halves events = {lanes + first};
    int32_t before = __builtin_popcount(bits & 0xFFFF);
    __m512i one = _mm512_maskz_compress_epi32(bits, (__m512i)events.halves[0]);
    __m512i other = _mm512_maskz_compress_epi32(bits >> 16, (__m512i)events.halves[1]);
    _mm512_storeu_si512(end, one);
    _mm512_storeu_si512(end + before, other);
#else
    // Eight at a time: a branch for each would be guessed wrong once a list. The last bit stands for none, too.
    do
        for (int each = 0; each < 8; each++, bits &= bits - 1)
            *end++ = first + __builtin_ctz(bits | 1u << (LANES - 1));
    while (bits);
#endif
}

// What a thread sent of a layer at each step of the block: where its list of events ends, spikes, and the synapses
// other than 0 that they reach, [ways, BLOCK], of all ways.
typedef struct {
    int32_t used[BLOCK];
    int64_t rises[BLOCK], falls[BLOCK], *effective;
} Sent;

static void empty(const Run *run, int64_t index, Sent *sent) {
    for (int64_t step = 0; step < run->steps; step++) {
        sent->used[step] = run->member * (run->task->event_room + LANES);
        sent->rises[step] = sent->falls[step] = 0;
    }
    for (int64_t way = run->layers[index].outputs; way >= 0; way = run->synapses[way].next)
        for (int64_t step = 0; step < run->steps; step++)
            sent->effective[way * BLOCK + step] = 0;
}

// A place of a layer that sends spikes. column: of its events. mark: where they begin.
typedef struct {
    const Run *run;
    const Spikes *to;
    Sent *sent;
    int64_t index, place, column, mark;
} Sender;

// The first place of a row of the map.
static Sender sender(const Run *run, int64_t index, int64_t y, Sent *sent) {
    const Layer *layer = run->layers + index;
    int64_t place = y * layer->width, column = layer->event_width == layer->width ? 0 : place;
    return (Sender){run, spikes_of(run, index), sent, index, place, column, y * marks(layer->width)};
}

// Remember where the spikes of a place begin, or, behind the last one, those of its row end.
static void set_mark(const Sender *from) {
    for (int64_t step = 0; step < from->run->steps; step++)
        from->to->first[step][from->mark] = from->sent->used[step];
}

static void next_place(Sender *from) {
    from->place++;
    from->column++;
    from->mark++;
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

// Send what LANES neurons of a place list in one step, from `channel` on.
INLINE void send(const Sender *from, int64_t channel, int64_t step, uint32_t rises, uint32_t falls) {
    const Layer *layer = from->run->layers + from->index;
    const int32_t plus = from->column * layer->channels + channel;
    if (from->run->task->rate)
        disturb(from, channel, step, &rises, &falls);
    list(from->to->events[step], from->sent->used + step, rises, plus);
    if (falls)
        list(from->to->events[step], from->sent->used + step, falls, plus + layer->flip);
}

// Close a row of the map, whose places have sent all that they send, and count the synapses other than 0 that it
// reaches.
static void close_row(const Sender *from, int64_t y) {
    const Run *run = from->run;
    const Layer *layer = run->layers + from->index;
    const int32_t flip = layer->flip;
    set_mark(from);
    for (int64_t way = layer->outputs; way >= 0; way = run->synapses[way].next) {
        const int32_t *fans = run->synapses[way].effective + run->synapses[way].kinds[y];
        for (int64_t step = 0; step < run->steps; step++) {
            const int32_t *events = from->to->events[step], *row = from->to->first[step] + y * marks(layer->width);
            int64_t reached = 0;
            for (int32_t at = row[0]; at < row[layer->width]; at++)
                reached += fans[events[at] - (events[at] >= flip ? flip : 0)];
            from->sent->effective[way * BLOCK + step] += reached;
        }
    }
}

// Where the rows of weights lie that the spikes of each step add to a place: a list for each step, rounded up to whole
// turns of a loop by rows of zeros, which `used` leaves out. nested: see `lists_nested`.
typedef struct {
    int32_t *rows[BLOCK];
    int64_t used[BLOCK];
    int nested;
} Rows;

// A thread's memory to work in. image: with its border. encoded: sums of PLACES of the encoder. rows, sums, window,
// values: of one place. sent: by a layer. came: synapses that spikes reach, [ways, BLOCK]. totals:
// as in `Task`, of what this thread ran.
typedef struct {
    int64_t *came, *totals;
    Number *sums, *window, *values;
    void *image;
    int32_t *encoded;
    Sent sent;
    Rows rows;
} Workspace;

// Steps of the block in which a layer sent spikes, a bit for each.
static uint32_t sent_by(const Run *run, int64_t index) {
    const Layer *layer = run->layers + index;
    uint32_t sent = 0;
    for (int64_t step = 0; step < run->steps; step++) {
        const int32_t *row = spikes_of(run, index)->first[step];
        for (int64_t y = 0; y < layer->height && !(sent >> step & 1); y++, row += marks(layer->width))
            sent |= (uint32_t)(row[layer->width] > row[0]) << step;
    }
    return sent;
}

// Add what a layer sent in the block to the totals. What is nested comes in all steps before the one that lists it too.
static void count_sent(const Run *run, int64_t index, int64_t steps, const Sent *sent) {
    int nested = lists_nested(run, index);
    for (int64_t step = 0; step < steps; step++) {
        int64_t *totals = totals_of(run, index, step);
        totals[PLUS] += sent->rises[step];
        totals[MINUS] += sent->falls[step];
    }
    for (int64_t way = run->layers[index].outputs; way >= 0; way = run->synapses[way].next) {
        int64_t effective = 0;
        for (int64_t step = steps - 1; step >= 0; step--) {
            effective = sent->effective[way * BLOCK + step] + (nested ? effective : 0);
            totals_of(run, run->synapses[way].target, step)[EFFECTIVE] += effective;
        }
    }
}

// The same of what came in by one way.
static void count_received(const Run *run, const Synapses *synapses, const int64_t *came) {
    int64_t number = 0;
    int nested = lists_nested(run, synapses->source);
    for (int64_t step = run->steps - 1; step >= 0; step--) {
        int64_t *totals = totals_of(run, synapses->target, step);
        number = came[step] * synapses->fan + (nested ? number : 0);
        totals[SYNAPSES] += number;
        totals[ENCODED] += synapses->encoded ? number : 0;
    }
}
