/* Loops over rows of a table that lie anywhere in memory: what torch's CPU ops cannot fuse or prefetch.
   Rows are `width` floats. Every number that is written belongs to one range [from, to) and is summed in a fixed order,
   so that ranges may be shared among threads in any way and the bits stay the same. */

#include <math.h>
#include <stdint.h>
#include <string.h>

#define AHEAD 8  /* rows between a prefetch and its use */
#define LANES 16 /* partial sums of a dot product, whatever the vector width of the machine */
#define INLINE static inline __attribute__((always_inline))

INLINE void prefetch(const void *row, int64_t bytes) {
    for (int64_t i = 0; i < bytes; i += 64) __builtin_prefetch((const char *)row + i, 0, 2);
}

INLINE void prefetch_to_write(void *row, int64_t bytes) {
    for (int64_t i = 0; i < bytes; i += 64) __builtin_prefetch((const char *)row + i, 1, 2);
}

INLINE float dot(const float *restrict x, const float *restrict y, int64_t width) {
    float part[LANES] = {0}, sum = 0;
    int64_t i = 0;
    for (; i + LANES <= width; i += LANES)
        for (int j = 0; j < LANES; j++) part[j] += x[i + j] * y[i + j];
    for (; i < width; i++) sum += x[i] * y[i];
    for (int step = LANES / 2; step; step /= 2)
        for (int j = 0; j < step; j++) part[j] += part[j + step];
    return sum + part[0];
}

/* out[r] = values[rows[r]] for r in [from, to), rows of so many bytes of any kind */
void memx_gather(const char *values, const int64_t *rows, char *out, int64_t from, int64_t to, int64_t bytes) {
    for (int64_t r = from; r < to; r++) {
        if (r + AHEAD < to) prefetch(values + rows[r + AHEAD] * bytes, bytes);
        memcpy(out + r * bytes, values + rows[r] * bytes, bytes);
    }
}

/* out[b, k] = <vectors[b], values[slots[b, k]]> for bags b in [from, to) */
void memx_dots(const float *vectors, const float *values, const int64_t *slots, float *out, int64_t from, int64_t to,
               int64_t kept, int64_t width) {
    const int64_t end = to * kept;
    for (int64_t b = from; b < to; b++)
        for (int64_t s = b * kept; s < (b + 1) * kept; s++) {
            if (s + AHEAD < end) prefetch(values + slots[s + AHEAD] * width, width * 4);
            out[s] = dot(vectors + b * width, values + slots[s] * width, width);
        }
}

/* table[slots[s]] += weights[s] * dout[s / kept] for all s < count in their order, columns [from, to) of each row */
void memx_scatter(const float *weights, const int64_t *slots, const float *dout, float *table, int64_t from, int64_t to,
                  int64_t count, int64_t kept, int64_t width) {
    for (int64_t s = 0; s < count; s++) {
        if (s + AHEAD < count) prefetch_to_write(table + slots[s + AHEAD] * width + from, (to - from) * 4);
        const float *restrict x = dout + s / kept * width, weight = weights[s];
        float *restrict row = table + slots[s] * width;
        for (int64_t i = from; i < to; i++) row[i] += weight * x[i];
    }
}

/* the backward of a product-key lookup, for lists l = p * heads + h in [from, to) of halves p and heads h:
   dquery[b, h, p] = sum over j of dscores[b, h, j] * keys[l, i], and dkeys[l, i] += dscores[b, h, j] * query[b, h, p],
   where i is slots[b, h, j] / n for the first half and its remainder for the second; in the order of b, then j */
void memx_lookup_backward(const float *dscores, const int64_t *slots, const float *query, const float *keys,
                          float *dquery, float *dkeys, int64_t from, int64_t to, int64_t tokens, int64_t heads,
                          int64_t kept, int64_t n, int64_t half) {
    for (int64_t l = from; l < to; l++) {
        const int64_t p = l / heads, h = l % heads;
        const float *list = keys + l * n * half;
        float *dlist = dkeys + l * n * half;
        for (int64_t b = 0; b < tokens; b++) {
            const int64_t at = (b * heads + h) * kept, place = ((b * heads + h) * 2 + p) * half;
            const float *restrict q = query + place;
            float *restrict dq = dquery + place;
            memset(dq, 0, half * sizeof *dq);
            for (int64_t j = at; j < at + kept; j++) {
                const int64_t i = p ? slots[j] % n : slots[j] / n;
                const float *restrict key = list + i * half, d = dscores[j];
                float *restrict dkey = dlist + i * half;
                for (int64_t x = 0; x < half; x++) dq[x] += d * key[x];
                for (int64_t x = 0; x < half; x++) dkey[x] += d * q[x];
            }
        }
    }
}

/* moments in bfloat16 are the upper half of a float32, rounded to nearest, ties to even */
INLINE float load(const void *moments, int half, int64_t i) {
    if (!half) return ((const float *)moments)[i];
    uint32_t bits = (uint32_t)((const uint16_t *)moments)[i] << 16;
    float x;
    memcpy(&x, &bits, 4);
    return x;
}

INLINE void store(void *moments, int half, int64_t i, float x) {
    if (!half) {
        ((float *)moments)[i] = x;
        return;
    }
    uint32_t bits;
    memcpy(&bits, &x, 4);
    bits = x == x ? (bits + 0x7fff + ((bits >> 16) & 1)) >> 16 : 0x7fc0;
    ((uint16_t *)moments)[i] = (uint16_t)bits;
}

struct adam {
    float *values;           /* [N, width] */
    void *momentum, *second; /* [N, width]; second [N] float32 if per_row */
    const int64_t *rows;     /* [U], distinct */
    const int64_t *starts;   /* [U + 1]: contributions of each row */
    const int64_t *bags;     /* [S] */
    const float *weights;    /* [S] */
    const float *dout;       /* [B, width] */
    const float *decays;     /* [2, U]: what is left of either moment since the row's last touch */
    const float *ahead;      /* [U]: learning rate, bias correction and coasting of the new step */
    const float *owed;       /* [U]: the same of what the last step's coasting was off by */
    int64_t touched, width;
    float new1, new2, eps, scale; /* new1, new2: 1 - beta, what a new gradient counts for in either moment */
    int32_t half, per_row;
};

INLINE void adam_rows(const struct adam *a, float *restrict g, int64_t from, int64_t to, int half, int per_row) {
    const int64_t width = a->width, bytes = width * (half ? 2 : 4);
    const float new1 = a->new1, new2 = a->new2, eps = a->eps;
    for (int64_t u = from; u < to; u++) {
        if (u + AHEAD < to) {
            const int64_t next = a->rows[u + AHEAD];
            prefetch_to_write(a->values + next * width, width * 4);
            prefetch_to_write((char *)a->momentum + next * bytes, bytes);
            if (!per_row) prefetch_to_write((char *)a->second + next * bytes, bytes);
        }
        memset(g, 0, width * sizeof *g);
        for (int64_t s = a->starts[u]; s < a->starts[u + 1]; s++) {
            const float *restrict dout = a->dout + a->bags[s] * width, weight = a->weights[s];
            for (int64_t i = 0; i < width; i++) g[i] += weight * dout[i];
        }
        for (int64_t i = 0; i < width; i++) g[i] *= a->scale;

        const float decay1 = a->decays[u], decay2 = a->decays[a->touched + u], ahead = a->ahead[u], owed = a->owed[u];
        float *restrict v = a->values + a->rows[u] * width;
        char *restrict m = (char *)a->momentum + a->rows[u] * bytes;
        if (per_row) {
            float *second = (float *)a->second + a->rows[u];
            const float before = *second, after = decay2 * before + new2 * (dot(g, g, width) / width);
            const float rate = ahead / (sqrtf(after) + eps), late = owed / (sqrtf(before) + eps);
            for (int64_t i = 0; i < width; i++) {
                const float old = load(m, half, i), new = decay1 * old + new1 * g[i];
                v[i] -= rate * new + late * old;
                store(m, half, i, new);
            }
            *second = after;
        } else {
            char *restrict second = (char *)a->second + a->rows[u] * bytes;
            for (int64_t i = 0; i < width; i++) {
                const float before = load(second, half, i), after = decay2 * before + new2 * g[i] * g[i];
                const float old = load(m, half, i), new = decay1 * old + new1 * g[i];
                v[i] -= ahead * new / (sqrtf(after) + eps) + owed * old / (sqrtf(before) + eps);
                store(second, half, i, after);
                store(m, half, i, new);
            }
        }
    }
}

/* one Adam step of the touched rows [from, to); gradient [width] is scratch of this call alone */
void memx_adam(const struct adam *a, float *gradient, int64_t from, int64_t to) {
    if (a->half && a->per_row) adam_rows(a, gradient, from, to, 1, 1);
    else if (a->half) adam_rows(a, gradient, from, to, 1, 0);
    else if (a->per_row) adam_rows(a, gradient, from, to, 0, 1);
    else adam_rows(a, gradient, from, to, 0, 0);
}
