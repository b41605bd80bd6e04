/* The kernels of a formula on a GPU: `printer` writes native_math.h in place of MATH, and in place of FORMULA the
   formula's own loops, which are those of native.c. `cuda.py` compiles and launches them.

   A thread takes VECTOR elements at a time, one unit, and as many units as there are turns. With parameters for each
   channel a block of THREADS has one channel, or as many as lie side by side in its threads if CHANNELS is LAST. Each
   block writes sums of its own, which `add_up` adds in order: no result depends on which block comes first. */

#ifdef __CUDACC_RTC__ /* which has no headers */
typedef unsigned short uint16_t;
typedef int int32_t;
typedef unsigned int uint32_t;
typedef long long int64_t;
#define INFINITY __int_as_float(0x7f800000)
#define NAN __int_as_float(0x7fc00000)
#define restrict __restrict__
#define INLINE static __forceinline__
#define KERNEL extern "C" __global__ void __launch_bounds__(THREADS)
#endif

#define PRAGMA(...) _Pragma(#__VA_ARGS__)
#define VECTORIZED(...) PRAGMA(unroll) /* of a loop over elements */
#define GROUP 8                        /* sums that are added up at a time */

/* MATH */

#if CHANNELS == LAST /* a thread has as many channels as elements */
#define LANES VECTOR
#define SUM(number) sums[(number) * LANES + i]
#define is_far_of is_far_lanes
#define forward_of forward_lanes
#define backward_of backward_lanes
#else
#define LANES 1
#define SUM(number) sums[number]
#define is_far_of is_far_segment
#define forward_of forward_segment
#define backward_of backward_segment
#endif

/* FORMULA */

typedef struct { /* as `cuda.Pass` */
  const Element *z, *gradient;
  Element *result;
  float *sums; /* of each block, of each channel, for each of SUMS */
  const float *variables[VARIABLES + 1];
  float *by_variables[VARIABLES + 1];
  int64_t channels, inner; /* how many, and how many units lie together in each */
  int64_t units, blocks;   /* of a channel; if CHANNELS is LAST of `width` units side by side */
  int64_t width, turns;
} Pass;

/* What a thread works on: units from `first` on, `step` apart, of channels from `channel` on. */
typedef struct {
  int64_t channel, block, first;
  int row, rows, is_used;
} Place;

INLINE Place place_of(const Pass *pass) {
  const int width = (int)pass->width, thread = (int)threadIdx.x;
  const int64_t tile = blockIdx.x / pass->blocks;
  Place place;
  place.block = blockIdx.x % pass->blocks;
  place.row = thread / width;
  place.rows = THREADS / width;
  place.first = place.block * pass->turns * place.rows + place.row;
  place.channel = CHANNELS == LAST ? (tile * width + thread % width) * VECTOR : tile;
  place.is_used = place.row < place.rows && place.channel < pass->channels;
  return place;
}

/* Where a unit lies. */
INLINE int64_t address(const Pass *pass, int64_t channel, int64_t unit) {
#if CHANNELS == LAST
  return unit * pass->channels + channel;
#elif CHANNELS == INSIDE
  const int64_t outer = (uint32_t)unit / (uint32_t)pass->inner;
  return ((outer * (pass->channels - 1) + channel) * pass->inner + unit) * VECTOR;
#else
  return unit * VECTOR;
#endif
}

#if VECTOR == 1
typedef Element Words;
#elif VECTOR == 2
typedef uint32_t Words;
#else
typedef uint4 Words;
#endif
INLINE void read(const Element *from, float *to) {
  const Words words = *(const Words *)from;
  Element elements[VECTOR];
  memcpy(elements, &words, sizeof words);
  PRAGMA(unroll)
  for (int i = 0; i < VECTOR; i++) to[i] = load(elements[i]);
}
INLINE void write(const float *from, Element *to) {
  Element elements[VECTOR];
  PRAGMA(unroll)
  for (int i = 0; i < VECTOR; i++) elements[i] = stored(from[i]);
  Words words;
  memcpy(&words, elements, sizeof words);
  *(Words *)to = words;
}

INLINE void fix_all(const Pass *pass, int64_t channel, float *fixed) {
  PRAGMA(unroll)
  for (int i = 0; i < LANES; i++) fix(pass->variables, pass->channels, channel + i, fixed + i);
}

KERNEL forward(const Pass pass) {
  const Place place = place_of(&pass);
  if (!place.is_used) return;
  float fixed[(FIXED + 1) * LANES];
  fix_all(&pass, place.channel, fixed);
  for (int64_t turn = 0, unit = place.first; turn < pass.turns && unit < pass.units; turn++, unit += place.rows) {
    const int64_t at = address(&pass, place.channel, unit);
    float z[VECTOR], result[VECTOR];
    read(pass.z + at, z);
    forward_of(is_far_of(fixed, z, VECTOR), fixed, z, result, VECTOR);
    write(result, pass.result + at);
  }
}

/* Sums of a block's threads with like channels. */
INLINE void keep(const Pass *pass, const Place *place, const float *sums) {
  __shared__ float parts[GROUP][THREADS];
  const int width = (int)pass->width, thread = (int)threadIdx.x;
  PRAGMA(unroll)
  for (int first = 0; first < SUMS * LANES; first += GROUP) {
    const int count = SUMS * LANES - first < GROUP ? SUMS * LANES - first : GROUP;
    PRAGMA(unroll)
    for (int i = 0; i < count; i++) parts[i][thread] = sums[first + i];
    __syncthreads();
    for (int rows = place->rows, half; rows > 1; rows = half) {
      half = (rows + 1) / 2;
      if (place->row < rows - half)
        for (int i = 0; i < count; i++) parts[i][thread] += parts[i][thread + half * width];
      __syncthreads();
    }
    if (place->row == 0 && place->is_used)
      for (int i = 0; i < count; i++) {
        const int64_t sum = (first + i) / LANES, channel = place->channel + (first + i) % LANES;
        pass->sums[(sum * pass->channels + channel) * pass->blocks + place->block] = parts[i][thread];
      }
    __syncthreads();
  }
}

KERNEL backward(const Pass pass) {
  const Place place = place_of(&pass);
  float fixed[(FIXED + 1) * LANES], sums[(SUMS + 1) * LANES] = {0};
  if (place.is_used) fix_all(&pass, place.channel, fixed);
  const int64_t turns = place.is_used ? pass.turns : 0;
  for (int64_t turn = 0, unit = place.first; turn < turns && unit < pass.units; turn++, unit += place.rows) {
    const int64_t at = address(&pass, place.channel, unit);
    float z[VECTOR], gradient[VECTOR], result[VECTOR];
    float found[(SUMS + 1) * LANES] = {0};
    read(pass.z + at, z);
    read(pass.gradient + at, gradient);
    backward_of(is_far_of(fixed, z, VECTOR), fixed, z, gradient, result, found, VECTOR);
    write(result, pass.result + at);
    PRAGMA(unroll)
    for (int i = 0; i < SUMS * LANES; i++) sums[i] += found[i];
  }
  keep(&pass, &place, sums);
}

/* Gradients by the variables: a block for each channel. */
KERNEL add_up(const Pass pass) {
  __shared__ double parts[THREADS], totals[SUMS + 1];
  const int64_t channel = blockIdx.x;
  const int thread = (int)threadIdx.x;
  for (int sum = 0; sum < SUMS; sum++) {
    const float *of_blocks = pass.sums + (sum * pass.channels + channel) * pass.blocks;
    double total = 0;
    for (int64_t block = thread; block < pass.blocks; block += THREADS) total += of_blocks[block];
    parts[thread] = total;
    __syncthreads();
    for (int half = THREADS / 2; half > 0; half /= 2) {
      if (thread < half) parts[thread] += parts[thread + half];
      __syncthreads();
    }
    if (thread == 0) totals[sum] = parts[0];
  }
  if (thread == 0) finish(pass.variables, pass.channels, channel, totals, pass.by_variables);
}
