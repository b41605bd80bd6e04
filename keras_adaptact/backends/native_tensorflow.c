/* Called by TensorFlow: two operations of its own, registered when the library is loaded, with threads of a call. */

#include <pthread.h>
#include <stdio.h>
#include <unistd.h>

typedef struct TF_DimensionHandle TF_DimensionHandle; /* C++ can do without */
typedef struct TF_OpDefinitionBuilder TF_OpDefinitionBuilder;
typedef struct TF_ShapeHandle TF_ShapeHandle;
typedef struct TF_ShapeInferenceContext TF_ShapeInferenceContext;

#include "tensorflow/c/kernels.h"
#include "tensorflow/c/ops.h"

#define THREADS 64 /* at most */
#define AXES 16    /* at most */
#if ELEMENT == FLOAT32
#define TYPE "float"
#elif ELEMENT == BFLOAT16
#define TYPE "bfloat16"
#else
#define TYPE "half"
#endif

static void *help(void *shared) {
  take_blocks(shared);
  return NULL;
}

static void run_all(const Pass *pass) {
  const int64_t blocks = blocks_of(pass), cores = sysconf(_SC_NPROCESSORS_ONLN);
  Shared shared = {*pass, 0, 0, 0};
  pthread_t threads[THREADS];
  int64_t helpers = 0;
  while (helpers < THREADS && helpers < cores - 1 && helpers < blocks / 4 &&
         !pthread_create(&threads[helpers], NULL, help, &shared))
    helpers++;
  take_blocks(&shared);
  while (helpers) pthread_join(threads[--helpers], NULL);
}

/* An output of the shape of an input. */
static void *like(TF_OpKernelContext *context, int index, const TF_Tensor *input, TF_Status *status) {
  int64_t dims[AXES];
  const int rank = TF_NumDims(input);
  if (rank > AXES) {
    TF_SetStatus(status, TF_INVALID_ARGUMENT, "keras_adaptact: a tensor of too many axes");
    return NULL;
  }
  for (int axis = 0; axis < rank; axis++) dims[axis] = TF_Dim(input, axis);
  TF_Tensor *output = TF_AllocateOutput(context, index, TF_TensorType(input), dims, rank, TF_TensorByteSize(input),
                                        status);
  void *data = TF_GetCode(status) == TF_OK ? TF_TensorData(output) : NULL;
  if (output) TF_DeleteTensor(output);
  return data;
}

/* Both operations: z, (gradient,) variables... -> a tensor like z (, by variables...). */
static void compute(TF_OpKernelContext *context, int first_variable) {
  TF_Status *status = TF_NewStatus();
  TF_Tensor *inputs[2 + VARIABLES] = {NULL};
  const float *variables[VARIABLES];
  float *by_variables[VARIABLES];
  double *sums = NULL;
  for (int i = 0; i < first_variable + VARIABLES; i++) {
    TF_GetInput(context, i, &inputs[i], status);
    if (TF_GetCode(status) != TF_OK) goto end;
    if (i >= first_variable) variables[i - first_variable] = TF_TensorData(inputs[i]);
  }
  Pass pass = {variables, TF_TensorData(inputs[0]), NULL, like(context, 0, inputs[0], status)};
  int64_t dims[AXES];
  const int rank = TF_NumDims(inputs[0]);
  if (TF_GetCode(status) != TF_OK) goto end;
  for (int axis = 0; axis < rank; axis++) dims[axis] = TF_Dim(inputs[0], axis);
  set_shape(&pass, dims, rank);
  if (first_variable == 1) {
    run_all(&pass);
    goto end;
  }
  for (int i = 0; i < VARIABLES; i++) {
    by_variables[i] = like(context, 1 + i, inputs[2 + i], status);
    if (TF_GetCode(status) != TF_OK) goto end;
  }
  pass.gradient = TF_TensorData(inputs[1]);
  pass.sums = sums = malloc((sums_of(&pass) + 1) * sizeof *sums);
  if (!sums) {
    TF_SetStatus(status, TF_RESOURCE_EXHAUSTED, "keras_adaptact: out of memory");
    goto end;
  }
  run_all(&pass);
  add_up(&pass, by_variables);
end:
  if (TF_GetCode(status) != TF_OK) TF_OpKernelContext_Failure(context, status);
  free(sums);
  for (int i = 0; i < first_variable + VARIABLES; i++)
    if (inputs[i]) TF_DeleteTensor(inputs[i]);
  TF_DeleteStatus(status);
}

static void compute_forward(void *kernel, TF_OpKernelContext *context) { compute(context, 1); }
static void compute_backward(void *kernel, TF_OpKernelContext *context) { compute(context, 2); }

static void same_shape(TF_ShapeInferenceContext *context, int output, int input, TF_Status *status) {
  TF_ShapeHandle *shape = TF_NewShapeHandle();
  TF_ShapeInferenceContextGetInput(context, input, shape, status);
  if (TF_GetCode(status) == TF_OK) TF_ShapeInferenceContextSetOutput(context, output, shape, status);
  TF_DeleteShapeHandle(shape);
}

static void shapes_forward(TF_ShapeInferenceContext *context, TF_Status *status) { same_shape(context, 0, 0, status); }

static void shapes_backward(TF_ShapeInferenceContext *context, TF_Status *status) {
  same_shape(context, 0, 0, status);
  for (int i = 0; i < VARIABLES && TF_GetCode(status) == TF_OK; i++) same_shape(context, 1 + i, 2 + i, status);
}

static void define(const char *name, int backward, void (*compute_it)(void *, TF_OpKernelContext *),
                   void (*shapes)(TF_ShapeInferenceContext *, TF_Status *)) {
  TF_Status *status = TF_NewStatus();
  TF_OpDefinitionBuilder *operation = TF_NewOpDefinitionBuilder(name);
  char spec[32];
  TF_OpDefinitionBuilderAddInput(operation, "z: " TYPE);
  if (backward) TF_OpDefinitionBuilderAddInput(operation, "gradient: " TYPE);
  TF_OpDefinitionBuilderAddOutput(operation, "result: " TYPE);
  for (int i = 0; i < VARIABLES; i++) {
    snprintf(spec, sizeof spec, "variable%d: float", i);
    TF_OpDefinitionBuilderAddInput(operation, spec);
    snprintf(spec, sizeof spec, "by_variable%d: float", i);
    if (backward) TF_OpDefinitionBuilderAddOutput(operation, spec);
  }
  TF_OpDefinitionBuilderSetShapeInferenceFunction(operation, shapes);
  TF_RegisterOpDefinition(operation, status);
  TF_KernelBuilder *kernel = TF_NewKernelBuilder(name, "CPU", NULL, compute_it, NULL);
  TF_RegisterKernelBuilder(name, kernel, status);
  if (TF_GetCode(status) != TF_OK) fprintf(stderr, "keras_adaptact: %s\n", TF_Message(status));
  TF_DeleteStatus(status);
}

__attribute__((constructor)) static void define_both(void) {
  define(FORWARD, 0, compute_forward, shapes_forward);
  define(BACKWARD, 1, compute_backward, shapes_backward);
}
