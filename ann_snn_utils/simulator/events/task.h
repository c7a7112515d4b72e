// What the kernel works on: the network, what is asked of it, and what threads share.

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
// WIDEST: channels whose sums of bytes are held in registers. TURN: rows of bytes that are added in one turn of a loop;
// of nibbles NIBBLE_TURN, of which NIBBLE_CROWD add up within one. WORDS: of LANES bits each, looked at together.
// CACHE_LINE: of how many bytes threads should not write to the same.
enum { LANES = 32, BLOCK = 16, WIDEST = 256, CLASS_LANES = 16, WORDS = 16, CACHE_LINE = 64 };
enum { TURN = 4, NIBBLE_CROWD = 7, NIBBLE_TURN = 2 * NIBBLE_CROWD };

// Vectors of LANES neurons that are worked on side by side, as many as registers hold: one alone would wait for each of
// its products and comparisons.
#if defined(__AVX512F__)
enum { SIDE_BY_SIDE = 4 };
#elif defined(__AVX2__)
enum { SIDE_BY_SIDE = 2 };
#else
enum { SIDE_BY_SIDE = 1 };
#endif

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
typedef VECTOR(uint32_t, WORDS) Words;
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
    int64_t encoded;                                    // whether they bring spikes of the encoder, or maxima of these
    // Of the image: [kernel row, input channel, group of columns, pitch, GROUP]. Rows: [kernel row, kernel column,
    // input channel, row], from `flip` rows on the same negated, and a row of zeros; for places `abreast` side by side,
    // and the kernel is as wide as what they all see. In nibbles, of each block of WIDEST
    // channels (of the rest half as many, and so on) a byte holds one of the first half and one of the second.
    // Windows: [kernel row, kernel column, pitch].
    const int8_t *weights;
    const void *gain;                                   // by what sums are multiplied, [abreast, pitch]
    const int32_t *fans;                                // synapses that a spike of each place of the source reaches
    const int64_t *kinds;                               // where the effective fan-outs of each row of the source's map
    const int32_t *effective;                           // begin here: synapses other than 0, of each event of +1
} Synapses;

typedef struct {
    int64_t channels, pitch, height, width;             // pitch: channels, rounded up to whole vectors
    int64_t levels, lowest;                             // thresholds of a channel; its least count
    int64_t abreast;                                    // places of a row of the map whose sums are formed together
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
    int64_t word_room;                                  // the most words of a row of a map in a step
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
// after place. An event is a number: column · channels + channel, and `flip` more for −1. marks: for each step, where
// those of a place begin, and behind each row of the map, where its last ones end.
typedef struct { int32_t *events, *marks; } Spikes;

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

// The number of marks of a row of a map, in whole cache lines: threads that have the rows beside it write to others.
static int64_t marks_in(int64_t width) {
    return (width + CACHE_LINE / 4) & -(CACHE_LINE / 4);
}

// Those of a row of a layer's map, in a step of the block.
static int32_t *marks_of(const Run *run, int64_t layer, int64_t step, int64_t y) {
    return spikes_of(run, layer)->marks + step * run->task->mark_room + y * marks_in(run->layers[layer].width);
}

// Words of a row of a map in a step: one for LANES channels of a place, rounded up to whole vectors.
static int64_t words_of(const Layer *layer) {
    return (layer->width * layer->pitch / LANES + WORDS - 1) & -WORDS;
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

// Where the rows of weights lie that the spikes of each step add to a place: a list for each step, rounded up to whole
// turns of a loop by rows of zeros, which `used` leaves out. nested: see `lists_nested`.
typedef struct {
    int32_t *rows[BLOCK];
    int64_t used[BLOCK];
    int nested;
} Rows;

// What a thread sent of a layer at each step of the block. used: where its list of events ends. rises, falls, last:
// spikes, and neurons that fired last then, as sums of several. reached, effective: synapses that spikes reach, and
// those other than 0, [ways, BLOCK], of all ways.
typedef struct {
    int32_t used[BLOCK];
    Words rises[BLOCK], falls[BLOCK], last[BLOCK];
    int64_t *reached, *effective;
} Sent;

// A thread's memory to work in. image: with its border. rows, sums, window, values: of one place, or those `abreast`.
// rises, falls: what a row of the map sends, +1 and −1, a bit for each neuron, [step, words]. sent: by a layer. totals:
// as in `Task`, of what this thread ran.
typedef struct {
    int64_t *totals;
    Number *sums, *window, *values;
    void *image;
    uint32_t *rises, *falls;
    Sent sent;
    Rows rows;
} Workspace;
