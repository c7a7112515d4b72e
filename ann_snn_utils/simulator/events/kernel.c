// The spiking network over time, one image after the other. What it does and how its arrays lie: see __init__.py.
//
// In C for the vectors of clang, which are plain values here: `a >= b` compares 32 lanes at once. Nothing is called
// that this file does not hold, so it needs neither a C library nor headers to be compiled.

#include <stdint.h>

// The type of membranes, sums and thresholds: the narrowest that holds every number of the network.
#if MEMBRANE == 16
typedef int16_t Number;
#else
typedef int32_t Number;
#endif

#ifdef _WIN32
#define EXPORT __declspec(dllexport)
#else
#define EXPORT
#endif

// LANES: channels whose membranes are compared at once. BLOCK: steps that a layer runs before the next layer does.
// WIDEST: channels whose sums of rows are held in registers. TURN: rows that are added in one turn of a loop.
enum { LANES = 32, BLOCK = 16, WIDEST = 512, CLASS_LANES = 16, TURN = 4 };

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
    int64_t event_width, event_pitch;                   // of the event that a spike is to the next layer
    // [kernel row, kernel column, input channel, pitch]; of hidden layers these, the same negated, and a row of zeros.
    const int8_t *weights;
    const void *rising, *falling;                       // [levels + 2, pitch], θ_n in row n
    const int32_t *fan;                                 // synapses of the next layer that a spike of each place reaches
    const int64_t *kinds;                               // where the effective fan-outs of each place begin …
    const int32_t *effective;                           // … here: for each channel, synapses other than 0
} Layer;

// What is asked of every image. fault: 0 deletes, 1 flips a spike on its way, with probability `rate`.
typedef struct {
    int64_t depth, levels, steps, fault, seed, class_pitch, neurons, wide_counts;
    int64_t event_room, place_room, row_room;           // the most spikes of a layer, places, and inputs of a neuron
    double rate;
    const int32_t *class_weights;                       // [neurons of the last layer, class_pitch]
} Task;

// Spikes of one sign on their way to the next layer: for each step of the block a list of them, place after place.
// An event is where the weights of its channel lie, from those of its row's first channel on.
typedef struct {
    int32_t *events[BLOCK], *first[BLOCK];              // first: of each place, and behind them the number of all
    int32_t used[BLOCK];
} Events;

// Both signs. nested: each step lists what comes in this step and not in the next one.
typedef struct {
    Events rises, falls;
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

// List the spikes of LANES channels, and return the synapses other than 0 that they reach. Four at a time, as most
// words have no more: a processor that guesses how often a loop turns is right more often. What is listed too much
// lies behind the end.
static int64_t list(Events *to, int64_t step, uint32_t bits, int32_t event, int32_t pitch, const int32_t *effective) {
    int32_t *events = to->events[step] + to->used[step];
    int64_t reached = 0;
    to->used[step] += __builtin_popcount(bits);
    for (; bits; events += 4)
        for (int each = 0; each < 4; each++) {
            int32_t channel = __builtin_ctz(bits | 1u << 31);
            events[each] = event + channel * pitch;
            reached += effective[channel] & -(int32_t)(bits != 0);
            bits &= bits - 1;
        }
    return reached;
}

// Where spikes of LANES channels of a place go, from `channel` on: what is the same for all steps of the block.
typedef struct {
    const Run *run;
    Spikes *to;
    const int32_t *effective;
    int64_t index, neuron, fan;
    int32_t event, pitch;
} Sender;

static Sender sender(const Run *run, int64_t index, int64_t place, int64_t column, int64_t channel, Spikes *to) {
    const Layer *layer = run->layers + index;
    int32_t pitch = layer->event_pitch, event = (column * layer->channels + channel) * pitch;
    return (Sender){run, to, layer->effective + layer->kinds[place] + channel, index,
                    place * layer->channels + channel, layer->fan[place], event, pitch};
}

// Send what fires in one step.
static void send(const Sender *from, int64_t step, uint32_t rises, uint32_t falls) {
    const Run *run = from->run;
    int64_t *totals = totals_of(run, from->index, step);
    totals[PLUS] += __builtin_popcount(rises);
    totals[MINUS] += __builtin_popcount(falls);
    if (run->task->rate) {
        uint32_t hit = struck(run, from->index, step, from->neuron, rises | falls);
        uint32_t flipped = run->task->fault ? hit : 0, risen = rises;
        rises = (rises & ~hit) | (falls & flipped);
        falls = (falls & ~hit) | (risen & flipped);
    }
    int64_t synapses = __builtin_popcount(rises | falls) * from->fan, effective = 0;
    if (rises)
        effective += list(&from->to->rises, step, rises, from->event, from->pitch, from->effective);
    if (falls)
        effective += list(&from->to->falls, step, falls, from->event, from->pitch, from->effective);
    // The read-out is no layer: what it takes is not counted.
    if (from->index + 1 < run->task->depth) {
        totals[TOTALS + SYNAPSES] += synapses;
        totals[TOTALS + EFFECTIVE] += effective;
    }
}

static void begin_place(Spikes *to, int64_t place, int64_t steps) {
    for (int64_t step = 0; step < steps; step++) {
        to->rises.first[step][place] = to->rises.used[step];
        to->falls.first[step][place] = to->falls.used[step];
    }
}

// ---- The encoder ---------------------------------------------------------------------------------------------------

// A pixel that is not 0, and where the weights lie that it has.
typedef struct {
    int32_t value, weights;
} Pixel;

// The pixels other than 0 that the place (y, x) sees; returns their number. No branch depends on a pixel.
static int64_t pixels_of(const Layer *layer, const uint8_t *image, int64_t y, int64_t x, Pixel *pixels) {
    int64_t top = y * layer->stride - layer->padding, left = x * layer->stride - layer->padding, number = 0;
    int64_t from = LARGER(0, -left), to = SMALLER(layer->kernel_width, layer->in_width - left);
    for (int64_t row = LARGER(0, -top); row < SMALLER(layer->kernel_height, layer->in_height - top); row++)
        for (int64_t input = 0; input < layer->in_channels; input++) {
            const uint8_t *seen = image + (input * layer->in_height + top + row) * layer->in_width + left;
            for (int64_t column = from; column < to; column++) {
                int64_t tap = (row * layer->kernel_width + column) * layer->in_channels + input;
                pixels[number] = (Pixel){seen[column], tap * layer->pitch};
                number += seen[column] != 0;
            }
        }
    return number;
}

// Run the encoder over the block. Its image stays and its thresholds ascend, so a neuron that fires has fired in every
// step before: without faults, events are listed at the last step of the block at which they come.
static void encode(const Run *run, const uint8_t *image, Spikes *to, Pixel *pixels) {
    const Layer *layer = run->layers;
    int64_t levels = SMALLER(run->task->levels, run->task->steps) - run->start;
    int64_t steps = LARGER(0, SMALLER(run->steps, levels)), *pending = run->pending + run->start;
    to->nested = run->task->rate == 0;
    for (int64_t place = 0, y = 0, x = 0; place < layer->places; place++) {
        int64_t number = steps ? pixels_of(layer, image, y, x, pixels) : 0;
        begin_place(to, place, run->steps);
        for (int64_t channel = 0; channel < layer->pitch && steps; channel += LANES) {
            int64_t neuron = place * layer->pitch + channel;
            Sender from = sender(run, 0, place, x, channel, to);
            Ints sums = {0};
            for (const Pixel *pixel = pixels; pixel < pixels + number; pixel++) {
                const Bytes *weights = (const Bytes *)(layer->weights + pixel->weights + channel);
                sums += pixel->value * __builtin_convertvector(*weights, Ints);
            }
            Numbers counts = run->start ? counts_at(run, neuron) : (Numbers){0};
            uint32_t fired[BLOCK + 1];
            int64_t last = 0;
            for (fired[0] = 0; last < steps; last++) {
                const int32_t *thresholds = (const int32_t *)layer->rising + (run->start + last + 1) * layer->pitch;
                Ints over = sums >= *(const Ints *)(thresholds + channel);
                fired[last] = bits_of(__builtin_convertvector(over, Answers));
                if (!fired[last])
                    break;
                counts -= __builtin_convertvector(over, Numbers);
            }
            fired[last] = 0;
            for (int64_t step = 0; step < last; step++) {
                uint32_t sent = to->nested ? fired[step] & ~fired[step + 1] : fired[step];
                int64_t number = __builtin_popcount(fired[step]);
                // A neuron that fires now did so one step before, which then was not its last.
                pending[step] -= number;
                pending[step + 1] += number;
                if (sent)
                    send(&from, step, sent, 0);
            }
            set_counts(run, neuron, counts);
        }
        if (++x == layer->width)
            x = 0, y++;
    }
    begin_place(to, layer->places, run->steps);
}

// An event that is nested comes in all steps of its block before the one that lists it too.
static void count_nested(const Task *task, int64_t *totals) {
    for (int64_t step = SMALLER(task->levels, task->steps) - 2; step >= 0; step--) {
        int64_t *now = totals + step * task->depth * TOTALS, *later = now + task->depth * TOTALS;
        if ((step + 1) % BLOCK == 0)
            continue;
        now[PLUS] += later[PLUS];
        now[TOTALS + SYNAPSES] += later[TOTALS + SYNAPSES];
        now[TOTALS + EFFECTIVE] += later[TOTALS + EFFECTIVE];
    }
}

// ---- Sums of rows --------------------------------------------------------------------------------------------------

// Where the rows of weights lie that the spikes of each step add to a place: a list for each step, rounded up to whole
// turns of a loop by rows of zeros. nested: as in `Spikes`.
typedef struct {
    int32_t *rows[BLOCK];
    int64_t used[BLOCK];
    int nested;
} Rows;

// Collect what the place (y, x) receives. It sees, for each row of its kernel, some neighbouring places of one row of
// the map before, whose events are neighbours too, and where their weights lie for this place differs by a constant.
// Weights lie there twice: as they are, and negated for spikes of −1.
static void collect(const Layer *layer, const Spikes *from, int64_t steps, int64_t y, int64_t x, Rows *to) {
    int64_t top = y * layer->stride - layer->padding, left = x * layer->stride - layer->padding;
    int64_t first_row = LARGER(0, -top), end_row = SMALLER(layer->kernel_height, layer->in_height - top);
    int64_t first = LARGER(0, left), end = SMALLER(layer->in_width, left + layer->kernel_width);
    int32_t row_size = layer->kernel_width * layer->in_channels * layer->pitch, size = layer->kernel_height * row_size;
    int32_t before = -left * layer->in_channels * layer->pitch;
    to->nested = from->nested;
    for (int64_t step = 0; step < steps; step++) {
        int32_t *rows = to->rows[step];
        for (int sign = 0; sign < 2; sign++) {
            const Events *events = sign ? &from->falls : &from->rises;
            for (int64_t row = first_row; row < end_row && events->used[step]; row++) {
                const int32_t *place = events->first[step] + (top + row) * layer->in_width;
                const int32_t *event = events->events[step] + place[first];
                int32_t number = place[end] - place[first];
                for (int32_t at = 0; at < number; at += CLASS_LANES)
                    *(Scores *)(rows + at) = *(const Scores *)(event + at) + (before + (int32_t)row * row_size + sign * size);
                rows += number;
            }
        }
        for (int each = 0; each < TURN; each++)
            rows[each] = 2 * size;
        to->used[step] = (rows - to->rows[step] + TURN - 1) & -TURN;
    }
}

// What the rows of each step add to `WIDTH` membranes of a place, from `channel` on: sums[step]. They are added as
// bytes, in registers, as many as cannot leave them. Returns a bit for each step with rows.
#define SUM(WIDTH)                                                                                                    \
    static uint32_t sum_##WIDTH(const Layer *layer, const Rows *rows, int64_t steps, int64_t channel,                 \
                                Number (*sums)[WIDEST]) {                                                             \
        typedef VECTOR(int8_t, WIDTH) Row;                                                                            \
        typedef VECTOR(Number, WIDTH) Total;                                                                          \
        const int8_t *weights = layer->weights + channel;                                                             \
        Total total = {0};                                                                                            \
        uint32_t received = 0;                                                                                        \
        for (int64_t step = steps - 1; step >= 0; step--) {                                                           \
            const int32_t *row = rows->rows[step], *end = row + rows->used[step];                                     \
            received |= (uint32_t)(row < end) << step;                                                                \
            for (; row < end && layer->crowd < TURN; row++)                                                           \
                total += __builtin_convertvector(*(const Row *)(weights + *row), Total);                              \
            while (row < end) {                                                                                       \
                const int32_t *until = row + SMALLER(layer->crowd & -TURN, end - row);                                \
                Row bytes = {0};                                                                                      \
                for (; row < until; row += TURN)                                                                      \
                    bytes += (*(const Row *)(weights + row[0]) + *(const Row *)(weights + row[1]))                    \
                           + (*(const Row *)(weights + row[2]) + *(const Row *)(weights + row[3]));                   \
                total += __builtin_convertvector(bytes, Total);                                                       \
            }                                                                                                         \
            *(Total *)sums[step] = total * (Number)layer->gain;                                                       \
            if (rows->nested)                                                                                         \
                received |= received >> 1;                                                                            \
            else                                                                                                      \
                total = (Total){0};                                                                                   \
        }                                                                                                             \
        return received;                                                                                              \
    }

SUM(32)
SUM(64)
SUM(128)
SUM(256)
SUM(512)

// ---- Neurons -------------------------------------------------------------------------------------------------------

// Move each count of LANES neurons by one towards the number of thresholds that its membrane reaches: thresholds
// ascend, so U ≥ θ_{n+1} where that number is above n, and U < θ_n where it is below. A count is at most the number
// of steps so far, so no more thresholds decide.
static void move_towards_code(const Layer *layer, int64_t channel, int64_t step, Numbers membranes, Numbers *counts,
                              uint32_t *rises, uint32_t *falls) {
    const Number *thresholds = (const Number *)layer->rising + channel;
    Numbers code = {0};
    for (int64_t level = 1; level <= SMALLER(step, layer->levels); level++)
        code -= membranes >= *(const Numbers *)(thresholds + level * layer->pitch);
    Numbers over = code > *counts, under = code < *counts;
    *counts += under - over;
    *rises = bits_of(__builtin_convertvector(over, Answers));
    *falls = bits_of(__builtin_convertvector(under, Answers));
}

// The same, neuron by neuron, for many thresholds and for those that differ for +1 and −1.
static void look_up(const Layer *layer, int64_t channel, Numbers membranes, Numbers *counts, uint32_t *rises,
                    uint32_t *falls) {
    const Number *rising = (const Number *)layer->rising + channel, *falling = (const Number *)layer->falling + channel;
    *rises = *falls = 0;
    for (int lane = 0; lane < LANES; lane++) {
        int64_t at = (*counts)[lane] * layer->pitch + lane;
        uint32_t rise = membranes[lane] >= rising[at + layer->pitch], fall = !rise && membranes[lane] < falling[at];
        (*counts)[lane] += rise - fall;
        *rises |= rise << lane;
        *falls |= fall << lane;
    }
}

// Keep for each neuron that fired in this block when it did so last, and count neurons by that.
static void remember_last(const Run *run, int64_t index, int64_t neuron, const uint32_t *rises, const uint32_t *falls) {
    int64_t *pending = run->pending + index * (run->task->steps + 1);
    uint32_t seen = 0;
    for (int64_t step = run->steps - 1; step >= 0; step--) {
        uint32_t fresh = (rises[step] | falls[step]) & ~seen;
        seen |= fresh;
        pending[run->start + step + 1] += __builtin_popcount(fresh);
        if (run->task->steps > BLOCK)
            for (; fresh; fresh &= fresh - 1) {
                int16_t *last = run->last + neuron + __builtin_ctz(fresh);
                // Before the first spike `last` is 0, where nothing is read.
                pending[*last]--;
                *last = run->start + step + 1;
            }
    }
}

// Run LANES neurons of a place over the block and send their spikes.
static void fire(const Run *run, const Layer *layer, const Sender *to, int64_t place, int64_t channel,
                 uint32_t received, const Number (*sums)[WIDEST]) {
    int64_t neuron = layer->first + place * layer->pitch + channel;
    Number *kept = run->membranes + neuron;
    Numbers membranes = {0}, counts = {0};
    if (run->start) {
        membranes = *(Numbers *)kept;
        counts = counts_at(run, neuron);
    }
    uint32_t rises[BLOCK], falls[BLOCK], any = 0;
    for (int64_t step = 0; step < run->steps; step++) {
        rises[step] = falls[step] = 0;
        if (received >> step & 1)
            membranes += *(const Numbers *)sums[step];
        else if (step && !(rises[step - 1] | falls[step - 1]))
            continue;
        if (run->start + step < layer->compared)
            move_towards_code(layer, channel, run->start + step + 1, membranes, &counts, rises + step, falls + step);
        else
            look_up(layer, channel, membranes, &counts, rises + step, falls + step);
        any |= rises[step] | falls[step];
    }
    if (run->task->steps > BLOCK)
        *(Numbers *)kept = membranes;
    set_counts(run, neuron, counts);
    if (!any)
        return;
    remember_last(run, to->index, neuron, rises, falls);
    for (int64_t step = 0; step < run->steps; step++)
        if (rises[step] | falls[step])
            send(to, step, rises[step], falls[step]);
}

// Run a hidden layer over the block: all steps of one place before the next place.
static void run_layer(const Run *run, int64_t index, const Spikes *from, Spikes *to, Rows *rows) {
    const Layer *layer = run->layers + index;
    Number sums[BLOCK][WIDEST];
    to->nested = 0;
    for (int64_t place = 0, y = 0, x = 0; place < layer->places; place++) {
        int64_t column = place % layer->event_width;
        collect(layer, from, run->steps, y, x, rows);
        begin_place(to, place, run->steps);
        for (int64_t channel = 0, width = WIDEST; channel < layer->pitch; channel += width) {
            uint32_t received;
            while (width > layer->pitch - channel)
                width /= 2;
            switch (width) {
            case 512: received = sum_512(layer, rows, run->steps, channel, sums); break;
            case 256: received = sum_256(layer, rows, run->steps, channel, sums); break;
            case 128: received = sum_128(layer, rows, run->steps, channel, sums); break;
            case 64: received = sum_64(layer, rows, run->steps, channel, sums); break;
            default: received = sum_32(layer, rows, run->steps, channel, sums); break;
            }
            for (int64_t lane = 0; lane < width; lane += LANES) {
                Sender sends = sender(run, index, place, column, channel + lane, to);
                fire(run, layer, &sends, place, channel + lane, received, (const Number(*)[WIDEST])(&sums[0][lane]));
            }
        }
        if (++x == layer->width)
            x = 0, y++;
    }
    begin_place(to, layer->places, run->steps);
}

// What each step of the block adds to the class scores.
static void read_out(const Run *run, const Spikes *from, int32_t *scores) {
    const Task *task = run->task;
    for (int64_t step = 0; step < run->steps; step++)
        for (int64_t class = 0; class < task->class_pitch; class += CLASS_LANES) {
            Scores sums = {0};
            // An encoder that is read out itself is never nested: it has no hidden layer behind it.
            for (int32_t event = 0; event < from->rises.used[step]; event++)
                sums += *(const Scores *)(task->class_weights + class + from->rises.events[step][event]);
            for (int32_t event = 0; event < from->falls.used[step]; event++)
                sums -= *(const Scores *)(task->class_weights + class + from->falls.events[step][event]);
            *(Scores *)(scores + (run->start + step) * task->class_pitch + class) = sums;
        }
}

// ---- Images --------------------------------------------------------------------------------------------------------

// A thread's memory to work in. membranes, last: see `Run`. pixels, rows: of one place. between: spikes from one layer to the next, by turns.
typedef struct {
    int64_t *pending;
    Number *membranes;
    int16_t *last;
    Pixel *pixels;
    Rows rows;
    Spikes between[2];
} Workspace;

static void *take(char **room, int64_t bytes) {
    void *taken = *room;
    *room += (bytes + 63) / 64 * 64;
    return taken;
}

// Divide `room` up, and return where it ends.
static char *divide(char *room, const Task *task, Workspace *into) {
    int64_t kept = task->steps > BLOCK ? task->neurons : 0;
    into->pending = take(&room, task->depth * (task->steps + 1) * sizeof(int64_t));
    into->membranes = take(&room, kept * sizeof(Number));
    into->last = take(&room, kept * sizeof(int16_t));
    into->pixels = take(&room, (task->row_room + 1) * sizeof(Pixel));
    for (int64_t step = 0; step < SMALLER(BLOCK, task->steps); step++)
        into->rows.rows[step] = take(&room, (task->row_room + CLASS_LANES) * sizeof(int32_t));
    for (int side = 0; side < 2; side++)
        for (int sign = 0; sign < 2; sign++)
            for (int64_t step = 0; step < SMALLER(BLOCK, task->steps); step++) {
                Events *events = sign ? &into->between[side].falls : &into->between[side].rises;
                events->events[step] = take(&room, (task->event_room + CLASS_LANES) * sizeof(int32_t));
                events->first[step] = take(&room, task->place_room * sizeof(int32_t));
            }
    return room;
}

// Bytes that one thread needs to work in.
EXPORT int64_t room_of(const Task *task) {
    Workspace unused;
    return divide((char *)0, task, &unused) - (char *)0;
}

static void empty(Spikes *spikes) {
    for (int step = 0; step < BLOCK; step++)
        spikes->rises.used[step] = spikes->falls.used[step] = 0;
}

// Whether nothing fired in the last step of the block.
static int silent(const Run *run) {
    int64_t fired = 0;
    for (int64_t layer = 0; layer < run->task->depth; layer++)
        fired += run->pending[layer * (run->task->steps + 1) + run->start + run->steps];
    return !fired;
}

// Run one image and return the step of its last spike. pending: neurons of each layer by the step of their last spike.
static int64_t run_image(Run *run, const uint8_t *image, Workspace *space, int32_t *scores) {
    const Task *task = run->task;
    Spikes *between = space->between;
    if (task->steps > BLOCK)
        for (int64_t neuron = 0; neuron < task->neurons; neuron++)
            run->last[neuron] = 0;
    for (run->start = 0; run->start < task->steps; run->start += BLOCK) {
        run->steps = SMALLER(BLOCK, task->steps - run->start);
        empty(between);
        encode(run, image, between, space->pixels);
        for (int64_t index = 1; index < task->depth; index++) {
            empty(between + index % 2);
            run_layer(run, index, between + (index + 1) % 2, between + index % 2, &space->rows);
        }
        read_out(run, between + (task->depth + 1) % 2, scores);
        if (run->start + run->steps > task->levels && silent(run))
            break;
    }
    for (int64_t step = task->steps; step > 0; step--)
        for (int64_t layer = 0; layer < task->depth; layer++)
            if (run->pending[layer * (task->steps + 1) + step])
                return step;
    return 0;
}

// Run images [C, H, W] of index *next … number − 1, taken one by one, as other threads do that call this with the same
// `next`. counts [N, neurons], scores [N, steps, class_pitch], last_steps [N]: of every image. totals [steps, depth,
// TOTALS], pending [depth, steps + 1]: this thread's own, to which it adds. room: its memory to work in.
EXPORT void simulate(const Layer *layers, const Task *task, const uint8_t *images, const int64_t *samples,
                     int64_t number, int64_t *next, char *counts, int64_t *last_steps, int64_t *totals,
                     int64_t *pending, int32_t *scores, char *room) {
    int64_t entries = task->depth * (task->steps + 1), class_scores = task->steps * task->class_pitch;
    int64_t pixels = layers->in_channels * layers->in_height * layers->in_width;
    Workspace space;
    divide(room, task, &space);
    Run run = {.layers = layers, .task = task, .totals = totals, .pending = space.pending,
               .membranes = space.membranes, .last = space.last};
    for (;;) {
        int64_t index = __atomic_fetch_add(next, 1, __ATOMIC_RELAXED);
        if (index >= number)
            break;
        for (int64_t entry = 0; entry < entries; entry++)
            run.pending[entry] = 0;
        run.sample = samples[index];
        run.counts = counts + index * task->neurons * (task->wide_counts ? 2 : 1);
        last_steps[index] = run_image(&run, images + index * pixels, &space, scores + index * class_scores);
        for (int64_t entry = 0; entry < entries; entry++)
            pending[entry] += run.pending[entry];
    }
    if (!task->rate)
        count_nested(task, totals);
}
