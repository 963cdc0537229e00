/* The pointwise passes of a training step: each reads and writes its memory once, where eager operations do so several times.

   compiled.py builds this file where there is a compiler, and says what every argument is. Rows are shared out among torch's own
   threads. What becomes of a row does not depend on the others; sums over rows are one partial sum a thread, which the caller adds up. */

#ifdef __AVX512F__
#pragma GCC target("prefer-vector-width=512")
#endif

#include <math.h>
#include <omp.h>
#include <stdint.h>
#include <stdlib.h>

#define FEW (1 << 14) /* numbers for which waking another thread takes longer than the work */
#define INLINE static inline __attribute__((always_inline))

typedef union {
    float real;
    uint32_t bits;
} word;

INLINE float wide(uint16_t value) {
    word found = {.bits = (uint32_t)value << 16};
    return found.real;
}

INLINE uint16_t narrow(float value) { /* to the nearest, ties to even */
    word given = {.real = value};
    return (uint16_t)((given.bits + 0x7fff + (given.bits >> 16 & 1)) >> 16);
}

INLINE float load(const void *from, int64_t at, int is_narrow) {
    return is_narrow ? wide(((const uint16_t *)from)[at]) : ((const float *)from)[at];
}

INLINE void store(void *to, int64_t at, float value, int is_narrow) {
    if (is_narrow)
        ((uint16_t *)to)[at] = narrow(value);
    else
        ((float *)to)[at] = value;
}

/* e^x for x <= 0 within 2 units in the last place, 0 below -87: 2^n e^f with |f| <= ln(2) / 2 (the polynomial of Cephes' expf). */
INLINE float exponential(float x) {
    float least = x < -87.0f ? -87.0f : x;
    float n = rintf(least * 1.44269504088896341f);
    float f = least - n * 0.693359375f + n * 2.12194440e-4f;
    float y = 1.9875691500e-4f;
    y = y * f + 1.3981999507e-3f;
    y = y * f + 8.3334519073e-3f;
    y = y * f + 4.1665795894e-2f;
    y = y * f + 1.6666665459e-1f;
    y = y * f + 5.0000001201e-1f;
    y = y * f * f + f + 1.0f;
    word power = {.bits = (uint32_t)((int32_t)n + 127) << 23};
    return x < -87.0f ? 0.0f : y * power.real;
}

INLINE void softmax_row(void *cells, int64_t columns, int64_t padded, const float *shift, int64_t own, float own_cell,
                        const uint8_t *hidden, float *loss, float share, float *bias_sum, float *memory, int is_narrow) {
    float own_logit = load(cells, own, is_narrow) + own_cell, largest = -INFINITY, sum = 0.0f;
    if (hidden) {
#pragma omp simd
        for (int64_t j = 0; j < columns; j++)
            memory[j] = hidden[j] ? -INFINITY : load(cells, j, is_narrow) + shift[j];
    } else {
#pragma omp simd
        for (int64_t j = 0; j < columns; j++)
            memory[j] = load(cells, j, is_narrow) + shift[j];
    }
    memory[own] = own_logit;
#pragma omp simd reduction(max : largest)
    for (int64_t j = 0; j < columns; j++)
        largest = memory[j] > largest ? memory[j] : largest;
#pragma omp simd reduction(+ : sum)
    for (int64_t j = 0; j < columns; j++) {
        memory[j] = exponential(memory[j] - largest);
        sum += memory[j];
    }
    float part = 1.0f / sum, own_share = memory[own] * part - 1.0f;
    if (bias_sum) {
#pragma omp simd
        for (int64_t j = 0; j < columns; j++) {
            float value = memory[j] * part;
            bias_sum[j] += share * value;
            store(cells, j, value, is_narrow);
        }
        bias_sum[own] -= share;
    } else {
#pragma omp simd
        for (int64_t j = 0; j < columns; j++)
            store(cells, j, memory[j] * part, is_narrow);
    }
    store(cells, own, own_share, is_narrow);
    for (int64_t j = columns; j < padded; j++)
        store(cells, j, 0.0f, is_narrow);
    *loss = largest + logf(sum) - own_logit;
}

/* Returns 0, or 1 where there was no memory for a row. */
int softmax_gradient(void *cells, int64_t rows, int64_t columns, int64_t padded, const float *shift, const int64_t *own,
                     const float *own_cell, const uint8_t *hidden, float *loss, const float *share, float *bias_sums, int is_narrow) {
    int failed = 0;
#pragma omp parallel reduction(| : failed) if (rows * columns > FEW)
    {
        float *memory = malloc(sizeof(float) * (size_t)columns);
        float *bias_sum = bias_sums ? bias_sums + omp_get_thread_num() * columns : NULL;
        failed = memory == NULL;
#pragma omp for schedule(static)
        for (int64_t i = 0; i < rows; i++) {
            if (failed)
                continue;
            char *row = (char *)cells + i * padded * (is_narrow ? 2 : 4);
            const uint8_t *cut = hidden ? hidden + i * columns : NULL;
            float part = bias_sum ? share[i] : 0.0f;
            if (is_narrow)
                softmax_row(row, columns, padded, shift, own[i], own_cell[i], cut, loss + i, part, bias_sum, memory, 1);
            else
                softmax_row(row, columns, padded, shift, own[i], own_cell[i], cut, loss + i, part, bias_sum, memory, 0);
        }
        free(memory);
    }
    return failed;
}

INLINE void learn(float *weight, float *sum, float gradient, float rate, float kept) {
    float squares = *sum + gradient * gradient;
    *sum = squares;
    *weight = *weight * kept - rate * gradient / sqrtf(squares);
}

void adagrad_rows(float *weights, float *sums, const int64_t *rows, const float *gradients, int64_t count, int64_t width, float rate,
                  float kept) {
#pragma omp parallel for schedule(static) if (count * width > FEW)
    for (int64_t i = 0; i < count; i++) {
        if (i + 8 < count) { /* rows lie far apart: what comes next is on its way while this one is worked on */
            for (int64_t j = 0; j < width; j += 16) {
                __builtin_prefetch(weights + rows[i + 8] * width + j, 1);
                __builtin_prefetch(sums + rows[i + 8] * width + j, 1);
            }
        }
        float *weight = weights + rows[i] * width, *sum = sums + rows[i] * width;
        const float *gradient = gradients + i * width;
#pragma omp simd
        for (int64_t j = 0; j < width; j++)
            learn(weight + j, sum + j, gradient[j], rate, kept);
    }
}

/* The same for all numbers of some layers, each told by four: where weights, sums and gradients lie, and how many they are. */
void adagrad(const int64_t *layers, int64_t count, float rate) {
    for (const int64_t *layer = layers; layer < layers + 4 * count; layer += 4) {
        float *weights = (float *)layer[0], *sums = (float *)layer[1];
        const float *gradients = (const float *)layer[2];
#pragma omp parallel for simd schedule(static) if (layer[3] > FEW)
        for (int64_t j = 0; j < layer[3]; j++)
            learn(weights + j, sums + j, gradients[j], rate, 1.0f);
    }
}

INLINE void bias_relu_row(void *row, const float *bias, int64_t width, int cuts, int is_narrow) {
#pragma omp simd
    for (int64_t j = 0; j < width; j++) {
        float value = load(row, j, is_narrow) + bias[j];
        store(row, j, cuts && value < 0.0f ? 0.0f : value, is_narrow);
    }
}

void add_bias(void *values, const float *bias, int64_t rows, int64_t width, int cuts, int is_narrow) {
#pragma omp parallel for schedule(static) if (rows * width > FEW)
    for (int64_t i = 0; i < rows; i++) {
        if (is_narrow)
            bias_relu_row((uint16_t *)values + i * width, bias, width, cuts, 1);
        else
            bias_relu_row((float *)values + i * width, bias, width, cuts, 0);
    }
}

INLINE void relu_row(void *gradient, const void *output, float *sum, int64_t width, int is_narrow) {
    if (!output) {
#pragma omp simd
        for (int64_t j = 0; j < width; j++)
            sum[j] += load(gradient, j, is_narrow);
        return;
    }
#pragma omp simd
    for (int64_t j = 0; j < width; j++) {
        float value = load(output, j, is_narrow) > 0.0f ? load(gradient, j, is_narrow) : 0.0f;
        store(gradient, j, value, is_narrow);
        sum[j] += value;
    }
}

/* outputs may be NULL: then nothing becomes 0, and the sums alone are made. Returns 0, or 1 where there was no memory for them. */
int relu_backward(void *gradients, const void *outputs, float *sums, int64_t rows, int64_t width, int is_narrow) {
    int team = 1;
    float *parts = calloc((size_t)(omp_get_max_threads() * width), sizeof(float));
    if (!parts)
        return 1;
#pragma omp parallel if (rows * width > FEW)
    {
        float *sum = parts + omp_get_thread_num() * width;
#pragma omp single nowait
        team = omp_get_num_threads();
#pragma omp for schedule(static)
        for (int64_t i = 0; i < rows; i++) {
            const char *output = outputs ? (const char *)outputs + i * width * (is_narrow ? 2 : 4) : NULL;
            if (is_narrow)
                relu_row((uint16_t *)gradients + i * width, output, sum, width, 1);
            else
                relu_row((float *)gradients + i * width, output, sum, width, 0);
        }
    }
    for (int64_t j = 0; j < width; j++) { /* in the order of the threads, so always the same */
        sums[j] = parts[j];
        for (int other = 1; other < team; other++)
            sums[j] += parts[other * width + j];
    }
    free(parts);
    return 0;
}

INLINE void normalise_row(const void *value, const float *addend, float *unit, float *length, int64_t width, float floor, int is_narrow) {
    float squares = 0.0f;
#pragma omp simd reduction(+ : squares)
    for (int64_t j = 0; j < width; j++) {
        float sum = load(value, j, is_narrow) + (addend ? addend[j] : 0.0f);
        unit[j] = sum;
        squares += sum * sum;
    }
    *length = sqrtf(squares);
    float by = 1.0f / (*length < floor ? floor : *length);
#pragma omp simd
    for (int64_t j = 0; j < width; j++)
        unit[j] *= by;
}

/* addends may be NULL */
void normalise(const void *values, const float *addends, float *units, float *lengths, int64_t rows, int64_t width, float floor,
               int is_narrow) {
#pragma omp parallel for schedule(static) if (rows * width > FEW)
    for (int64_t i = 0; i < rows; i++) {
        const float *addend = addends ? addends + i * width : NULL;
        if (is_narrow)
            normalise_row((const uint16_t *)values + i * width, addend, units + i * width, lengths + i, width, floor, 1);
        else
            normalise_row((const float *)values + i * width, addend, units + i * width, lengths + i, width, floor, 0);
    }
}

INLINE void normalise_row_backward(const float *gradient, const float *unit, float length, void *of_value, float *of_addend, int64_t width,
                                   float floor, int is_narrow) {
    float along = 0.0f, by = 1.0f / (length < floor ? floor : length);
    if (length >= floor) {
#pragma omp simd reduction(+ : along)
        for (int64_t j = 0; j < width; j++)
            along += gradient[j] * unit[j];
    }
#pragma omp simd
    for (int64_t j = 0; j < width; j++) {
        float found = (gradient[j] - along * unit[j]) * by;
        store(of_value, j, found, is_narrow);
        if (of_addend)
            of_addend[j] = found;
    }
}

/* of_addends may be NULL */
void normalise_backward(const float *gradients, const float *units, const float *lengths, void *of_values, float *of_addends, int64_t rows,
                        int64_t width, float floor, int is_narrow) {
#pragma omp parallel for schedule(static) if (rows * width > FEW)
    for (int64_t i = 0; i < rows; i++) {
        const float *gradient = gradients + i * width, *unit = units + i * width;
        float *of_addend = of_addends ? of_addends + i * width : NULL;
        if (is_narrow)
            normalise_row_backward(gradient, unit, lengths[i], (uint16_t *)of_values + i * width, of_addend, width, floor, 1);
        else
            normalise_row_backward(gradient, unit, lengths[i], (float *)of_values + i * width, of_addend, width, floor, 0);
    }
}

#define CHUNK 64 /* columns whose sums stay in registers */

/* The weighted sum of some columns of the rows that values[start..end) name; what rows up to `last` name is fetched ahead. `numbers` NULL:
   values are the rows; else they are places in `numbers`, which are. */
INLINE void add_up(const void *from, int64_t stride, int64_t column, const int64_t *numbers, const int32_t *values, const float *weights,
                   int64_t start, int64_t end, int64_t last, float *sums, int64_t width, int from_narrow) {
    for (int64_t k = 0; k < width; k++)
        sums[k] = 0.0f;
    for (int64_t j = start; j < end; j++) {
        int64_t at = numbers ? numbers[values[j]] : values[j];
        const char *row = (const char *)from + (at * stride + column) * (from_narrow ? 2 : 4);
        if (j + 12 < last) {
            int64_t next = numbers ? numbers[values[j + 12]] : values[j + 12];
            const char *coming = (const char *)from + (next * stride + column) * (from_narrow ? 2 : 4);
            for (int64_t byte = 0; byte < width * (from_narrow ? 2 : 4); byte += 64)
                __builtin_prefetch(coming + byte);
        }
        float weight = weights ? weights[j] : 1.0f;
#pragma omp simd
        for (int64_t k = 0; k < width; k++)
            sums[k] += weight * load(row, k, from_narrow);
    }
}

INLINE void sum_chunk(const void *from, int64_t stride, int64_t column, const int64_t *numbers, const int32_t *values,
                      const float *weights, int64_t start, int64_t end, int64_t last, void *to, int64_t width, int from_narrow,
                      int to_narrow) {
    float sums[CHUNK];
    add_up(from, stride, column, numbers, values, weights, start, end, last, sums, width, from_narrow);
#pragma omp simd
    for (int64_t k = 0; k < width; k++)
        store(to, column + k, sums[k], to_narrow);
}

INLINE void sum_rows_of(const void *from, int64_t from_stride, const int64_t *numbers, const int32_t *values, const int32_t *offsets,
                        const float *weights, int64_t count, int64_t width, void *to, int64_t to_stride, int from_narrow, int to_narrow) {
    int64_t last = offsets ? offsets[count] : count;
#pragma omp parallel for schedule(static) if (last * width > FEW)
    for (int64_t i = 0; i < count; i++) {
        int64_t start = offsets ? offsets[i] : i, end = offsets ? offsets[i + 1] : i + 1;
        char *row = (char *)to + i * to_stride * (to_narrow ? 2 : 4);
        int64_t column = 0;
        for (; column + CHUNK <= width; column += CHUNK)
            sum_chunk(from, from_stride, column, numbers, values, weights, start, end, last, row, CHUNK, from_narrow, to_narrow);
        if (column < width)
            sum_chunk(from, from_stride, column, numbers, values, weights, start, end, last, row, width - column, from_narrow, to_narrow);
    }
}

void sum_rows(const void *from, int64_t from_stride, const int32_t *values, const int32_t *offsets, const float *weights, int64_t count,
              int64_t width, void *to, int64_t to_stride, int from_narrow, int to_narrow) {
    if (from_narrow && to_narrow)
        sum_rows_of(from, from_stride, NULL, values, offsets, weights, count, width, to, to_stride, 1, 1);
    else if (from_narrow)
        sum_rows_of(from, from_stride, NULL, values, offsets, weights, count, width, to, to_stride, 1, 0);
    else if (to_narrow)
        sum_rows_of(from, from_stride, NULL, values, offsets, weights, count, width, to, to_stride, 0, 1);
    else
        sum_rows_of(from, from_stride, NULL, values, offsets, weights, count, width, to, to_stride, 0, 0);
}

/* The same of a table's rows where they lie: values are places in `rows`. */
void sum_table_rows(const float *table, const int64_t *rows, const int32_t *values, const int32_t *offsets, const float *weights,
                    int64_t count, int64_t width, void *to, int64_t to_stride, int to_narrow) {
    if (to_narrow)
        sum_rows_of(table, width, rows, values, offsets, weights, count, width, to, to_stride, 0, 1);
    else
        sum_rows_of(table, width, rows, values, offsets, weights, count, width, to, to_stride, 0, 0);
}

/* A sum of gradients and the step it asks for, before either has left the registers. */
INLINE void learn_chunk(float *weight, float *sum, const void *from, int64_t stride, int64_t column, const int32_t *values,
                        const float *weights, int64_t start, int64_t end, int64_t last, int64_t width, float rate, float kept,
                        int from_narrow) {
    float gradient[CHUNK];
    add_up(from, stride, column, NULL, values, weights, start, end, last, gradient, width, from_narrow);
#pragma omp simd
    for (int64_t k = 0; k < width; k++)
        learn(weight + column + k, sum + column + k, gradient[k], rate, kept);
}

/* adagrad_rows by the gradients that sum_rows makes of bags, one of each of the `rows`. Popular rows have long bags and lie together, so
   threads take turns of a few rows. */
void adagrad_bags(float *table, float *sums, const int64_t *rows, const void *from, int64_t from_stride, const int32_t *values,
                  const int32_t *offsets, const float *weights, int64_t count, int64_t width, float rate, float kept, int from_narrow) {
    int64_t last = offsets[count];
#pragma omp parallel for schedule(static, 64) if (last * width > FEW)
    for (int64_t i = 0; i < count; i++) {
        if (i + 8 < count) {
            for (int64_t k = 0; k < width; k += 16) {
                __builtin_prefetch(table + rows[i + 8] * width + k, 1);
                __builtin_prefetch(sums + rows[i + 8] * width + k, 1);
            }
        }
        float *weight = table + rows[i] * width, *sum = sums + rows[i] * width;
        int64_t start = offsets[i], end = offsets[i + 1], column = 0;
        for (; column + CHUNK <= width; column += CHUNK) {
            if (from_narrow)
                learn_chunk(weight, sum, from, from_stride, column, values, weights, start, end, last, CHUNK, rate, kept, 1);
            else
                learn_chunk(weight, sum, from, from_stride, column, values, weights, start, end, last, CHUNK, rate, kept, 0);
        }
        if (column < width && from_narrow)
            learn_chunk(weight, sum, from, from_stride, column, values, weights, start, end, last, width - column, rate, kept, 1);
        else if (column < width)
            learn_chunk(weight, sum, from, from_stride, column, values, weights, start, end, last, width - column, rate, kept, 0);
    }
}

/* to[values[i]] += from[i]. Each thread adds to the rows that are its own, so the order of a sum is always the same. */
void add_rows(const void *from, int64_t from_stride, const int32_t *values, int64_t count, int64_t width, float *to, int from_narrow) {
#pragma omp parallel if (count * width > FEW)
    {
        uint32_t threads = (uint32_t)omp_get_num_threads(), mine = (uint32_t)omp_get_thread_num();
        for (int64_t i = 0; i < count; i++) {
            if ((uint32_t)values[i] % threads != mine)
                continue;
            float *row = to + values[i] * width;
            const char *source = (const char *)from + i * from_stride * (from_narrow ? 2 : 4);
            if (from_narrow) {
#pragma omp simd
                for (int64_t k = 0; k < width; k++)
                    row[k] += load(source, k, 1);
            } else {
#pragma omp simd
                for (int64_t k = 0; k < width; k++)
                    row[k] += load(source, k, 0);
            }
        }
    }
}

void gather_rows(const float *table, const int64_t *rows, int64_t count, int64_t width, float *taken) {
#pragma omp parallel for schedule(static) if (count * width > FEW)
    for (int64_t i = 0; i < count; i++) {
        if (i + 12 < count)
            for (int64_t k = 0; k < width; k += 16)
                __builtin_prefetch(table + rows[i + 12] * width + k);
#pragma omp simd
        for (int64_t k = 0; k < width; k++)
            taken[i * width + k] = table[rows[i] * width + k];
    }
}

/* --- batches: no floating point, so what comes out is what numpy makes, entry by entry --- */

/* Numbers the values in [0, size) that occur, rising: `distinct` gets them, `local` their numbers. Returns how many there are, -1 where a
   value lies outside, -2 where there was no memory. */
static int64_t compact(const int32_t *values, int64_t count, int64_t size, int64_t *distinct, int32_t *local) {
    int64_t found = 0;
    uint8_t *present = calloc((size_t)size + 8, 1);
    int32_t *place = malloc(sizeof(int32_t) * ((size_t)size + 1));
    if (!present || !place) {
        found = -2;
    } else {
        for (int64_t i = 0; i < count; i++) {
            if ((uint64_t)(int64_t)values[i] >= (uint64_t)size) {
                found = -1;
                break;
            }
            present[values[i]] = 1;
        }
    }
    if (found == 0) {
        for (int64_t start = 0; start < size; start += 8) {
            uint64_t eight;
            __builtin_memcpy(&eight, present + start, 8);
            if (!eight)
                continue;
            for (int64_t row = start; row < start + 8; row++) {
                place[row < size ? row : size] = (int32_t)found;
                distinct[found] = row; /* kept only where the next line moves on */
                found += present[row];
            }
        }
        for (int64_t i = 0; i < count; i++)
            local[i] = place[values[i]];
    }
    free(place);
    free(present);
    return found;
}

/* Copies the bags at `rows` one after the other; the caller has laid their offsets. */
static void take_bags(const int32_t *values, const float *weights, const int64_t *starts, const int64_t *offsets, int64_t count,
               int32_t *taken_values, float *taken_weights) {
    for (int64_t i = 0; i < count; i++) {
        if (i + 8 < count) {
            __builtin_prefetch(values + starts[i + 8]);
            __builtin_prefetch(weights + starts[i + 8]);
        }
        const int32_t *value = values + starts[i] - offsets[i];
        const float *weight = weights + starts[i] - offsets[i];
        for (int64_t j = offsets[i]; j < offsets[i + 1]; j++) {
            taken_values[j] = value[j];
            taken_weights[j] = weight[j];
        }
    }
}

/* The same weights by value: of each of `size` values the bags that hold it, rising. `by_value` has size + 1 places. */
static void transpose_bags(const int32_t *values, const float *weights, const int64_t *offsets, int64_t count, int64_t size, int64_t *by_value,
                    int32_t *bags, float *of_bags) {
    for (int64_t value = 0; value <= size; value++)
        by_value[value] = 0;
    for (int64_t j = offsets[0]; j < offsets[count]; j++)
        by_value[values[j] + 1]++;
    for (int64_t value = 0; value < size; value++)
        by_value[value + 1] += by_value[value];
    for (int64_t i = 0; i < count; i++) {
        for (int64_t j = offsets[i]; j < offsets[i + 1]; j++) {
            int64_t at = by_value[values[j]]++;
            bags[at] = (int32_t)i;
            of_bags[at] = weights[j];
        }
    }
    for (int64_t value = size; value > 0; value--)
        by_value[value] = by_value[value - 1];
    by_value[0] = 0;
}

/* A batch's features, each described by a line of `parts`: where its column lies and the arrays to fill, and in the end how many rows of
   its table occur, or what `compact` says instead. Features of ids have neither WEIGHTS nor what follows from them: VALUES are the entries.
   */
enum { VALUES, WEIGHTS, STARTS, OFFSETS, COUNT, SIZE, LOCAL, TAKEN_WEIGHTS, DISTINCT, BY_VALUE, BAGS, OF_BAGS, FOUND, NUMBERS };

static void localise_one(int64_t *part) {
    const int32_t *values = (const int32_t *)part[VALUES];
    const int64_t *offsets = (const int64_t *)part[OFFSETS];
    int32_t *local = (int32_t *)part[LOCAL];
    float *weights = (float *)part[TAKEN_WEIGHTS];
    int64_t count = part[COUNT], total = offsets ? offsets[count] : count;
    if (offsets) {
        take_bags(values, (const float *)part[WEIGHTS], (const int64_t *)part[STARTS], offsets, count, local, weights);
        values = local; /* numbered where they are */
    }
    part[FOUND] = compact(values, total, part[SIZE], (int64_t *)part[DISTINCT], local);
    if (offsets && part[FOUND] >= 0)
        transpose_bags(local, weights, offsets, count, part[FOUND], (int64_t *)part[BY_VALUE], (int32_t *)part[BAGS], (float *)part[OF_BAGS]);
}

void localise(int64_t *parts, int64_t count, int shares_out) {
#pragma omp parallel for schedule(dynamic, 1) if (shares_out)
    for (int64_t i = 0; i < count; i++)
        localise_one(parts + i * NUMBERS);
}
