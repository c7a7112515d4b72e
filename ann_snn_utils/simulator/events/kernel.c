// The spiking network over time, one image after the other. What it does and how its arrays lie: see __init__.py.
//
// In C for the vectors of clang, which are plain values here: `a >= b` compares 32 lanes at once. Three functions name
// instructions that no operator stands for, and say in plain C what these do for processors without them: `list`,
// `add_products` and `add_three`. Nothing is called that these files do not hold, so they need no C library.

#include "spikes.h"
#include "sums.h"
#include "team.h"

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

// Run LANES neurons of a place of the encoder over the block and send their spikes. corner: the first pixel that the
// place sees. fours … end: from there to each four of them.
INLINE void encode_lanes(const Sender *from, int64_t channel, int64_t steps, const uint8_t *corner,
                         const int32_t *fours, const int32_t *end) {
    const Run *run = from->run;
    const Layer *layer = run->layers;
    int64_t neuron = from->place * layer->pitch + channel, size = 4 * layer->pitch;
    const int8_t *weights = run->synapses[layer->inputs].weights + 4 * channel;
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
        return;
    for (int64_t step = 0; step < steps; step++) {
        none[step] = 0;
        from->sent->rises[step] += __builtin_popcount(fired[step]);
        if (lists_nested(run, 0) && step + 1 < steps)
            fired[step] &= ~fired[step + 1];
    }
    send(from, channel, steps, fired, none);
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
    int64_t steps = LARGER(0, SMALLER(run->steps, levels)), *pending = run->pending + run->start;
    int64_t height = synapses->in_height + 2 * synapses->padding;
    int64_t stride = synapses->in_width + 2 * synapses->padding + 3;
    int32_t *end = fours;
    empty(run, 0, sent);
    for (int64_t row = 0; row < synapses->kernel_height; row++)
        for (int64_t input = 0; input < synapses->in_channels; input++)
            for (int64_t column = 0; column < synapses->kernel_width; column += 4)
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
                encode_lanes(&from, channel, steps, corner, fours, end);
        }
        set_mark(&from);
        // A neuron that fires now did so one step before, which then was not its last.
        for (int64_t step = 0; step < steps; step++) {
            pending[step] -= sent->rises[step] - before[step];
            pending[step + 1] += sent->rises[step] - before[step];
        }
    }
    count_sent(run, 0, steps, sent);
    wait_for_rows(run, 0, layer->height);
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
                int16_t *last = run->team.last + neuron + __builtin_ctz(fresh);
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
    Number *kept = run->team.membranes + neuron;
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
INLINE void run_layer(const Run *run, int64_t index, Workspace *space) {
    const Layer *layer = run->layers + index;
    int64_t end = layer->inputs + layer->ways;
    uint32_t sent[layer->ways];
    for (int64_t way = 0; way < layer->ways; way++)
        sent[way] = sent_by(run, run->synapses[layer->inputs + way].source);
    empty(run, index, &space->sent);
    for (int64_t entry = layer->inputs * BLOCK; entry < end * BLOCK; entry++)
        space->came[entry] = 0;
    for (int64_t y; (y = take_row(run, index, layer->height)) >= 0; finish_row(run, index)) {
        Sender from = sender(run, index, y, &space->sent);
        for (int64_t x = 0; x < layer->width; x++, next_place(&from)) {
            set_mark(&from);
            uint32_t received = 0;
            for (int64_t way = layer->inputs; way < end; way++)
                received |= receive(run, run->synapses + way, sent[way - layer->inputs], y, x, space, received != 0,
                                    space->came + way * BLOCK);
            for (int64_t channel = 0; channel < layer->pitch; channel += LANES)
                fire(&from, channel, received, space->sums + channel);
        }
        set_mark(&from);
    }
    count_sent(run, index, run->steps, &space->sent);
    for (int64_t way = layer->inputs; way < end; way++)
        count_received(run, run->synapses + way, space->came + way * BLOCK);
    wait_for_rows(run, index, layer->height);
}

// How many neurons fired last in this step, counted from 1, as far as the image has been run.
static int64_t fired_last(const Run *run, int64_t step) {
    const Task *task = run->task;
    int64_t fired = 0;
    for (int64_t entry = 0; entry < task->members * task->depth; entry++)
        fired += run->team.pending[entry * (task->steps + 1) + step];
    return fired;
}

// The class scores after each step of the block, and whether it ends in silence: one more row, behind the last layer.
// logits: of this image, those of a step `images · classes` apart.
static void read_out(const Run *run, int64_t *logits) {
    const Task *task = run->task;
    const Layer *last = run->layers + task->depth - 1;
    const Spikes *from = spikes_of(run, task->depth - 1);
    int64_t end = run->start + run->steps;
    for (; take_row(run, task->depth, 1) >= 0; finish_row(run, task->depth)) {
        for (int64_t class = 0; class < task->class_pitch; class += CLASS_LANES) {
            const int32_t *weights = task->class_weights + class;
            Scores *scores = (Scores *)(run->team.scores + class), sums = run->start ? *scores : (Scores){0};
            for (int64_t step = 0; step < run->steps; step++) {
                for (int64_t y = 0; y < last->height; y++) {
                    const int32_t *row = from->first[step] + y * marks(last->width);
                    for (int32_t event = row[0]; event < row[last->width]; event++)
                        sums += *(const Scores *)(weights + from->events[step][event] * task->class_pitch);
                }
                int64_t *after = logits + (run->start + step) * task->images * task->classes + class;
                for (int64_t lane = 0; lane < SMALLER(CLASS_LANES, task->classes - class); lane++)
                    after[lane] = sums[lane];
            }
            *scores = sums;
        }
        if (!fired_last(run, end) && end > task->levels)
            *run->team.ended = end;
    }
    wait_for_rows(run, task->depth, 1);
}

// ---- Images --------------------------------------------------------------------------------------------------------

static void *take(char **room, int64_t bytes) {
    void *taken = *room;
    *room += (bytes + 63) / 64 * 64;
    return taken;
}

// Divide memory up, from the next cache line on, for what a team that has its slots shares, and return where it ends.
static char *share(const Task *task, char *room, Team *into) {
    int64_t kept = task->steps > BLOCK ? task->neurons : 0;
    room += -(uintptr_t)room % 64;
    into->taken = take(&room, (task->depth + 1) * sizeof(int64_t));
    into->done = take(&room, (task->depth + 1) * sizeof(int64_t));
    into->ended = take(&room, sizeof(int64_t));
    into->pending = take(&room, task->members * task->depth * (task->steps + 1) * sizeof(int64_t));
    into->membranes = take(&room, kept * sizeof(Number));
    into->last = take(&room, kept * sizeof(int16_t));
    into->scores = take(&room, task->class_pitch * sizeof(int32_t));
    into->arrived = take(&room, task->rate == 0 ? 0 : task->neurons * sizeof(int16_t));
    for (int64_t step = 0; step < SMALLER(BLOCK, task->steps); step++)
        for (int64_t slot = 0; slot < task->slots; slot++) {
            int64_t events = task->members * (task->event_room + LANES);
            into->between[slot].events[step] = take(&room, events * sizeof(int32_t));
            into->between[slot].first[step] = take(&room, task->mark_room * sizeof(int32_t));
        }
    return room;
}

// The same for a thread's workspace.
static char *divide(const Task *task, char *room, Workspace *into) {
    into->came = take(&room, task->ways * BLOCK * sizeof(int64_t));
    into->sent.effective = take(&room, task->ways * BLOCK * sizeof(Scores));
    into->image = take(&room, task->image_room);
    into->sums = take(&room, SMALLER(BLOCK, task->steps) * task->pitch_room * sizeof(Number));
    into->window = take(&room, task->window_room * sizeof(Number));
    into->values = take(&room, task->pitch_room * sizeof(Number));
    // Differences have a bit more, and are read and written in whole slices.
    into->planes = take(&room, (task->pitch_room / 256 + 1) * (PLANES + 2) * sizeof(Slice));
    into->differences = take(&room, (task->pitch_room / 256 + 1) * (PLANES + 2) * sizeof(Slice));
    for (int64_t step = 0; step < SMALLER(BLOCK, task->steps); step++)
        into->rows.rows[step] = take(&room, (task->row_room + LANES) * sizeof(int32_t));
    return room;
}

// Bytes that a team needs to work in.
EXPORT int64_t room_of(const Task *task) {
    Spikes slots[task->slots];
    Team team = {.between = slots};
    Workspace unused;
    char *start = (char *)64, *own = share(task, start, &team);
    return own - start + task->members * (divide(task, own, &unused) - own) + 64;
}

// Run an image, block after block, and return after how many steps it ended: the last one, or when all was silent.
INLINE int64_t run_image(Run *run, const uint8_t *image, Workspace *space, int64_t *logits) {
    const Task *task = run->task;
    for (run->start = 0; run->start < task->steps; run->start += run->steps) {
        run->steps = SMALLER(BLOCK, task->steps - run->start);
        encode(run, image, space);
        for (int64_t index = 1; index < task->depth; index++)
            run_layer(run, index, space);
        read_out(run, logits);
        if (*run->team.ended)
            return *run->team.ended;
    }
    return task->steps;
}

// Prepare a team's memory for an image, before its threads join.
EXPORT void begin(const Task *task, char *room) {
    Spikes slots[task->slots];
    Team team = {.between = slots};
    share(task, room, &team);
    for (int64_t layer = 0; layer <= task->depth; layer++)
        team.taken[layer] = team.done[layer] = 0;
    *team.ended = 0;
    for (int64_t entry = 0; entry < task->members * task->depth * (task->steps + 1); entry++)
        team.pending[entry] = 0;
    for (int64_t neuron = 0; neuron < task->neurons && task->steps > BLOCK; neuron++)
        team.last[neuron] = 0;
    for (int64_t neuron = 0; neuron < task->neurons && task->rate != 0; neuron++)
        ((int16_t *)team.arrived)[neuron] = 0;
}

// Run an image as a member of a team, whose first one says last what came of it. totals [steps, depth, TOTALS]: this
// thread's own, to which it adds; pending [depth, steps + 1]: neurons by the step of their last spike, likewise.
EXPORT void join(const Task *task, int64_t index, int64_t member, int64_t *totals, int64_t *pending, char *room) {
    int64_t entries = task->depth * (task->steps + 1), scores = task->images * task->classes, last = task->steps;
    int64_t pixels = task->synapses->in_channels * task->synapses->in_height * task->synapses->in_width;
    int64_t *logits = task->logits + index * task->classes;
    Spikes slots[task->slots];
    Team team = {.between = slots};
    Workspace space;
    char *own = share(task, room, &team), *end = divide(task, own, &space);
    if (member)
        divide(task, own + member * (end - own), &space);
    Run run = {.layers = task->layers, .synapses = task->synapses, .task = task, .team = team, .member = member,
               .sample = index, .totals = totals, .pending = team.pending + member * entries};
    run.counts = task->counts + index * task->neurons * (task->wide_counts ? 2 : 1);
    run.arrived = task->rate == 0 ? run.counts : team.arrived;
    int64_t ran = run_image(&run, task->pixels + index * pixels, &space, logits);
    if (member)
        return;
    // Scores stay as they are from silence on.
    for (int64_t step = ran; step < task->steps; step++)
        for (int64_t class = 0; class < task->classes; class++)
            logits[step * scores + class] = logits[(step - 1) * scores + class];
    while (last > 0 && !fired_last(&run, last))
        last--;
    last = LARGER(last, task->levels);
    task->settled_at[index] = last < task->steps ? last : 0;
    for (int64_t other = 0; other < task->members; other++)
        for (int64_t entry = 0; entry < entries; entry++)
            pending[entry] += team.pending[other * entries + entry];
}

// Run images of index *next … end − 1, taken one by one, as other threads do that call this with the same `next`.
EXPORT void simulate(const Task *task, int64_t end, int64_t *next, int64_t *totals, int64_t *pending, char *room) {
    for (int64_t index; (index = __atomic_fetch_add(next, 1, __ATOMIC_RELAXED)) < end;) {
        begin(task, room);
        join(task, index, 0, totals, pending, room);
    }
}
