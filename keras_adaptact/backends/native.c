/* What the kernels of all formulas share. `native.py` writes the formula's own part in place of FORMULA: `SUMS`,
   `VARIABLES`, `forward_chunk`, `backward_chunk` and `finish`; and appends native_BACKEND.c, which says how they are
   called.

   A tensor is gone over in chunks of a fixed size, each with sums of its own, added up in order: the result doesn't
   depend on the number of threads. NaN passes every clamp here, as each comparison with it is false. */

#include <math.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define CHUNK 16384 /* elements: z, gradient and result together stay in the second-level cache */

/* 2^n, written into the bits of a float from 23 on. */
static inline float power_of_two(float n) {
  uint32_t bits = (uint32_t)((int32_t)n + 127) << 23;
  float value;
  memcpy(&value, &bits, sizeof value);
  return value;
}

/* exp(r) - 1 for |r| <= ln(2) / 2: a minimax polynomial with a relative error of 2e-9. */
static inline float expm1_near_zero(float r) {
  float p = 0.00138436441f;
  p = p * r + 0.00837416338f;
  p = p * r + 0.0416680026f;
  p = p * r + 0.166664312f;
  p = p * r + 0.499999942f;
  p = p * r + 1.00000003f;
  return p * r;
}

/* x = n ln(2) + r, with ln(2) in two parts, of which the first times n is exact. */
#define SPLIT(x, n, r)                        \
  x = x < -87.0f ? -87.0f : x;                \
  x = x > 89.0f ? 89.0f : x;                  \
  const float n = rintf(x * 1.44269504f);     \
  const float r = (x - n * 0.693359375f) - n * -2.12194440e-4f

static inline float exp_of(float x) {
  SPLIT(x, n, r);
  return (expm1_near_zero(r) + 1.0f) * power_of_two(n - 1.0f) * 2.0f; /* 2^128 alone is infinite */
}

static inline float expm1_of(float x) {
  SPLIT(x, n, r);
  const float half = power_of_two(n - 1.0f);
  return (expm1_near_zero(r) * half + (half - 0.5f)) * 2.0f;
}

static inline float sigmoid_of(float x) { return 1.0f / (1.0f + exp_of(-x)); }

/* x P(x^2) / Q(x^2) up to 7.9, where tanh has reached 1 - 3e-7: a rational minimax fit (Lawson's iteration) with a
   relative error of 6e-9. From 9 on it is 1 to the bit, as its slope 1 - tanh^2 is 0 there, however large x. */
static inline float tanh_of(float x) {
  const float near = x < -7.9f ? -7.9f : x > 7.9f ? 7.9f : x;
  const float square = near * near;
  float p = 1.54279764e-08f, q = 8.59878306e-07f;
  p = p * square + 2.20232525e-05f;
  p = p * square + 0.00357899265f;
  p = p * square + 0.134506212f;
  p = p * square + 0.999999994f;
  q = q * square + 0.000342365145f;
  q = q * square + 0.0261922405f;
  q = q * square + 0.467839492f;
  q = q * square + 1.0f;
  return fabsf(x) >= 9.0f ? copysignf(1.0f, x) : near * p / q;
}

/* FORMULA */

typedef struct {
  const float *const *variables;
  const float *z, *gradient; /* gradient is NULL in the forward pass */
  float *result;
  double *sums; /* of each chunk */
  int64_t size;
} Pass;

static int64_t chunks_of(int64_t size) { return (size + CHUNK - 1) / CHUNK; }

static void run_chunk(const Pass *pass, int64_t chunk) {
  const int64_t at = chunk * CHUNK, size = pass->size - at < CHUNK ? pass->size - at : CHUNK;
  if (pass->gradient)
    backward_chunk(pass->variables, pass->z + at, pass->gradient + at, pass->result + at, pass->sums + chunk * SUMS,
                   size);
  else
    forward_chunk(pass->variables, pass->z + at, pass->result + at, size);
}

/* Gradients by the variables, of the sums of all chunks. */
static void add_up(const Pass *pass, float *const *by_variables) {
  double total[SUMS + 1] = {0};
  for (int64_t chunk = 0; chunk < chunks_of(pass->size); chunk++)
    for (int sum = 0; sum < SUMS; sum++) total[sum] += pass->sums[chunk * SUMS + sum];
  finish(pass->variables, total, by_variables);
}

/* A pass that several threads share: they take chunks until none are left. */
typedef struct {
  Pass pass;
  _Atomic int64_t next, done, users;
} Shared;

static inline void take_chunks(Shared *shared) {
  const int64_t chunks = chunks_of(shared->pass.size);
  for (int64_t chunk; (chunk = atomic_fetch_add(&shared->next, 1)) < chunks;) {
    run_chunk(&shared->pass, chunk);
    atomic_fetch_add(&shared->done, 1);
  }
}
