// The spiking network over time, one image after the other. What it does and how its arrays lie: see __init__.py.
//
// In C for the vectors of clang, which are plain values here: `a >= b` compares 32 lanes at once. Two functions name
// instructions that no operator stands for, and say in plain C what these do for processors without them: `list` and
// `add_products`. Nothing is called that these files do not hold, so they need no C library.

#include "encoder.h"
#include "spikes.h"
#include "sums.h"
#include "team.h"

// ---- Neurons -------------------------------------------------------------------------------------------------------

// LANES neurons each, side by side. channels: of the first ones.
typedef struct {
    int64_t channels[SIDE_BY_SIDE];
    Numbers membranes[SIDE_BY_SIDE], counts[SIDE_BY_SIDE];
    Fired fired[SIDE_BY_SIDE];
} Neurons;

// Move each count by one towards the number of thresholds that its membrane reaches: thresholds ascend, so U ≥ θ_{n+1}
// where that number is above n, and U < θ_n where it is below. A count is within the number of steps so far, so no more
// thresholds decide.
INLINE void move_towards_code(const Layer *layer, int64_t step, Neurons *neurons) {
    int64_t least = LARGER(layer->lowest, -step), most = SMALLER(layer->lowest + layer->levels, step);
    const Number *thresholds = (const Number *)layer->rising + least * layer->pitch;
    Numbers codes[SIDE_BY_SIDE];
    for (int one = 0; one < SIDE_BY_SIDE; one++)
        codes[one] = (Numbers){0} + (Number)least;
    for (int64_t level = least; level < most; level++) {
        thresholds += layer->pitch;
        for (int one = 0; one < SIDE_BY_SIDE; one++)
            codes[one] -= neurons->membranes[one] >= *(const Numbers *)(thresholds + neurons->channels[one]);
    }
    for (int one = 0; one < SIDE_BY_SIDE; one++) {
        Numbers over = codes[one] > neurons->counts[one], under = codes[one] < neurons->counts[one];
        neurons->counts[one] += under - over;
        neurons->fired[one].rises = bits_of(__builtin_convertvector(over, Answers));
        neurons->fired[one].falls = bits_of(__builtin_convertvector(under, Answers));
    }
}

// The same, neuron by neuron, for many thresholds and for those that differ for +1 and −1.
static Fired look_up(const Layer *layer, int64_t channel, Numbers membranes, Numbers *counts) {
    const Number *rising = (const Number *)layer->rising + channel, *falling = (const Number *)layer->falling + channel;
    Fired fired = {0, 0};
    for (int lane = 0; lane < LANES; lane++) {
        int64_t at = (*counts)[lane] * layer->pitch + lane;
        uint32_t rise = membranes[lane] >= rising[at + layer->pitch], fall = !rise && membranes[lane] < falling[at];
        (*counts)[lane] += (Number)rise - (Number)fall;
        fired.rises |= rise << lane;
        fired.falls |= fall << lane;
    }
    return fired;
}

// Run neighbouring neurons of a row of the map over the block, `number` times LANES of them; where fewer run side by
// side, the first ones stand for the rest, which is not kept. neuron: the first of them, in the row. at: among those
// whose sums were formed together. Returns the number of steps behind which nothing happens.
INLINE int64_t fire(const Run *run, int64_t index, int64_t y, int64_t neuron, int64_t at, int64_t number,
                    uint32_t received, const Workspace *space) {
    const Layer *layer = run->layers + index;
    const int64_t pitch = layer->pitch, next_sums = layer->abreast * pitch, next = words_of(layer);
    const int64_t kept = layer->first + y * layer->width * pitch + neuron;
    const Number *sums = space->sums + at;
    uint32_t *rises = space->rises + neuron / LANES, *falls = space->falls + neuron / LANES;
    int64_t from[SIDE_BY_SIDE];
    Neurons neurons;
    for (int one = 0; one < SIDE_BY_SIDE; one++) {
        from[one] = one < number ? one * LANES : 0;
        neurons.channels[one] = (at + from[one]) % pitch;
        neurons.membranes[one] = run->start ? *(const Numbers *)(run->team.membranes + kept + from[one]) : (Numbers){0};
        neurons.counts[one] = run->start ? counts_at(run, run->counts, kept + from[one]) : (Numbers){0};
    }
    // No earlier, as a neuron sends at most one spike a step.
    const int watched = run->start + run->steps >= layer->end;
    Answers ended = {0};
    // What the block before left to do is done in its first step; behind the last one in which something comes, neurons
    // only fire behind a spike.
    const int64_t last = 32 - __builtin_clz(received | 1);
    uint32_t moved = 0;
    int64_t step = 0;
    for (; step < last || (moved && step < run->steps); step++, rises += next, falls += next) {
        if (received && step < last)
            for (int one = 0; one < SIDE_BY_SIDE; one++)
                neurons.membranes[one] += *(const Numbers *)(sums + step * next_sums + from[one]);
        if (run->start + step < layer->compared)
            move_towards_code(layer, run->start + step + 1, &neurons);
        else
            for (int one = 0; one < SIDE_BY_SIDE; one++) {
                // A copy: what is pointed to cannot stay in registers.
                Numbers counts = neurons.counts[one];
                neurons.fired[one] = look_up(layer, neurons.channels[one], neurons.membranes[one], &counts);
                neurons.counts[one] = counts;
            }
        moved = 0;
        for (int one = 0; one < SIDE_BY_SIDE; one++) {
            moved |= neurons.fired[one].rises | neurons.fired[one].falls;
            if (watched)
                ended |= __builtin_convertvector(neurons.counts[one] >= (Number)layer->end, Answers);
            if (one < number) {
                rises[one] = neurons.fired[one].rises;
                falls[one] = neurons.fired[one].falls;
            }
        }
    }
    if (watched && bits_of(ended))
        totals_of(run, index, 0)[ENDED]++;
    for (int one = 0; one < SIDE_BY_SIDE && one < number; one++) {
        if (run->task->steps > BLOCK)
            *(Numbers *)(run->team.membranes + kept + from[one]) = neurons.membranes[one];
        set_counts(run, run->counts, kept + from[one], neurons.counts[one]);
    }
    return step;
}

// Run a hidden layer over the block: all steps of places `abreast` before the next ones.
INLINE void run_layer(const Run *run, int64_t index, Workspace *space) {
    const Layer *layer = run->layers + index;
    int64_t end = layer->inputs + layer->ways;
    // There is a first step; behind the last spike nothing comes any more.
    uint32_t sent[layer->ways], any = 1;
    for (int64_t way = 0; way < layer->ways; way++) {
        sent[way] = sent_by(run, run->synapses[layer->inputs + way].source);
        any |= sent[way];
    }
    int64_t steps = 32 - __builtin_clz(any);
    empty(run, index, &space->sent);
    int64_t rows = 0;
    for (int64_t y; (y = take_row(run, index, layer->height)) >= 0; rows++) {
        int64_t ran = 1;
        for (int64_t x = 0; x < layer->width; x += layer->abreast) {
            int64_t first = x * layer->pitch, neurons = SMALLER(layer->abreast, layer->width - x) * layer->pitch;
            uint32_t received = 0;
            for (int64_t way = layer->inputs; way < end; way++)
                received |= receive(run, run->synapses + way, steps, sent[way - layer->inputs], y, x, space,
                                    received != 0);
            for (int64_t at = 0; at < neurons; at += SIDE_BY_SIDE * LANES) {
                int64_t number = SMALLER(SIDE_BY_SIDE, (neurons - at) / LANES);
                int64_t last = fire(run, index, y, first + at, at, number, received, space);
                ran = LARGER(ran, last);
            }
        }
        send_row(run, index, y, ran, space);
    }
    count_sent(run, index, &space->sent);
    finish_rows(run, index, rows);
    wait_for_rows(run, index, layer->height);
}

// How many neurons fired last in this step, counted from 1, as far as the image has been run.
static int64_t fired_last(const Run *run, int64_t step) {
    const Task *task = run->task;
    int64_t fired = 0;
    for (int64_t entry = 0; entry < task->members * task->depth; entry++)
        fired += run->team.by_last[entry * (task->steps + 1) + step];
    return fired;
}

// The class scores after each step of the block, and whether it ends in silence: one more row, behind the last layer.
// logits: of this image, those of a step `images · classes` apart.
static void read_out(const Run *run, int64_t *logits) {
    const Task *task = run->task;
    const Layer *last = run->layers + task->depth - 1;
    const Spikes *from = spikes_of(run, task->depth - 1);
    int64_t end = run->start + run->steps;
    for (; take_row(run, task->depth, 1) >= 0; finish_rows(run, task->depth, 1)) {
        for (int64_t class = 0; class < task->class_pitch; class += CLASS_LANES) {
            const int32_t *weights = task->class_weights + class;
            Scores *scores = (Scores *)(run->team.scores + class), sums = run->start ? *scores : (Scores){0};
            for (int64_t step = 0; step < run->steps; step++) {
                for (int64_t y = 0; y < last->height; y++) {
                    const int32_t *row = marks_of(run, task->depth - 1, step, y);
                    for (int32_t event = row[0]; event < row[last->width]; event++)
                        sums += *(const Scores *)(weights + from->events[event] * task->class_pitch);
                }
                int64_t *after = logits + (run->start + step) * task->images * task->classes + class;
                for (int64_t lane = 0; lane < SMALLER(CLASS_LANES, task->classes - class); lane++)
                    after[lane] = sums[lane];
            }
            *scores = sums;
        }
        if (!fired_last(run, end) && end > task->levels)
            __atomic_store_n(run->team.ended, end, __ATOMIC_RELEASE);
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
    into->by_last = take(&room, task->members * task->depth * (task->steps + 1) * sizeof(int64_t));
    into->membranes = take(&room, kept * sizeof(Number));
    into->last = take(&room, kept * sizeof(int16_t));
    into->scores = take(&room, task->class_pitch * sizeof(int32_t));
    into->arrived = take(&room, task->rate == 0 ? 0 : task->neurons * sizeof(int16_t));
    for (int64_t slot = 0; slot < task->slots; slot++) {
        int64_t steps = SMALLER(BLOCK, task->steps), events = task->members * (task->event_room + LANES);
        into->between[slot].events = take(&room, steps * events * sizeof(int32_t));
        into->between[slot].marks = take(&room, steps * task->mark_room * sizeof(int32_t));
    }
    return room;
}

// The same for a thread's workspace.
static char *divide(const Task *task, char *room, Workspace *into) {
    into->totals = take(&room, task->steps * task->depth * TOTALS * sizeof(int64_t));
    into->sent.reached = take(&room, task->ways * BLOCK * sizeof(int64_t));
    into->sent.effective = take(&room, task->ways * BLOCK * sizeof(int64_t));
    into->image = take(&room, task->image_room);
    into->rises = take(&room, SMALLER(BLOCK, task->steps) * task->word_room * sizeof(uint32_t));
    into->falls = take(&room, SMALLER(BLOCK, task->steps) * task->word_room * sizeof(uint32_t));
    into->sums = take(&room, SMALLER(BLOCK, task->steps) * task->pitch_room * sizeof(Number));
    into->window = take(&room, task->window_room * sizeof(Number));
    into->values = take(&room, task->pitch_room * sizeof(Number));
    for (int64_t step = 0; step < SMALLER(BLOCK, task->steps); step++)
        into->rows.rows[step] = take(&room, (task->row_room + LANES) * sizeof(int32_t));
    return room;
}

// Pixels whose products the encoder adds in one instruction: its weights lie in groups of as many.
EXPORT int64_t group(void) {
    return GROUP;
}

// Bytes that a team needs to work in.
EXPORT int64_t room_of(const Task *task) {
    Spikes slots[task->slots];
    Team team = {.between = slots};
    Workspace unused;
    char *start = (char *)64, *own = share(task, start, &team);
    return own - start + task->members * (divide(task, own, &unused) - own) + 64;
}

// Find a member's memory in that of its team, which has its slots.
static Workspace workspace_of(const Task *task, int64_t member, char *room, Team *team) {
    Workspace space;
    char *first = share(task, room, team), *second = divide(task, first, &space);
    divide(task, first + member * (second - first), &space);
    return space;
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
        // Who is late may see here that others ended the image in a later block: it reads what they wrote until then.
        int64_t ended = __atomic_load_n(run->team.ended, __ATOMIC_ACQUIRE);
        if (ended)
            return ended;
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
        team.by_last[entry] = 0;
    for (int64_t neuron = 0; neuron < task->neurons && task->steps > BLOCK; neuron++)
        team.last[neuron] = 0;
    for (int64_t neuron = 0; neuron < task->neurons && task->rate != 0; neuron++)
        ((int16_t *)team.arrived)[neuron] = 0;
}

// Run an image as a member of a team, whose first one says last what came of it.
static void take_part(const Task *task, int64_t index, int64_t member, Team team, Workspace *space) {
    int64_t entries = task->depth * (task->steps + 1), scores = task->images * task->classes, last = task->steps;
    int64_t pixels = task->synapses->in_channels * task->synapses->in_height * task->synapses->in_width;
    int64_t *logits = task->logits + index * task->classes;
    Run run = {.layers = task->layers, .synapses = task->synapses, .task = task, .team = team, .member = member,
               .sample = task->first_sample + index, .totals = space->totals};
    run.by_last = team.by_last + member * entries;
    run.counts = task->counts + index * task->neurons * (task->wide_counts ? 2 : 1);
    run.arrived = task->rate == 0 ? run.counts : team.arrived;
    int64_t ran = run_image(&run, task->pixels + index * pixels, space, logits);
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
    for (int64_t layer = 0; layer < task->members * task->depth; layer++) {
        int64_t later = 0;
        for (int64_t step = task->steps; step > 0; step--) {
            space->totals[((step - 1) * task->depth + layer % task->depth) * TOTALS + PENDING] += later;
            later += team.by_last[layer * (task->steps + 1) + step];
        }
    }
}

// Begin with nothing: no totals, and no words.
static void empty_space(const Task *task, Workspace *space) {
    empty_words(space, SMALLER(BLOCK, task->steps) * task->word_room);
    for (int64_t entry = 0; entry < task->steps * task->depth * TOTALS; entry++)
        space->totals[entry] = 0;
}

// Add what this thread found to what all others do, in whatever order.
static void add_totals(const Task *task, const Workspace *space) {
    for (int64_t entry = 0; entry < task->steps * task->depth * TOTALS; entry++)
        __atomic_fetch_add(task->totals + entry, space->totals[entry], __ATOMIC_RELAXED);
}

// Run an image as a member of a team.
EXPORT void join(const Task *task, int64_t index, int64_t member, char *room, Call *call) {
    if (enter(call, member)) {
        Spikes slots[task->slots];
        Team team = {.between = slots};
        Workspace space = workspace_of(task, member, room, &team);
        empty_space(task, &space);
        take_part(task, index, member, team, &space);
        add_totals(task, &space);
    }
    leave(call, member);
}

// Run images of index *next … end − 1, taken one by one, as other threads do that call this with the same `next`.
EXPORT void simulate(const Task *task, int64_t end, int64_t *next, int64_t member, char *room, Call *call) {
    if (enter(call, member)) {
        Spikes slots[task->slots];
        Team team = {.between = slots};
        Workspace space = workspace_of(task, 0, room, &team);
        empty_space(task, &space);
        for (int64_t index; (index = __atomic_fetch_add(next, 1, __ATOMIC_RELAXED)) < end;) {
            begin(task, room);
            take_part(task, index, 0, team, &space);
        }
        add_totals(task, &space);
    }
    leave(call, member);
}
