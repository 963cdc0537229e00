/* The best of rows that a library proposed: canonical scores and their order, in one visit to each row. And the rows that first scores
   leave possible, in two visits to each score.

   refining.py builds this file where there is a compiler, and sets MOST_ROWS and MOST_DIMS; what it returns has the bits of what numpy does there. */

#include <float.h>
#include <stdint.h>
#include <string.h>

#define LANES 16     /* sums side by side: enough to wait for memory and not for additions */
#define AHEAD 6      /* rows fetched while one is added up */
#define LINE 16      /* floats of a cache line */
#define DIGITS 8     /* bytes of a key */
#define SCORE 4      /* of which those from here on are the score */
#define TOGETHER 32  /* scores of which mostly none is looked at alone */

static double product(const float *row, const double *query, int64_t dim) {
    double sums[LANES] = {0}, sum = 0;
    int64_t i = 0;
    for (; i + LANES <= dim; i += LANES)
        for (int lane = 0; lane < LANES; lane++)
            sums[lane] += (double)row[i + lane] * query[i + lane];
    for (; i < dim; i++)
        sum += (double)row[i] * query[i];
    for (int lane = 0; lane < LANES; lane++)
        sum += sums[lane];
    return sum;
}

/* The canonical score before it is rounded: the second half of the terms is added to the first until one is left (contract.py). */
static double sum_by_halving(const float *row, const double *query, int64_t dim) {
    double terms[MOST_DIMS];
    for (int64_t i = 0; i < dim; i++)
        terms[i] = (double)row[i] * query[i];
    while (dim > 1) {
        int64_t half = dim / 2;
        for (int64_t i = 0; i < half; i++)
            terms[i] += terms[dim - half + i];
        dim -= half;
    }
    return terms[0];
}

/* A number that sorts ascending as (score descending, row ascending): contract.order_keys. */
static uint64_t key_of(float score, int64_t row) {
    uint32_t bits;
    memcpy(&bits, &score, sizeof bits);
    uint32_t falling = bits >> 31 ? bits : ~bits & 0x7fffffffu;
    return (uint64_t)falling << 32 | (uint32_t)row;
}

static float score_of(uint64_t key) {
    uint32_t falling = (uint32_t)(key >> 32), bits = falling >> 31 ? falling : ~falling & 0x7fffffffu;
    float score;
    memcpy(&score, &bits, sizeof score);
    return score;
}

/* Sorts keys by their bytes from `digit` on, the last first, and says where they ended. A byte that all share costs nothing. */
static uint64_t *sorted_from(int first, uint64_t *keys, uint64_t *spare, int64_t count) {
    uint32_t counts[DIGITS][256];
    memset(counts[first], 0, sizeof counts[0] * (DIGITS - first));
    for (int64_t i = 0; i < count; i++)
        for (int digit = first; digit < DIGITS; digit++)
            counts[digit][keys[i] >> 8 * digit & 255]++;
    for (int digit = first; digit < DIGITS; digit++) {
        uint32_t *places = counts[digit], place = 0;
        if (places[keys[0] >> 8 * digit & 255] == count)
            continue;
        for (int value = 0; value < 256; value++) {
            uint32_t held = places[value];
            places[value] = place;
            place += held;
        }
        for (int64_t i = 0; i < count; i++)
            spare[places[keys[i] >> 8 * digit & 255]++] = keys[i];
        uint64_t *swapped = keys;
        keys = spare;
        spare = swapped;
    }
    return keys;
}

/* Sorts distinct keys, and says where they ended: by the scores alone, which seldom tie, and only then by all. */
static uint64_t *sorted(uint64_t *keys, uint64_t *spare, int64_t count) {
    uint64_t *order = sorted_from(SCORE, keys, spare, count);
    for (int64_t i = 1; i < count; i++)
        if (order[i] >> 8 * SCORE == order[i - 1] >> 8 * SCORE)
            return sorted_from(0, order, order == keys ? spare : keys, count);
    return order;
}

/* The best `k` of distinct `rows` (count >= k): best_rows (k,) and best_scores (k,) by falling score, ties by lower row.

   vectors  (size, dim)
   error    how far a product in float64 may be from the canonical sum
   returns  0; or -1, with nothing written, where a row is not one of `size`, k is not one of 1..count, or there are more rows or
            dimensions than it takes */
int best_of_rows(const float *vectors, int64_t size, int64_t dim, const int64_t *rows, int64_t count, const float *query, double error,
                 int64_t k, int64_t *best_rows, float *best_scores) {
    double wide[MOST_DIMS];
    uint64_t keys[MOST_ROWS], spare[MOST_ROWS];
    if (k < 1 || k > count || count > MOST_ROWS || dim > MOST_DIMS)
        return -1;
    for (int64_t i = 0; i < count; i++)
        if (rows[i] < 0 || rows[i] >= size)
            return -1;
    for (int64_t i = 0; i < dim; i++)
        wide[i] = query[i];
    for (int64_t i = 0; i < count + AHEAD; i++) {
        if (i < count)
            for (int64_t at = 0; at < dim; at += LINE)
                __builtin_prefetch(vectors + rows[i] * dim + at);
        if (i < AHEAD)
            continue;
        int64_t row = rows[i - AHEAD];
        double sum = product(vectors + row * dim, wide, dim);
        float score = (float)(sum - error);
        if (score != (float)(sum + error)) /* two float32 are as near */
            score = (float)sum_by_halving(vectors + row * dim, wide, dim);
        keys[i - AHEAD] = key_of(score == 0 ? 0.0f : score, row); /* no -0 */
    }
    const uint64_t *order = sorted(keys, spare, count);
    for (int64_t i = 0; i < k; i++) {
        best_rows[i] = (uint32_t)order[i];
        best_scores[i] = score_of(order[i]);
    }
    return 0;
}

/* The k-th largest (from 1) of `count` numbers, which are moved about. */
static float kth_largest(float *numbers, int64_t count, int64_t k) {
    int64_t low = 0, high = count - 1, wanted = k - 1;
    while (low < high) {
        float pivot = numbers[low + (high - low) / 2];
        int64_t i = low, j = high;
        while (i <= j) {
            while (numbers[i] > pivot)
                i++;
            while (numbers[j] < pivot)
                j--;
            if (i <= j) {
                float swapped = numbers[i];
                numbers[i++] = numbers[j];
                numbers[j--] = swapped;
            }
        }
        if (wanted <= j)
            high = j;
        else if (wanted >= i)
            low = i;
        else
            break;
    }
    return numbers[wanted];
}

/* The rows, rising, that may be among the best k of `count`: those whose upper bound is at least what k lower bounds reach, and not -inf.

   scaled   of each row the first score before it is scaled by t; -inf = left out; no NaN
   norms    a score is off by norm * share + least at most
   maxima   room for `groups`, 1..count; at least k unless k > count: the k-th largest of their maxima is what k lower bounds reach
   rows     room for `most`
   returns  how many rows; -1 where there are more than `most` */
int64_t rows_in_reach(const float *scaled, const float *norms, int64_t count, float t, float share, float least, int64_t k,
                      float *maxima, int64_t groups, int64_t *rows, int64_t most) {
    float reached = -FLT_MAX;
    if (k <= count) {
        for (int64_t start = 0; start + groups <= count; start += groups) {
            const float *part = scaled + start, *norm = norms + start;
            for (int64_t i = 0; i < groups; i++) {
                float half = norm[i] * share + least, lower = part[i] * t + half - 2 * half;
                maxima[i] = start && maxima[i] > lower ? maxima[i] : lower;
            }
        }
        float kth = kth_largest(maxima, groups, k);
        reached = kth > reached ? kth : reached;
    }
    int64_t found = 0;
    for (int64_t start = 0; start < count; start += TOGETHER) {
        int64_t end = start + TOGETHER < count ? start + TOGETHER : count;
        int any = 0;
        for (int64_t i = start; i < end; i++)
            any |= scaled[i] * t + (norms[i] * share + least) >= reached;
        if (!any)
            continue;
        for (int64_t i = start; i < end; i++) {
            if (scaled[i] * t + (norms[i] * share + least) < reached)
                continue;
            if (found == most)
                return -1;
            rows[found++] = i;
        }
    }
    return found;
}
