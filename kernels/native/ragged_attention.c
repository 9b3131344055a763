/* Attention of few queries over the keys and values that each head has, one head after another: a unit of work is SPAN
   keys of a pair (a sequence and a head), so that threads share long heads and short ones evenly. What units find is put
   together in the order of their keys, so that the bits do not depend on the threads. */

#include "scores.c"

#define SPAN 256  /* keys of a unit, as in ragged_attention.py */
#define PART 32   /* keys that stay in the first cache while all rows pass */
#define AT_ONCE 4 /* rows, and keys, that pass together */

struct ragged {
    const float *query;             /* [B, H, R, wide], scaled, 0 from `width` on: rows of a pair, its group's queries */
    const void *key, *value;        /* [S, width], [S, depth]: float32, bfloat16 or float16 */
    const int64_t *offsets, *first; /* [pairs + 1]: keys and units of the pairs before */
    const int32_t *positions, *own; /* [S], [B, Q]: keys after a query or out of its window do not count; or none */
    float *sums;                    /* [units, R, deep]: of e^(score - largest) times values */
    float *largest, *total;         /* [units, R] */
    float *output, *lse;            /* [pairs, R, depth], [pairs, R] */
    int64_t pairs, heads, rows, queries, width, wide, depth, deep, window; /* wide, deep: up to a multiple of 16 */
    int32_t kind;
};

enum { SINGLE, BRAIN, HALF }; /* float32, bfloat16, float16 */

typedef uint16_t shorts __attribute__((vector_size(2 * LANES), aligned(2)));

INLINE vec from_half(shorts x) {
#if LANES == 16
    return _mm512_cvtph_ps((__m256i)x);
#elif LANES == 8 && defined(__F16C__)
    return _mm256_cvtph_ps((__m128i)x);
#else
    const ivec bits = __builtin_convertvector(x, ivec), wide = (bits & 0x7fff) << 13;
    const vec finite = (vec)wide * 0x1p112f; /* the exponents differ by 112; right for subnormal numbers too */
    return (vec)((ivec)choose(wide >= 0x0f800000, (vec)(wide | 0x7f800000), finite) | (bits & 0x8000) << 16);
#endif
}

INLINE vec from_brain(shorts x) { return (vec)(__builtin_convertvector(x, ivec) << 16); }

/* rows [start, start + count) of keys or values as floats, `wide` apart, 0 behind their numbers; a copy if need be */
static const float *as_floats(const void *rows, int64_t start, int64_t count, int64_t width, int64_t wide, int kind,
                              float *scratch) {
    if (kind == SINGLE && width == wide) return (const float *)rows + start * width;
    for (int64_t t = 0; t < count; t++) {
        float *restrict out = scratch + t * wide;
        const int64_t at = (start + t) * width;
        int64_t x = 0;
        if (kind == SINGLE) memcpy(out, (const float *)rows + at, width * sizeof *out);
        else
            for (; x < width; x += LANES) {
                shorts part = {0};
                if (x + LANES <= width) part = *(const shorts *)((const uint16_t *)rows + at + x);
                else memcpy(&part, (const uint16_t *)rows + at + x, (width - x) * 2);
                store(out + x, kind == HALF ? from_half(part) : from_brain(part));
            }
        for (x = width; x < wide; x++) out[x] = 0;
    }
    return scratch;
}

INLINE float over_lanes(vec x) {
    float sum = 0;
    for (int j = 0; j < LANES; j++) sum += x[j];
    return sum;
}

/* the sum of the lanes of each of four vectors */
INLINE void four_sums(const vec x[AT_ONCE], float *sums) {
#if LANES == 8
    const __m256 pairs = _mm256_hadd_ps(_mm256_hadd_ps(x[0], x[1]), _mm256_hadd_ps(x[2], x[3]));
    _mm_storeu_ps(sums, _mm_add_ps(_mm256_castps256_ps128(pairs), _mm256_extractf128_ps(pairs, 1)));
#else
    for (int j = 0; j < AT_ONCE; j++) sums[j] = over_lanes(x[j]);
#endif
}

/* scores[r][t] of some rows and `count` keys, up to a multiple of AT_ONCE */
INLINE void some_scores(float *scores, const float *query, const float *key, int64_t count, int64_t wide, int rows) {
    for (int64_t t = 0; t < count; t += AT_ONCE) {
        const float *four[AT_ONCE];
        vec sums[AT_ONCE][AT_ONCE];
        for (int j = 0; j < AT_ONCE; j++) four[j] = key + (t + j < count ? t + j : count - 1) * wide;
        UNROLL for (int r = 0; r < rows; r++)
            UNROLL for (int j = 0; j < AT_ONCE; j++) sums[r][j] = all(0);
        for (int64_t x = 0; x < wide; x += LANES)
            UNROLL for (int r = 0; r < rows; r++) {
                const vec q = load(query + r * wide + x);
                UNROLL for (int j = 0; j < AT_ONCE; j++) sums[r][j] += q * load(four[j] + x);
            }
        UNROLL for (int r = 0; r < rows; r++) four_sums(sums[r], scores + r * SPAN + t);
    }
}

/* sums[r] += sum over keys of powers[r][t] times their values */
INLINE void some_values(float *sums, const float *powers, const float *value, int64_t count, int64_t deep, int rows) {
    for (int64_t x = 0; x < deep; x += 2 * LANES) {
        const int64_t next = x + LANES < deep ? LANES : 0; /* the last vector alone is summed twice, and written once */
        vec sum[AT_ONCE][2];
        UNROLL for (int r = 0; r < rows; r++) {
            sum[r][0] = load(sums + r * deep + x);
            sum[r][1] = load(sums + r * deep + x + next);
        }
        for (int64_t t = 0; t < count; t++) {
            const vec one = load(value + t * deep + x), two = load(value + t * deep + x + next);
            UNROLL for (int r = 0; r < rows; r++) {
                sum[r][0] += powers[r * SPAN + t] * one;
                sum[r][1] += powers[r * SPAN + t] * two;
            }
        }
        UNROLL for (int r = 0; r < rows; r++) {
            store(sums + r * deep + x + next, sum[r][1]);
            store(sums + r * deep + x, sum[r][0]);
        }
    }
}

static void scores_of(const struct ragged *a, float *scores, int64_t pair, const float *key, int64_t count) {
    const float *query = a->query + pair * a->rows * a->wide;
    int64_t r = 0;
    for (; r + 4 <= a->rows; r += 4) some_scores(scores + r * SPAN, query + r * a->wide, key, count, a->wide, 4);
    if (a->rows - r == 3) some_scores(scores + r * SPAN, query + r * a->wide, key, count, a->wide, 3);
    if (a->rows - r == 2) some_scores(scores + r * SPAN, query + r * a->wide, key, count, a->wide, 2);
    if (a->rows - r == 1) some_scores(scores + r * SPAN, query + r * a->wide, key, count, a->wide, 1);
}

static void values_of(const struct ragged *a, float *sums, const float *powers, const float *value, int64_t count) {
    int64_t r = 0;
    for (; r + 4 <= a->rows; r += 4) some_values(sums + r * a->deep, powers + r * SPAN, value, count, a->deep, 4);
    if (a->rows - r == 3) some_values(sums + r * a->deep, powers + r * SPAN, value, count, a->deep, 3);
    if (a->rows - r == 2) some_values(sums + r * a->deep, powers + r * SPAN, value, count, a->deep, 2);
    if (a->rows - r == 1) some_values(sums + r * a->deep, powers + r * SPAN, value, count, a->deep, 1);
}

/* scores of keys after a query, or out of its window, become -inf */
static void hide(const struct ragged *a, float *scores, int64_t pair, int64_t row, int64_t start, int64_t count) {
    const int64_t own = a->own[pair / a->heads * a->queries + row % a->queries];
    for (int64_t t = 0; t < count; t++) {
        const int64_t back = own - a->positions[start + t];
        if (back < 0 || (a->window && back >= a->window)) scores[t] = -INFINITY;
    }
}

/* scores -> e^(score - largest) */
static void exponentials(float *scores, int64_t count, float *largest, float *total) {
    vec high = all(-INFINITY), sum = all(0);
    for (int64_t t = count; t % LANES; t++) scores[t] = -INFINITY;
    for (int64_t t = 0; t < count; t += LANES) high = higher(load(scores + t), high);
    *largest = high[0];
    for (int j = 1; j < LANES; j++) *largest = high[j] > *largest ? high[j] : *largest;
    const vec shift = all(*largest == -INFINITY ? 0 : *largest); /* nothing is seen */
    for (int64_t t = 0; t < count; t += LANES) {
        const vec power = exponential(load(scores + t) - shift);
        store(scores + t, power);
        sum += power;
    }
    *total = over_lanes(sum);
}

static void unit_of(const struct ragged *a, int64_t unit, int64_t pair, float *scores, float *copy) {
    const int64_t start = a->offsets[pair] + (unit - a->first[pair]) * SPAN, left = a->offsets[pair + 1] - start;
    const int64_t count = left < SPAN ? left : SPAN, place = unit * a->rows;
    for (int64_t t = 0; t < count; t += PART) {
        const int64_t some = count - t < PART ? count - t : PART;
        scores_of(a, scores + t, pair, as_floats(a->key, start + t, some, a->width, a->wide, a->kind, copy), some);
    }
    for (int64_t r = 0; r < a->rows; r++) {
        if (a->positions) hide(a, scores + r * SPAN, pair, r, start, count);
        exponentials(scores + r * SPAN, count, a->largest + place + r, a->total + place + r);
    }
    float *sums = a->sums + place * a->deep;
    memset(sums, 0, a->rows * a->deep * sizeof *sums);
    for (int64_t t = 0; t < count; t += PART) {
        const int64_t some = count - t < PART ? count - t : PART;
        values_of(a, sums, scores + t, as_floats(a->value, start + t, some, a->depth, a->deep, a->kind, copy), some);
    }
}

/* what units [from, to) find; scratch [R * SPAN + PART * the larger of wide and deep] is this call's own */
void memx_ragged_units(const struct ragged *a, float *scratch, int64_t from, int64_t to) {
    int64_t pair = 0;
    for (int64_t unit = from; unit < to; unit++) {
        while (a->first[pair + 1] <= unit) pair++;
        unit_of(a, unit, pair, scratch, scratch + a->rows * SPAN);
    }
}

/* output and log-sum-exp of pairs [from, to), of what their units found */
void memx_ragged_output(const struct ragged *a, int64_t from, int64_t to) {
    for (int64_t place = from * a->rows; place < to * a->rows; place++) {
        const int64_t pair = place / a->rows, row = place % a->rows, begin = a->first[pair], end = a->first[pair + 1];
        float largest = -INFINITY, total = 0, *restrict out = a->output + place * a->depth;
        memset(out, 0, a->depth * sizeof *out);
        for (int64_t unit = begin; unit < end; unit++) {
            const float there = a->largest[unit * a->rows + row];
            largest = there > largest ? there : largest;
        }
        for (int64_t unit = begin; unit < end; unit++) {
            const int64_t at = unit * a->rows + row;
            const float share = a->largest[at] == -INFINITY ? 0 : expf(a->largest[at] - largest);
            const float *restrict sums = a->sums + at * a->deep;
            total += share * a->total[at];
            for (int64_t x = 0; x < a->depth; x++) out[x] += share * sums[x];
        }
        a->lse[place] = total == 0 ? -INFINITY : largest + logf(total);
        for (int64_t x = 0; total != 0 && x < a->depth; x++) out[x] /= total;
    }
}
