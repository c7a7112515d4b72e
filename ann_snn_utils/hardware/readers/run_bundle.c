/* Recompute a bundle's golden outputs from its files alone: C99, integers only, no library but libc.
 *
 *     cc -std=c99 -O2 -o run_bundle run_bundle.c && ./run_bundle [folder]
 *
 * Every addition is checked against the width that layout.txt states. Exit code 0: all golden outputs are
 * reproduced, and .hex files say the same. 1: the first difference is printed. 2: the bundle cannot be read.
 */
#include <errno.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MOST_LAYERS 1024
#define MOST_SYNAPSES 4096
#define LARGEST ((size_t)1 << 31)
#define MOST_THRESHOLDS ((size_t)1 << 24)

/* A convolution from a layer, or from the images (source -1). */
typedef struct {
    int source, in[3], kernel[2], stride, padding, dilation, groups, weight_bits, gain_bytes;
    size_t inputs, fan_in;
    int8_t *weight;        /* [out channel][in channel of its group][kernel row][kernel column] */
    int64_t *gain;         /* [out channel] */
} Synapses;

typedef struct {
    int index, out[3], maximum, saturates, fraction, many;
    int threshold_bits, membrane_bits, membrane_bytes;
    int64_t most, lowest, carried;                 /* carried: counts that one of its spikes stands for */
    size_t size, frame;
    Synapses *synapses;
    int64_t *threshold;    /* [out channel][i], i = 0 ... most + 1: A + j * D for j = lowest + i */
    uint8_t *spikes, *membranes;                   /* golden, as in the files */
    int64_t *membrane, *count;
    int8_t *spike;
} Layer;

static const char *folder = ".";
static Layer layers[MOST_LAYERS];
static int depth;
static char other_words[80];     /* a .hex file that holds other words than its .bin file */

static void fail(const char *what, const char *which) {
    fprintf(stderr, "cannot check the bundle: %s: %s\n", which, what);
    exit(2);
}

/* Give value, which must fit a signed integer of that many bits. */
static int64_t held(int64_t value, int bits, const char *what, int layer) {
    int64_t end = (int64_t)1 << (bits - 1);
    if (value < -end || value >= end) {
        fprintf(stderr, "DIFFERENT: layer %d: %s %lld leaves its %d bits\n", layer, what, (long long)value, bits);
        exit(1);
    }
    return value;
}

/* Give a product, which must fit 62 bits. */
static int64_t product(int64_t a, int64_t b, int layer) {
    int64_t most = b == 0 ? INT64_MAX : INT64_MAX / 4 / (b < 0 ? -b : b);
    if (a <= most && a >= -most) return a * b;
    fprintf(stderr, "DIFFERENT: layer %d: %lld times %lld leaves 62 bits\n", layer, (long long)a, (long long)b);
    exit(1);
}

static size_t times(size_t a, size_t b) {
    if (a == 0 || b == 0 || a > LARGEST / b) fail("a size is 0 or more than a bundle holds", "layout.txt");
    return a * b;
}

static void *zeros(size_t number, size_t size) {
    void *memory = calloc(number, size);
    if (memory == NULL) fail("too little memory", "layout.txt");
    return memory;
}

static FILE *open_file(const char *name) {
    char path[4096];
    int length = snprintf(path, sizeof path, "%s/%s", folder, name);
    if (length < 0 || (size_t)length >= sizeof path) fail("its path is too long", name);
    FILE *file = fopen(path, "rb");
    if (file == NULL) fail(strerror(errno), name);
    return file;
}

/* Give the number of the next line of layout.txt, which must read "word number". */
static int64_t number(FILE *layout, const char *word, int64_t low, int64_t high) {
    char line[128], *end;
    size_t length = strlen(word);
    if (fgets(line, sizeof line, layout) == NULL || strncmp(line, word, length) != 0 || line[length] != ' ')
        fail("this word is missing where it is expected in layout.txt", word);
    errno = 0;
    long long value = strtoll(line + length + 1, &end, 10);
    if (errno != 0 || end == line + length + 1 || *end != '\n' || value < low || value > high)
        fail("its number in layout.txt is out of range", word);
    return value;
}

static int small(FILE *layout, const char *word, int low, int high) {
    return (int)number(layout, word, low, high);
}

static int byte_size(FILE *layout, const char *word, int low) {
    int size = small(layout, word, low, 8);
    if (size & (size - 1)) fail("is none of 1, 2, 4, 8 in layout.txt", word);
    return size;
}

/* Compare the words of a .hex file, one a line after a comment, with those of its .bin file. */
static void compare_words(const char *name, const uint8_t *data, size_t size, size_t word) {
    char line[512] = "", expected[17], hex[sizeof other_words];
    snprintf(hex, sizeof hex, "%.*shex", (int)strlen(name) - 3, name);
    FILE *file = open_file(hex);
    int same = fgets(line, sizeof line, file) != NULL;
    for (size_t at = 0; same && at < size; at += word) {
        for (size_t i = 0; i < word; i++) snprintf(expected + 2 * i, 3, "%02x", data[at + word - 1 - i]);
        same = fgets(line, sizeof line, file) != NULL && memcmp(line, expected, 2 * word) == 0;
        same = same && (line[2 * word] == '\n' || line[2 * word] == '\r');
    }
    if (!same || fgetc(file) != EOF) strcpy(other_words, hex);
    fclose(file);
}

/* Give the bytes of a file of exactly that many words of so many bytes. */
static uint8_t *read_file(size_t words, int bytes, const char *form, ...) {
    char name[64];
    size_t size = times(words, (size_t)bytes);
    va_list parts;
    va_start(parts, form);
    vsnprintf(name, sizeof name, form, parts);
    va_end(parts);
    FILE *file = open_file(name);
    uint8_t *data = zeros(size, 1);
    if (fread(data, 1, size, file) != size || fgetc(file) != EOF) fail("does not have the stated size", name);
    fclose(file);
    compare_words(name, data, size, (size_t)bytes);
    return data;
}

/* Give a little-endian two's complement integer. */
static int64_t integer(const uint8_t *data, size_t place, int bytes) {
    uint64_t value = 0;
    for (int i = 0; i < bytes; i++) value |= (uint64_t)data[place * (size_t)bytes + (size_t)i] << (8 * i);
    uint64_t sign = (uint64_t)1 << (8 * bytes - 1);
    if ((value & sign) == 0) return (int64_t)value;
    return -(int64_t)(sign - 1 - (value & (sign - 1))) - 1;
}

/* Give one of four 2-bit two's complement values of a byte, the first in the lowest bits. */
static int pair(const uint8_t *data, size_t place) {
    static const int value[4] = {0, 1, 2, -1};
    return value[data[place / 4] >> (2 * (place % 4)) & 3];
}

static void read_shape(FILE *layout, const char *const words[3], int *shape) {
    for (int i = 0; i < 3; i++) shape[i] = small(layout, words[i], 1, 65536);
}

static const char *const in_words[3] = {"in_channels", "in_rows", "in_columns"};
static const char *const out_words[3] = {"out_channels", "out_rows", "out_columns"};

static void read_kernel(FILE *layout, Synapses *one) {
    one->kernel[0] = small(layout, "kernel_rows", 1, 65536);
    one->kernel[1] = small(layout, "kernel_columns", 1, 65536);
    one->stride = small(layout, "stride", 1, 65536);
    one->padding = small(layout, "padding", 0, 65536);
    one->weight_bits = small(layout, "weight_bits", 2, 8);
}

/* What version 1 left out: it knew plain convolutions of the layer before only. */
static void read_source(FILE *layout, Synapses *one, int index) {
    one->source = small(layout, "source", index == 0 ? -1 : 0, index - 1);
    one->dilation = small(layout, "dilation", 1, 65536);
    one->groups = small(layout, "groups", 1, 65536);
    one->gain_bytes = byte_size(layout, "gain_bytes", 0);
}

/* Check the geometry of synapses, and read their weights and gains. */
static void load_synapses(Layer *layer, int number) {
    Synapses *one = &layer->synapses[number];
    char also[16] = "";
    if (number > 0) snprintf(also, sizeof also, "%d", number);
    if (layer->index > 0 && memcmp(one->in, layers[one->source].out, sizeof one->in) != 0) fail("its input is no output", "layer");
    for (int i = 0; i < 2; i++) {
        int64_t room = one->in[i + 1] + 2 * (int64_t)one->padding - (one->kernel[i] - 1) * (int64_t)one->dilation - 1;
        if (room < 0 || room / one->stride + 1 != layer->out[i + 1]) fail("its map is not its input's", out_words[i + 1]);
    }
    if (one->weight_bits != 2 && one->weight_bits != 8) fail("is neither 2 nor 8 in layout.txt", "weight_bits");
    if (one->in[0] % one->groups != 0 || layer->out[0] % one->groups != 0) fail("does not divide the channels", "groups");
    size_t channels = (size_t)layer->out[0];
    one->inputs = times(times((size_t)one->in[0], (size_t)one->in[1]), (size_t)one->in[2]);
    one->fan_in = times(times((size_t)(one->in[0] / one->groups), (size_t)one->kernel[0]), (size_t)one->kernel[1]);
    if (layer->maximum) {
        int window = one->kernel[0] < one->kernel[1] ? one->kernel[0] : one->kernel[1];
        if (one->in[0] != layer->out[0] || 2 * one->padding > window) fail("takes no maxima of its source", "maximum");
        return;
    }
    size_t weights = times(channels, one->fan_in);
    size_t words = one->weight_bits == 8 ? weights : (weights + 3) / 4;
    uint8_t *raw = read_file(words, 1, "network/layer%d_weight%s.bin", layer->index, also);
    one->weight = zeros(weights, 1);
    for (size_t i = 0; i < weights; i++) {
        int64_t value = one->weight_bits == 8 ? integer(raw, i, 1) : pair(raw, i);
        if (one->weight_bits == 2 && value == 2) fail("holds a pair that is none of -1, 0, +1", "a weight file");
        one->weight[i] = (int8_t)value;
    }
    free(raw);
    one->gain = zeros(channels, sizeof(int64_t));
    for (size_t o = 0; o < channels; o++) one->gain[o] = 1;
    if (one->gain_bytes == 0) return;
    raw = read_file(channels, one->gain_bytes, "network/layer%d_gain%s.bin", layer->index, also);
    /* Below 2^55, so that no product with a weight or a pixel overflows. */
    for (size_t o = 0; o < channels; o++) one->gain[o] = held(integer(raw, o, one->gain_bytes), 55, "gain", layer->index);
    free(raw);
}

static void load_layer(FILE *layout, Layer *layer, int index, int64_t version, int64_t amplitude) {
    Synapses first = {0};
    layer->index = small(layout, "layer", index, index);
    read_shape(layout, in_words, first.in);
    read_shape(layout, out_words, layer->out);
    read_kernel(layout, &first);
    layer->most = number(layout, "largest_count", 1, 65536);
    layer->saturates = small(layout, "saturates", 0, 1);
    layer->fraction = small(layout, "fraction_bits", 0, 61);
    int constant_bytes = byte_size(layout, "constant_bytes", 1);
    layer->threshold_bits = small(layout, "threshold_bits", 1, 62);
    layer->membrane_bits = small(layout, "membrane_bits", 1, 62);
    layer->membrane_bytes = byte_size(layout, "membrane_bytes", 1);
    first.source = index - 1, first.dilation = first.groups = layer->many = 1;
    if (version > 1) {
        layer->maximum = small(layout, "maximum", 0, 1);
        layer->lowest = number(layout, "lowest_count", -65536, 0);
        read_source(layout, &first, index);
        layer->many = 1 + small(layout, "more_synapses", 0, MOST_SYNAPSES);
        if (index == 0 && (layer->maximum || layer->lowest != 0 || layer->many > 1)) fail("layer 0 is no encoder", "layer");
    }
    layer->synapses = zeros((size_t)layer->many, sizeof(Synapses));
    layer->synapses[0] = first;
    for (int i = 1; i < layer->many; i++) {
        read_shape(layout, in_words, layer->synapses[i].in);
        read_kernel(layout, &layer->synapses[i]);
        read_source(layout, &layer->synapses[i], index);
    }
    for (int i = 0; i < layer->many; i++) load_synapses(layer, i);
    layer->carried = index == 0 ? amplitude : layer->maximum ? layers[first.source].carried : 1;
    size_t channels = (size_t)layer->out[0], levels = (size_t)layer->most + 2;
    layer->size = times(times(channels, (size_t)layer->out[1]), (size_t)layer->out[2]);
    layer->frame = (layer->size + 3) / 4;
    uint8_t *offset = read_file(channels, constant_bytes, "network/layer%d_offset.bin", index);
    uint8_t *step = read_file(channels, constant_bytes, "network/layer%d_step.bin", index);
    if (times(channels, levels) > MOST_THRESHOLDS) fail("is more than a bundle's layers count to", "largest_count");
    layer->threshold = zeros(channels * levels, sizeof(int64_t));
    for (size_t o = 0; o < channels; o++) {
        int64_t a = integer(offset, o, constant_bytes), d = held(integer(step, o, constant_bytes), 63, "D", index);
        int64_t value = layer->lowest == 0 ? a : held(a, 62, "A", index) + product(d, layer->lowest, index);
        for (size_t j = 0; j < levels; j++) {
            layer->threshold[o * levels + j] = held(value, layer->threshold_bits, "A + j*D", index);
            value += d;
        }
    }
    free(offset), free(step);
    layer->membrane = zeros(layer->size, sizeof(int64_t));
    layer->count = zeros(layer->size, sizeof(int64_t));
    layer->spike = zeros(layer->size, 1);
}

/* Find the place in the map that input place (row, column) reaches through place (ky, kx) of the kernel; -1: none. */
static int64_t reached(const Layer *layer, const Synapses *one, int64_t row, int64_t column, int64_t ky, int64_t kx) {
    int64_t y = row + one->padding - ky * one->dilation, x = column + one->padding - kx * one->dilation;
    if (y < 0 || y % one->stride != 0 || y / one->stride >= layer->out[1]) return -1;
    if (x < 0 || x % one->stride != 0 || x / one->stride >= layer->out[2]) return -1;
    return y / one->stride * layer->out[2] + x / one->stride;
}

/* Add the weights of one input, times its value, to every membrane that it reaches. */
static void add(Layer *layer, const Synapses *one, size_t place, int64_t value) {
    size_t map = (size_t)layer->out[1] * (size_t)layer->out[2], columns = (size_t)one->in[2];
    size_t area = (size_t)one->in[1] * columns, each = (size_t)(one->in[0] / one->groups);
    size_t channel = place / area, outputs = (size_t)(layer->out[0] / one->groups), first = channel / each * outputs;
    for (int ky = 0; ky < one->kernel[0]; ky++)
        for (int kx = 0; kx < one->kernel[1]; kx++) {
            int64_t at = reached(layer, one, (int64_t)(place % area / columns), (int64_t)(place % columns), ky, kx);
            if (at < 0) continue;
            size_t tap = (channel % each * (size_t)one->kernel[0] + (size_t)ky) * (size_t)one->kernel[1] + (size_t)kx;
            for (size_t o = first; o < first + outputs; o++) {
                int64_t *u = &layer->membrane[o * map + (size_t)at], weight = one->weight[o * one->fan_in + tap];
                *u = held(*u + product(weight * one->gain[o], value, layer->index), layer->membrane_bits, "U", layer->index);
            }
        }
}

/* Let the membranes be the largest counts in their windows. */
static void take_maxima(Layer *layer) {
    const Synapses *one = &layer->synapses[0];
    size_t map = (size_t)layer->out[1] * (size_t)layer->out[2], columns = (size_t)one->in[2];
    size_t area = (size_t)one->in[1] * columns;
    for (size_t i = 0; i < layer->size; i++) layer->membrane[i] = INT64_MIN;
    for (size_t place = 0; place < one->inputs; place++)
        for (int ky = 0; ky < one->kernel[0]; ky++)
            for (int kx = 0; kx < one->kernel[1]; kx++) {
                int64_t at = reached(layer, one, (int64_t)(place % area / columns), (int64_t)(place % columns), ky, kx);
                if (at < 0) continue;
                int64_t *u = &layer->membrane[place / area * map + (size_t)at], n = layers[one->source].count[place];
                if (n > *u) *u = n;
            }
}

static void fire(Layer *layer, int64_t step) {
    size_t map = (size_t)layer->out[1] * (size_t)layer->out[2], levels = (size_t)layer->most + 2;
    for (size_t i = 0; i < layer->size; i++) {
        const int64_t *threshold = layer->threshold + i / map * levels;
        int64_t n = layer->count[i] - layer->lowest;
        int room = 62 - layer->fraction;                 /* bits of U before the shift */
        int64_t u = held(layer->membrane[i], room, "U", layer->index) * ((int64_t)1 << layer->fraction);
        held(u, layer->threshold_bits, "U << f", layer->index);
        int spike = 0;
        if (layer->index == 0)
            spike = step <= layer->most && u >= threshold[step];
        else if (n < layer->most && u >= threshold[n + 1])
            spike = 1;
        else if (n > 0 && u < threshold[n])
            spike = -1;
        layer->spike[i] = (int8_t)spike;
        layer->count[i] += spike;
    }
}

static void same(int64_t found, int64_t golden, const char *what, size_t sample, int64_t step, int layer, size_t place) {
    if (found == golden) return;
    fprintf(stderr, "DIFFERENT: sample %lu, step %lld, layer %d %s, place %lu: %lld recomputed, %lld in the golden file\n",
            (unsigned long)sample, (long long)step, layer, what, (unsigned long)place, (long long)found, (long long)golden);
    exit(1);
}

int main(int argc, char **argv) {
    if (argc > 1) folder = argv[1];
    FILE *layout = open_file("layout.txt");
    int64_t version = number(layout, "bundle_version", 1, 2);
    size_t samples = (size_t)number(layout, "samples", 1, 10000000);
    int64_t steps = number(layout, "steps", 1, 65536), levels = number(layout, "levels", 1, 65536);
    int64_t amplitude = (int64_t)1 << number(layout, "amplitude_shift", 0, 16);
    size_t classes = (size_t)number(layout, "classes", 1, 65536);
    int score_bits = small(layout, "score_bits", 1, 62), score_bytes = byte_size(layout, "score_bytes", 1);
    int biased = version > 1 ? small(layout, "bias", 0, 1) : 0;
    depth = small(layout, "layers", 1, MOST_LAYERS);
    size_t frames = times(samples, (size_t)steps);
    for (int i = 0; i < depth; i++) {
        Layer *layer = &layers[i];
        load_layer(layout, layer, i, version, amplitude);
        layer->spikes = read_file(times(frames, layer->frame), 1, "golden/layer%d_spikes.bin", i);
        layer->membranes = read_file(times(samples, layer->size), layer->membrane_bytes, "golden/layer%d_membranes.bin", i);
    }
    if (fgetc(layout) != EOF) fail("goes on after its last layer", "layout.txt");
    fclose(layout);
    if (layers[0].most != levels) fail("is not the encoder's largest_count", "levels");
    Layer *last = &layers[depth - 1];
    size_t inputs = layers[0].synapses[0].inputs;
    static uint8_t *bias, *weight, *images, *scores, *predictions;
    if (biased) bias = read_file(classes, score_bytes, "network/bias.bin");
    weight = read_file(times(classes, last->size), 1, "network/classifier.bin");
    images = read_file(times(samples, inputs), 1, "vectors/images.bin");
    scores = read_file(times(frames, classes), score_bytes, "golden/scores.bin");
    predictions = read_file(frames, 4, "golden/predictions.bin");
    static int64_t *score;
    score = zeros(classes, sizeof(int64_t));

    for (size_t sample = 0; sample < samples; sample++) {
        for (size_t c = 0; c < classes; c++) score[c] = bias == NULL ? 0 : integer(bias, c, score_bytes);
        for (int i = 0; i < depth; i++) {
            memset(layers[i].membrane, 0, layers[i].size * sizeof(int64_t));
            memset(layers[i].count, 0, layers[i].size * sizeof(int64_t));
        }
        for (size_t i = 0; i < inputs; i++)
            if (images[sample * inputs + i] != 0) add(&layers[0], layers[0].synapses, i, images[sample * inputs + i]);
        for (int64_t step = 1; step <= steps; step++) {
            size_t frame = sample * (size_t)steps + (size_t)step - 1, best = 0;
            for (int i = 0; i < depth; i++) {
                Layer *layer = &layers[i];
                if (layer->maximum) take_maxima(layer);
                for (int s = 0; i > 0 && !layer->maximum && s < layer->many; s++) {
                    const Synapses *one = &layer->synapses[s];
                    const Layer *source = &layers[one->source];
                    for (size_t k = 0; k < one->inputs; k++)
                        if (source->spike[k] != 0) add(layer, one, k, source->spike[k] * source->carried);
                }
                fire(layer, step);
                for (size_t k = 0; k < layer->size; k++)
                    same(layer->spike[k], pair(layer->spikes + frame * layer->frame, k), "spikes", sample, step, i, k);
            }
            for (size_t k = 0; k < last->size; k++)
                for (size_t c = 0; last->spike[k] != 0 && c < classes; c++)
                    score[c] = held(score[c] + last->spike[k] * integer(weight, c * last->size + k, 1), score_bits,
                                    "a class score", depth);
            for (size_t c = 0; c < classes; c++) {
                same(score[c], integer(scores, frame * classes + c, score_bytes), "scores", sample, step, depth, c);
                if (score[c] > score[best]) best = c;
            }
            same((int64_t)best, integer(predictions, frame, 4), "prediction", sample, step, depth, 0);
        }
        for (int i = 0; i < depth; i++)
            for (size_t k = 0; k < layers[i].size; k++) {
                int64_t golden = integer(layers[i].membranes, sample * layers[i].size + k, layers[i].membrane_bytes);
                same(layers[i].membrane[k], golden, "membranes", sample, steps, i, k);
                if (layers[i].saturates && layers[i].count[k] - layers[i].lowest >= layers[i].most)
                    same(layers[i].count[k], layers[i].lowest + layers[i].most - 1, "count beyond its limit", sample, steps, i, k);
            }
    }
    if (other_words[0] != 0) return fprintf(stderr, "DIFFERENT: %s: not the words of its .bin file\n", other_words), 1;
    printf("OK: %lu samples, %lld steps: every spike, membrane, score and prediction is reproduced\n",
           (unsigned long)samples, (long long)steps);
    return 0;
}
