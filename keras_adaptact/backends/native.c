/* What the kernels of all formulas share: arithmetic, and the two ways to call them. `native.py` writes the formula's
   own part in place of FORMULA: `SUMS`, `forward_chunk`, `backward_chunk` and `finish`.

   A tensor is gone over in chunks of a fixed size, each with sums of its own, added up in order: the result doesn't
   depend on the number of threads. NaN passes every clamp here, as each comparison with it is false. */

#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define CHUNK 16384 /* elements: z, gradient and result together stay in the second-level cache */

/* 2^n, written into the bits of a float from 23 on. */
static inline float power_of_two(float n) {
  int32_t bits = ((int32_t)n + 127) << 23;
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

/* x P(x^2) / Q(x^2) for |x| <= 7.9, where tanh has reached 1 - 3e-7: a rational minimax fit (Lawson's iteration) with
   a relative error of 6e-9. */
static inline float tanh_of(float x) {
  x = x < -7.9f ? -7.9f : x;
  x = x > 7.9f ? 7.9f : x;
  const float square = x * x;
  float p = 1.54279764e-08f, q = 8.59878306e-07f;
  p = p * square + 2.20232525e-05f;
  p = p * square + 0.00357899265f;
  p = p * square + 0.134506212f;
  p = p * square + 0.999999994f;
  q = q * square + 0.000342365145f;
  q = q * square + 0.0261922405f;
  q = q * square + 0.467839492f;
  q = q * square + 1.0f;
  return x * p / q;
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

#ifndef XLA

static void run_all(const Pass *pass) {
  const int64_t chunks = chunks_of(pass->size);
#pragma omp parallel for schedule(static) if (chunks > 1)
  for (int64_t chunk = 0; chunk < chunks; chunk++) run_chunk(pass, chunk);
}

void forward(int64_t size, const float *z, float *result, const float *const *variables) {
  const Pass pass = {variables, z, NULL, result, NULL, size};
  run_all(&pass);
}

/* Returns 0, or 1 if there is no memory. */
int backward(int64_t size, const float *z, const float *gradient, float *result, const float *const *variables,
             float *const *by_variables) {
  double *sums = malloc((SUMS * chunks_of(size) + 1) * sizeof *sums);
  if (!sums) return 1;
  const Pass pass = {variables, z, gradient, result, sums, size};
  run_all(&pass);
  add_up(&pass, by_variables);
  free(sums);
  return 0;
}

#else

#include <stdatomic.h>
#include "xla/ffi/api/c_api.h"

/* XLA's own threads take chunks until none are left. They may begin late or never: the caller takes chunks too, waits
   only for those that were taken, and whoever comes last frees the memory. */
typedef struct {
  Pass pass;
  _Atomic int64_t next, done, users;
} Shared;

static void leave(Shared *shared) {
  if (atomic_fetch_sub(&shared->users, 1) == 1) free(shared);
}

static void take_chunks(Shared *shared) {
  const int64_t chunks = chunks_of(shared->pass.size);
  for (int64_t chunk; (chunk = atomic_fetch_add(&shared->next, 1)) < chunks;) {
    run_chunk(&shared->pass, chunk);
    atomic_fetch_add(&shared->done, 1);
  }
}

static void help(void *data) {
  take_chunks(data);
  leave(data);
}

static XLA_FFI_Error *no_memory(const XLA_FFI_Api *api) {
  XLA_FFI_Error_Create_Args error = {XLA_FFI_Error_Create_Args_STRUCT_SIZE, NULL, "keras_adaptact: out of memory",
                                     XLA_FFI_Error_Code_RESOURCE_EXHAUSTED};
  return api->XLA_FFI_Error_Create(&error);
}

static int run_all(const XLA_FFI_CallFrame *frame, const Pass *pass) {
  const int64_t chunks = chunks_of(pass->size);
  int64_t threads = 1;
  if (chunks > 1) {
    XLA_FFI_ThreadPool_NumThreads_Args count = {XLA_FFI_ThreadPool_NumThreads_Args_STRUCT_SIZE, NULL, frame->ctx,
                                                &threads};
    XLA_FFI_Error *error = frame->api->XLA_FFI_ThreadPool_NumThreads(&count);
    if (error) { /* no pool: this thread does it all */
      XLA_FFI_Error_Destroy_Args destroy = {XLA_FFI_Error_Destroy_Args_STRUCT_SIZE, NULL, error};
      frame->api->XLA_FFI_Error_Destroy(&destroy);
      threads = 1;
    }
  }
  if (threads < 2) {
    for (int64_t chunk = 0; chunk < chunks; chunk++) run_chunk(pass, chunk);
    return 1;
  }
  Shared *shared = malloc(sizeof *shared);
  if (!shared) return 0;
  const int64_t helpers = threads - 1 < chunks - 1 ? threads - 1 : chunks - 1;
  shared->pass = *pass;
  atomic_init(&shared->next, 0);
  atomic_init(&shared->done, 0);
  atomic_init(&shared->users, helpers + 1);
  for (int64_t helper = 0; helper < helpers; helper++) {
    XLA_FFI_ThreadPool_Schedule_Args task = {XLA_FFI_ThreadPool_Schedule_Args_STRUCT_SIZE, NULL, frame->ctx, help,
                                             shared};
    XLA_FFI_Error *error = frame->api->XLA_FFI_ThreadPool_Schedule(&task);
    if (error) {
      XLA_FFI_Error_Destroy_Args destroy = {XLA_FFI_Error_Destroy_Args_STRUCT_SIZE, NULL, error};
      frame->api->XLA_FFI_Error_Destroy(&destroy);
      leave(shared);
    }
  }
  take_chunks(shared);
  while (atomic_load(&shared->done) < chunks) { /* microseconds: each is under way in another thread */
  }
  leave(shared);
  return 1;
}

/* Whether XLA only asks what the handler was compiled for. */
static int answered(XLA_FFI_CallFrame *frame) {
  XLA_FFI_Extension_Base *extension = frame->extension_start;
  if (!extension || extension->type != XLA_FFI_Extension_Metadata) return 0;
  XLA_FFI_Metadata *metadata = ((XLA_FFI_Metadata_Extension *)extension)->metadata;
  metadata->api_version.major_version = XLA_FFI_API_MAJOR;
  metadata->api_version.minor_version = XLA_FFI_API_MINOR;
  return 1;
}

static Pass pass_of(const XLA_FFI_CallFrame *frame, int inputs, const float **variables) {
  XLA_FFI_Buffer **arguments = (XLA_FFI_Buffer **)frame->args.args;
  for (int64_t i = inputs; i < frame->args.size; i++) variables[i - inputs] = arguments[i]->data;
  int64_t size = 1;
  for (int64_t axis = 0; axis < arguments[0]->rank; axis++) size *= arguments[0]->dims[axis];
  const Pass pass = {variables, arguments[0]->data, inputs > 1 ? arguments[1]->data : NULL,
                     ((XLA_FFI_Buffer *)frame->rets.rets[0])->data, NULL, size};
  return pass;
}

XLA_FFI_Error *forward(XLA_FFI_CallFrame *frame) { /* z, variables... -> y */
  if (answered(frame)) return NULL;
  const float *variables[VARIABLES];
  const Pass pass = pass_of(frame, 1, variables);
  return run_all(frame, &pass) ? NULL : no_memory(frame->api);
}

XLA_FFI_Error *backward(XLA_FFI_CallFrame *frame) { /* z, gradient, variables... -> by z, by variables... */
  if (answered(frame)) return NULL;
  const float *variables[VARIABLES];
  float *by_variables[VARIABLES];
  Pass pass = pass_of(frame, 2, variables);
  for (int64_t i = 1; i < frame->rets.size; i++) by_variables[i - 1] = ((XLA_FFI_Buffer *)frame->rets.rets[i])->data;
  pass.sums = malloc((SUMS * chunks_of(pass.size) + 1) * sizeof *pass.sums);
  if (!pass.sums) return no_memory(frame->api);
  const int done = run_all(frame, &pass);
  if (done) add_up(&pass, by_variables);
  free(pass.sums);
  return done ? NULL : no_memory(frame->api);
}

#endif
