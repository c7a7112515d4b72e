// The spiking network over time, one image after the other. What it does and how its arrays lie: see __init__.py.
//
// In C for the vectors of clang, which are plain values here: `a >= b` compares 32 lanes at once. Three functions name
// instructions that no operator stands for, and say in plain C what these do for processors without them: `list`,
// `add_products` and `add_three`. Nothing is called that these files do not hold, so they need no C library.

#include "spikes.h"
#include "sums.h"

// ---- The encoder ---------------------------------------------------------------------------------------------------

// Add the products of four pixels and of four weights of each of CLASS_LANES channels.
static Scores add_products(Scores sums, uint32_t pixels, const int8_t *weights) {
#ifdef __AVX512VNNI__
    return (Scores)_mm512_dpbusd_epi32((__m512i)sums, _mm512_set1_epi32(pixels), *(const __m512i_u *)weights);
#else
    const Scores fours = *(const Scores *)weights;
    for (int each = 0; each < 4; each++)
        sums += (fours << (24 - 8 * each) >> 24) * (int32_t)(pixels >> 8 * each & 0xFF);
    return sums;
#endif
}

// The same for LANES channels.
static Halves add_pixels(Halves sums, const uint8_t *four, const int8_t *weights) {
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

// Run the encoder over the block. Its image stays and its thresholds ascend, so a neuron that fires has fired in every
// step before: without faults, events are listed at the last step of the block at which they come.
static void encode(const Run *run, const uint8_t *image, Workspace *space) {
    const Layer *layer = run->layers;
    const Synapses *synapses = run->synapses + layer->inputs;
    uint8_t *padded = space->image;
    // Where the first of each four pixels lies that a place sees, from its corner on. Rows are not in use yet.
    int32_t *fours = space->rows.rows[0];
    Sent *sent = &space->sent;
    Spikes *to = space->between + layer->slot;
    int64_t levels = SMALLER(run->task->levels, run->task->steps) - run->start;
    int64_t steps = LARGER(0, SMALLER(run->steps, levels)), *pending = run->pending + run->start;
    int64_t height = synapses->in_height + 2 * synapses->padding;
    int64_t stride = synapses->in_width + 2 * synapses->padding + 3, size = 4 * layer->pitch;
    int32_t *end = fours;
    empty(run, 0, to, sent);
    // The read-out takes every step's spikes as they are.
    to->nested = run->task->rate == 0 && run->task->depth > 1;
    for (int64_t row = 0; row < synapses->kernel_height; row++)
        for (int64_t input = 0; input < synapses->in_channels; input++)
            for (int64_t column = 0; column < synapses->kernel_width; column += 4)
                *end++ = (input * height + row) * stride + column;
    if (steps)
        pad(synapses, image, padded, stride);
    for (int64_t place = 0, y = 0, x = 0; place < layer->places; place++) {
        const uint8_t *corner = padded + y * synapses->stride * stride + x * synapses->stride;
        const Sender from = sender(run, 0, place, x, to, sent);
        begin_place(to, place, run->steps);
        for (int64_t channel = 0; channel < layer->pitch && steps; channel += LANES) {
            int64_t neuron = place * layer->pitch + channel;
            const int8_t *weights = synapses->weights + 4 * channel;
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
            uint32_t fired[BLOCK], none[BLOCK];
            for (int64_t step = 0; step < steps; step++) {
                const int32_t *thresholds = (const int32_t *)layer->rising + (run->start + step + 1) * layer->pitch;
                Ints over = sums.all >= *(const Ints *)(thresholds + channel);
                fired[step] = bits_of(__builtin_convertvector(over, Answers));
                counts -= __builtin_convertvector(over, Numbers);
            }
            set_counts(run, run->counts, neuron, counts);
            if (!fired[0])
                continue;
            for (int64_t step = 0; step < steps; step++) {
                none[step] = 0;
                sent->rises[step] += __builtin_popcount(fired[step]);
                if (to->nested && step + 1 < steps)
                    fired[step] &= ~fired[step + 1];
            }
            send(&from, channel, steps, fired, none);
        }
        if (++x == layer->width)
            x = 0, y++;
    }
    begin_place(to, layer->places, run->steps);
    // A neuron that fires now did so one step before, which then was not its last.
    for (int64_t step = 0; step < steps; step++) {
        pending[step] -= sent->rises[step];
        pending[step + 1] += sent->rises[step];
    }
    count_sent(run, 0, steps, to, sent);
}

// ---- Neurons -------------------------------------------------------------------------------------------------------

// Move each count of LANES neurons by one towards the number of thresholds that its membrane reaches: thresholds
// ascend, so U ≥ θ_{n+1} where that number is above n, and U < θ_n where it is below. A count is within the number of
// steps so far, so no more thresholds decide.
static void move_towards_code(const Layer *layer, int64_t channel, int64_t step, Numbers membranes, Numbers *counts,
                              uint32_t *rises, uint32_t *falls) {
    const Number *thresholds = (const Number *)layer->rising + channel;
    int64_t least = LARGER(layer->lowest, -step), most = SMALLER(layer->lowest + layer->levels, step);
    Numbers code = {0};
    code += (Number)least;
    for (int64_t level = least + 1; level <= most; level++)
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
        (*counts)[lane] += (Number)rise - (Number)fall;
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
static void fire(const Sender *from, int64_t channel, uint32_t received, const Number *sums) {
    const Run *run = from->run;
    const Layer *layer = run->layers + from->index;
    int64_t neuron = layer->first + from->place * layer->pitch + channel;
    Number *kept = run->membranes + neuron;
    Numbers membranes = {0}, counts = {0};
    if (run->start) {
        membranes = *(Numbers *)kept;
        counts = counts_at(run, run->counts, neuron);
    }
    uint32_t rises[BLOCK], falls[BLOCK], any = 0;
    for (int64_t step = 0; step < run->steps; step++) {
        rises[step] = falls[step] = 0;
        if (received >> step & 1)
            membranes += *(const Numbers *)(sums + step * layer->pitch);
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
    set_counts(run, run->counts, neuron, counts);
    if (!any)
        return;
    remember_last(run, from->index, neuron, rises, falls);
    for (int64_t step = 0; step < run->steps; step++) {
        from->sent->rises[step] += __builtin_popcount(rises[step]);
        from->sent->falls[step] += __builtin_popcount(falls[step]);
    }
    send(from, channel, run->steps, rises, falls);
}

// Run a hidden layer over the block: all steps of one place before the next place.
static void run_layer(const Run *run, int64_t index, Workspace *space) {
    const Layer *layer = run->layers + index;
    Spikes *to = space->between + layer->slot;
    int64_t end = layer->inputs + layer->ways;
    empty(run, index, to, &space->sent);
    to->nested = 0;
    for (int64_t entry = layer->inputs * BLOCK; entry < end * BLOCK; entry++)
        space->came[entry] = 0;
    for (int64_t place = 0, y = 0, x = 0; place < layer->places; place++) {
        const Sender from = sender(run, index, place, x, to, &space->sent);
        uint32_t received = 0;
        for (int64_t way = layer->inputs; way < end; way++) {
            const Synapses *synapses = run->synapses + way;
            const Spikes *came = space->between + run->layers[synapses->source].slot;
            received |= receive(run, synapses, came, y, x, space, received != 0, space->came + way * BLOCK);
        }
        begin_place(to, place, run->steps);
        for (int64_t channel = 0; channel < layer->pitch; channel += LANES)
            fire(&from, channel, received, space->sums + channel);
        if (++x == layer->width)
            x = 0, y++;
    }
    begin_place(to, layer->places, run->steps);
    count_sent(run, index, run->steps, to, &space->sent);
    for (int64_t way = layer->inputs; way < end; way++) {
        const Synapses *synapses = run->synapses + way;
        int nested = space->between[run->layers[synapses->source].slot].nested;
        count_received(run, synapses, nested, space->came + way * BLOCK);
    }
}

// The class scores after each step of the block. logits: of this image, those of a step `images · classes` apart.
static void read_out(const Run *run, const Spikes *from, int32_t *scores, int64_t *logits) {
    const Task *task = run->task;
    for (int64_t class = 0; class < task->class_pitch; class += CLASS_LANES) {
        const int32_t *weights = task->class_weights + class;
        Scores sums = run->start ? *(Scores *)(scores + class) : (Scores){0};
        for (int64_t step = 0; step < run->steps; step++) {
            for (int32_t event = 0; event < from->used[step]; event++)
                sums += *(const Scores *)(weights + from->events[step][event] * task->class_pitch);
            int64_t *after = logits + (run->start + step) * task->images * task->classes + class;
            for (int64_t lane = 0; lane < SMALLER(CLASS_LANES, task->classes - class); lane++)
                after[lane] = sums[lane];
        }
        *(Scores *)(scores + class) = sums;
    }
}

// ---- Images --------------------------------------------------------------------------------------------------------

static void *take(char **room, int64_t bytes) {
    void *taken = *room;
    *room += (bytes + 63) / 64 * 64;
    return taken;
}

// Divide `room` up, from the next cache line on, into a workspace that has its slots, and return where it ends.
static char *divide(char *room, const Task *task, Workspace *into) {
    room += -(uintptr_t)room % 64;
    int64_t kept = task->steps > BLOCK ? task->neurons : 0;
    into->pending = take(&room, task->depth * (task->steps + 1) * sizeof(int64_t));
    into->came = take(&room, task->ways * BLOCK * sizeof(int64_t));
    into->membranes = take(&room, kept * sizeof(Number));
    into->last = take(&room, kept * sizeof(int16_t));
    into->scores = take(&room, task->class_pitch * sizeof(int32_t));
    into->arrived = take(&room, task->rate == 0 ? 0 : task->neurons * sizeof(int16_t));
    into->sent.effective = take(&room, task->ways * BLOCK * sizeof(Scores));
    into->image = take(&room, task->image_room);
    into->sums = take(&room, SMALLER(BLOCK, task->steps) * task->pitch_room * sizeof(Number));
    into->window = take(&room, task->window_room * sizeof(Number));
    into->values = take(&room, task->pitch_room * sizeof(Number));
    // Differences have a bit more, and are read and written in whole slices.
    into->planes = take(&room, (task->pitch_room / 256 + 1) * (PLANES + 2) * sizeof(Slice));
    into->differences = take(&room, (task->pitch_room / 256 + 1) * (PLANES + 2) * sizeof(Slice));
    for (int64_t step = 0; step < SMALLER(BLOCK, task->steps); step++) {
        into->rows.rows[step] = take(&room, (task->row_room + LANES) * sizeof(int32_t));
        for (int64_t slot = 0; slot < task->slots; slot++) {
            into->between[slot].events[step] = take(&room, (task->event_room + LANES) * sizeof(int32_t));
            into->between[slot].first[step] = take(&room, task->place_room * sizeof(int32_t));
        }
    }
    return room;
}

// Bytes that one thread needs to work in.
EXPORT int64_t room_of(const Task *task) {
    Spikes slots[task->slots];
    Workspace unused = {.between = slots};
    return divide((char *)64, task, &unused) - (char *)0;
}

// Whether nothing fired in the last step of the block.
static int silent(const Run *run) {
    int64_t fired = 0;
    for (int64_t layer = 0; layer < run->task->depth; layer++)
        fired += run->pending[layer * (run->task->steps + 1) + run->start + run->steps];
    return !fired;
}

// Run one image and return the step of its last spike. pending: neurons of each layer by the step of their last spike.
static int64_t run_image(Run *run, const uint8_t *image, Workspace *space, int64_t *logits) {
    const Task *task = run->task;
    int64_t entries = task->images * task->classes;
    if (task->steps > BLOCK)
        for (int64_t neuron = 0; neuron < task->neurons; neuron++)
            run->last[neuron] = 0;
    for (int64_t neuron = 0; neuron < task->neurons && task->rate != 0; neuron++)
        ((int16_t *)space->arrived)[neuron] = 0;
    for (run->start = 0; run->start < task->steps; run->start += run->steps) {
        run->steps = SMALLER(BLOCK, task->steps - run->start);
        encode(run, image, space);
        for (int64_t index = 1; index < task->depth; index++)
            run_layer(run, index, space);
        read_out(run, space->between + run->layers[task->depth - 1].slot, space->scores, logits);
        if (run->start + run->steps > task->levels && silent(run))
            break;
    }
    // Scores stay as they are from silence on.
    for (int64_t step = run->start + run->steps; step < task->steps; step++)
        for (int64_t class = 0; class < task->classes; class++)
            logits[step * entries + class] = logits[(step - 1) * entries + class];
    for (int64_t step = task->steps; step > 0; step--)
        for (int64_t layer = 0; layer < task->depth; layer++)
            if (run->pending[layer * (task->steps + 1) + step])
                return step;
    return 0;
}

// Run images [C, H, W] of index *next … end − 1, taken one by one, as other threads do that call this with the same
// `next`. counts [images, neurons], settled_at [images], logits [steps, images, classes]: of every image, as in
// `Record`. totals [steps, depth, TOTALS], pending [depth, steps + 1]: this thread's own, to which it adds. room: its
// memory to work in.
EXPORT void simulate(const Layer *layers, const Synapses *synapses, const Task *task, const uint8_t *images,
                     int64_t end, int64_t *next, char *counts, int64_t *settled_at, int64_t *totals, int64_t *pending,
                     int64_t *logits, char *room) {
    int64_t entries = task->depth * (task->steps + 1);
    int64_t pixels = synapses->in_channels * synapses->in_height * synapses->in_width;
    Spikes slots[task->slots];
    Workspace space = {.between = slots};
    divide(room, task, &space);
    Run run = {.layers = layers, .synapses = synapses, .task = task, .totals = totals, .pending = space.pending,
               .membranes = space.membranes, .last = space.last};
    for (;;) {
        int64_t index = __atomic_fetch_add(next, 1, __ATOMIC_RELAXED);
        if (index >= end)
            break;
        for (int64_t entry = 0; entry < entries; entry++)
            run.pending[entry] = 0;
        run.sample = index;
        run.counts = counts + index * task->neurons * (task->wide_counts ? 2 : 1);
        run.arrived = task->rate == 0 ? run.counts : space.arrived;
        int64_t last = run_image(&run, images + index * pixels, &space, logits + index * task->classes);
        last = LARGER(last, task->levels);
        settled_at[index] = last < task->steps ? last : 0;
        for (int64_t entry = 0; entry < entries; entry++)
            pending[entry] += run.pending[entry];
    }
}
