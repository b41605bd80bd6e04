/* The kernels of a formula, whatever the backend: `native.py` writes native_math.h in place of MATH and the formula's
   own part, named at the end of this comment, in place of FORMULA; and appends native_BACKEND.c, which says how they
   are called.

   A tensor is (outer, channels, inner) elements, with parameters for each channel, where inner is 1 if CHANNELS is
   LAST; or, if it is NONE, `outer` elements with one set of parameters. It is gone over in blocks of a fixed size, each
   with sums of its own, which are added up in order: the result doesn't depend on the number of threads.

   A formula gives SUMS, FIXED and VARIABLES, how many sums, values of the parameters alone, and variables it has; `fix`,
   which computes the second for a channel; `finish`, which makes gradients of sums; and loops over elements with one
   set of parameters (`_segment`), or over channels (`_lanes`). */

#include <math.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define CHUNK 16384 /* elements: z, gradient and result together stay in the second-level cache */
#define AHEAD 8     /* rows or strips: how early memory is asked for those to come */
#define LANES 128   /* elements or channels side by side: their sums and parameters stay in the first-level cache */
#define ROWS 128    /* rows, of channels or of CHUNK, that are summed in single precision, at most */
#define SUM(number) sums[(number) * LANES + i] /* of a loop's element i: one that all share would wait for the others */

#define INLINE static inline __attribute__((always_inline))
#define PRAGMA(...) _Pragma(#__VA_ARGS__)
#define VECTORIZED(...) PRAGMA(omp simd __VA_ARGS__) /* of a loop over elements */

/* MATH */

/* FORMULA */

typedef struct {
  const float *const *variables;
  const Element *z, *gradient; /* gradient is NULL in the forward pass */
  Element *result;
  double *sums; /* SUMS of each channel, of each block */
  int64_t outer, channels, inner;
} Pass;

/* The channels lie BEHIND axes before the last. */
static inline void set_shape(Pass *pass, const int64_t *dims, int64_t rank) {
  int64_t outer = 1, inner = 1;
  for (int64_t axis = 0; axis < rank; axis++)
    if (CHANNELS == NONE || axis < rank - 1 - BEHIND)
      outer *= dims[axis];
    else if (axis > rank - 1 - BEHIND)
      inner *= dims[axis];
  pass->outer = outer;
  pass->channels = CHANNELS == NONE ? 1 : dims[rank - 1 - BEHIND];
  pass->inner = inner;
}

/* Loops are over floats. Elements of 16 bits become floats a strip at a time, which stays in the first-level cache. */
#if ELEMENT == FLOAT32
#define STRIP 128 /* fetched at once */
#define TEMPORARY(name) float *const name = NULL
static inline const float *floats_of(const Element *from, float *to, int64_t size) { return from; }
static inline float *floats_for(Element *result, float *to) { return result; }
static inline void store_all(const float *from, Element *to, int64_t size) {}
#else
#define STRIP 512
#define TEMPORARY(name) float name[STRIP]
/* By instructions where the processor has them, which round as `stored` does; bfloat16's take subnormals for 0. */
typedef float Floats __attribute__((vector_size(64)));
typedef Element Elements __attribute__((vector_size(32)));
#define IN_VECTORS(instruction, Before, After)            \
  for (; i + 16 <= size; i += 16) {                       \
    Before before;                                        \
    After after;                                          \
    memcpy(&before, from + i, sizeof before);             \
    asm(instruction ", %0" : "=v"(after) : "v"(before));  \
    memcpy(to + i, &after, sizeof after);                 \
  }
#if ELEMENT == BFLOAT16 && defined __AVX512BF16__
#define LOAD_VECTORS
#define STORE_VECTORS IN_VECTORS("vcvtneps2bf16 %1", Floats, Elements)
#elif ELEMENT == FLOAT16 && defined __AVX512F__
#define LOAD_VECTORS IN_VECTORS("vcvtph2ps %1", Elements, Floats)
#define STORE_VECTORS IN_VECTORS("vcvtps2ph $0, %1", Floats, Elements)
#else
#define LOAD_VECTORS
#define STORE_VECTORS
#endif
static inline const float *floats_of(const Element *from, float *to, int64_t size) {
  int64_t i = 0;
  LOAD_VECTORS
  for (; i < size; i++) to[i] = load(from[i]);
  return to;
}
static inline float *floats_for(Element *result, float *to) { return to; }
static inline void store_all(const float *from, Element *to, int64_t size) {
  int64_t i = 0;
  STORE_VECTORS
  for (; i < size; i++) to[i] = stored(from[i]);
}
#endif

/* A loop whose functions are exact far out, or the faster one. */
#define EITHER(is_far, loop, ...) ((is_far) ? loop(1, __VA_ARGS__) : loop(0, __VA_ARGS__))

/* Elements on their way into the cache, while others are computed. */
static inline void fetch(const Pass *pass, int64_t at, int64_t size) {
  for (int64_t i = at; i < at + size; i += 64 / sizeof(Element)) {
    __builtin_prefetch(pass->z + i);
    if (pass->gradient) __builtin_prefetch(pass->gradient + i);
    __builtin_prefetch(pass->result + i, 1);
  }
}

static inline int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }
static inline int64_t larger(int64_t a, int64_t b) { return a > b ? a : b; }
static inline int64_t parts(int64_t size, int64_t part) { return (size + part - 1) / part; }

/* A block: so many outer indices, of all channels. */
static int64_t outer_of_block(const Pass *pass) {
  const int64_t row = larger(1, pass->channels * pass->inner);
  return larger(larger(1, CHUNK / row), CHANNELS == NONE ? 1 : parts(ROWS, larger(1, pass->inner)));
}

static int64_t blocks_of(const Pass *pass) {
  return pass->channels && pass->inner ? parts(pass->outer, outer_of_block(pass)) : 0;
}

static int64_t sums_of(const Pass *pass) { return SUMS * blocks_of(pass) * pass->channels; }

#if CHANNELS == LAST

/* Rows of `size` elements, `stride` apart, each with the parameters of its place in the row. */
static void run_lanes(const Pass *pass, const float *fixed, int64_t at, int64_t size, int64_t stride, int64_t rows,
                      float *sums) {
  TEMPORARY(of_z);
  TEMPORARY(of_gradient);
  TEMPORARY(of_result);
  for (int64_t row = 0; row < rows; row++, at += stride) {
    fetch(pass, at + AHEAD * stride, size);
    const float *z = floats_of(pass->z + at, of_z, size);
    float *result = floats_for(pass->result + at, of_result);
    if (pass->gradient) {
      const float *gradient = floats_of(pass->gradient + at, of_gradient, size);
      EITHER(is_far_lanes(fixed, z, size), backward_lanes, fixed, z, gradient, result, sums, size);
    } else
      EITHER(is_far_lanes(fixed, z, size), forward_lanes, fixed, z, result, size);
    store_all(result, pass->result + at, size);
  }
}

/* Channels last: rows of all channels, several side by side where they are few, or of some of them at a time. */
static void run_rows(const Pass *pass, int64_t first, int64_t rows, double *sums) {
  const int64_t channels = pass->channels, copies = larger(1, LANES / channels);
  float fixed[(FIXED + 1) * LANES], found[(SUMS + 1) * LANES];
  for (int64_t channel = 0; channel < channels; channel += LANES) {
    const int64_t width = smaller(LANES, channels - channel), size = width * copies;
    const int64_t at = first * channels + channel, whole = rows / copies, stride = larger(channels, size);
    VECTORIZED()
    for (int64_t i = 0; i < width; i++) fix(pass->variables, channels, channel + i, fixed + i);
    for (int value = 0; value < FIXED; value++)
      for (int64_t i = width; i < size; i++) fixed[value * LANES + i] = fixed[value * LANES + i - width];
    memset(found, 0, sizeof found);
    run_lanes(pass, fixed, at, size, stride, whole, found);
    if (rows % copies) run_lanes(pass, fixed, at + whole * stride, rows % copies * width, stride, 1, found);
    for (int sum = 0; pass->gradient && sum < SUMS; sum++)
      for (int64_t copy = 0; copy < size; copy += width)
        for (int64_t i = 0; i < width; i++) sums[(channel + i) * SUMS + sum] += found[sum * LANES + copy + i];
  }
}

#else

/* Elements that have one channel, or lie in a tensor without: CHUNK at most. */
static void run_segment(const Pass *pass, const float *fixed, int64_t at, int64_t size, float *sums) {
  TEMPORARY(of_z);
  TEMPORARY(of_gradient);
  TEMPORARY(of_result);
  for (int64_t end = at + size; at < end; at += STRIP) {
    const int64_t part = smaller(STRIP, end - at);
#if ELEMENT == FLOAT32 /* longer strips, of 16 bits, the processor foresees by itself */
    fetch(pass, at + AHEAD * STRIP, part);
#endif
    const float *z = floats_of(pass->z + at, of_z, part);
    float *result = floats_for(pass->result + at, of_result);
    if (pass->gradient) {
      const float *gradient = floats_of(pass->gradient + at, of_gradient, part);
      const int is_far = is_far_segment(fixed, z, part);
      for (int64_t i = 0; i < part; i += LANES)
        EITHER(is_far, backward_segment, fixed, z + i, gradient + i, result + i, sums, smaller(LANES, part - i));
    } else
      EITHER(is_far_segment(fixed, z, part), forward_segment, fixed, z, result, part);
    store_all(result, pass->result + at, part);
  }
}

/* Adds the sums of a loop's elements to those of their channel, and begins them anew. */
static inline void gather(float *found, double *sums) {
  if (!sums) return; /* in the forward pass */
  for (int sum = 0; sum < SUMS; sum++) {
    float total = 0;
    VECTORIZED(reduction(+ : total))
    for (int i = 0; i < LANES; i++) total += found[sum * LANES + i];
    sums[sum] += total;
  }
  memset(found, 0, SUMS * LANES * sizeof *found);
}

#endif

static void run_block(const Pass *pass, int64_t block) {
  const int64_t most = outer_of_block(pass), first = block * most, outer = smaller(most, pass->outer - first);
  double *sums = pass->sums ? pass->sums + block * SUMS * pass->channels : NULL; /* NULL in the forward pass */
  if (sums) memset(sums, 0, SUMS * pass->channels * sizeof *sums);
#if CHANNELS == LAST
  run_rows(pass, first, outer, sums);
#else
  float fixed[(FIXED + 1) * LANES], found[(SUMS + 1) * LANES] = {0};
  for (int64_t channel = 0; channel < pass->channels; channel++) {
    double *const of_channel = sums ? sums + channel * SUMS : NULL;
    fix(pass->variables, pass->channels, channel, fixed);
#if CHANNELS == NONE
    run_segment(pass, fixed, first, outer, found);
#else
    for (int64_t i = first; i < first + outer; i++)
      for (int64_t j = 0, inner = pass->inner; j < inner; j += CHUNK) {
        if (j) gather(found, of_channel);
        run_segment(pass, fixed, (i * pass->channels + channel) * inner + j, smaller(CHUNK, inner - j), found);
      }
#endif
    gather(found, of_channel);
  }
#endif
}

/* Gradients by the variables, of the sums of all blocks. */
static void add_up(const Pass *pass, float *const *by_variables) {
  const int64_t blocks = blocks_of(pass), channels = pass->channels;
  for (int64_t channel = 0; channel < channels; channel++) {
    double total[SUMS + 1] = {0};
    for (int64_t block = 0; block < blocks; block++)
      for (int sum = 0; sum < SUMS; sum++) total[sum] += pass->sums[(block * channels + channel) * SUMS + sum];
    finish(pass->variables, channels, channel, total, by_variables);
  }
}

/* A pass that several threads share: they take blocks until none are left. */
typedef struct {
  Pass pass;
  _Atomic int64_t next, done, users;
} Shared;

static inline void take_blocks(Shared *shared) {
  const int64_t blocks = blocks_of(&shared->pass);
  for (int64_t block; (block = atomic_fetch_add(&shared->next, 1)) < blocks;) {
    run_block(&shared->pass, block);
    atomic_fetch_add(&shared->done, 1);
  }
}
