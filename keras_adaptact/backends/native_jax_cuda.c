/* Called by XLA on a GPU: handlers of its foreign function interface, which launch kernels on XLA's stream, and the same
   ones at each call, so that XLA may record them. `jax_cuda.py` says how many VARIABLES there are, gives the addresses
   below, and a plan for each call. */

#include <stdint.h>
#include <string.h>

#include "xla/ffi/api/c_api.h"

typedef int Launch(void *kernel, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, void *stream,
                   void **arguments, void **extra);

Launch *launch;                   /* cuLaunchKernel */
int (*set_context)(void *);       /* cuCtxSetCurrent */
void *context;                    /* XLA's */
void *forward_kernel, *backward_kernel, *add_up_kernel;

enum { THREADS, GRID, CHANNELS, REST }; /* of a plan; from CHANNELS on as in native.cu's Pass */
enum { Z, GRADIENT, RESULT, SUMS, GIVEN, FOUND = GIVEN + VARIABLES + 1, NUMBERS = FOUND + VARIABLES + 1, SIZE = NUMBERS + 6 };

static XLA_FFI_Error *failed(const XLA_FFI_Api *api, const char *why) {
  XLA_FFI_Error_Create_Args error = {XLA_FFI_Error_Create_Args_STRUCT_SIZE, NULL, why, XLA_FFI_Error_Code_INTERNAL};
  return api->XLA_FFI_Error_Create(&error);
}

/* Whether XLA only asks what the handler was compiled for. */
static int answered(XLA_FFI_CallFrame *frame) {
  const XLA_FFI_Metadata_Extension *asked = (XLA_FFI_Metadata_Extension *)frame->extension_start;
  if (!asked || asked->extension_base.type != XLA_FFI_Extension_Metadata) return 0; /* another, which begins alike */
  XLA_FFI_Metadata *metadata = asked->metadata;
  metadata->api_version.major_version = XLA_FFI_API_MAJOR;
  metadata->api_version.minor_version = XLA_FFI_API_MINOR;
  metadata->traits = XLA_FFI_HANDLER_TRAITS_COMMAND_BUFFER_COMPATIBLE;
  return 1;
}

#ifndef STREAM /* which a test has of its own, where there is no GPU */
#define STREAM(frame, stream) stream_of(frame, stream)
static XLA_FFI_Error *stream_of(const XLA_FFI_CallFrame *frame, void **stream) {
  XLA_FFI_Stream_Get_Args found = {XLA_FFI_Stream_Get_Args_STRUCT_SIZE, NULL, frame->ctx, NULL};
  XLA_FFI_Error *error = frame->api->XLA_FFI_Stream_Get(&found);
  *stream = found.stream;
  return error;
}
#endif

static int64_t address(void *buffer) { return (int64_t)((XLA_FFI_Buffer *)buffer)->data; }

/* native.cu's Pass, in slots of 8 bytes. */
static void fill(int64_t *pass, const XLA_FFI_CallFrame *frame, const int64_t *plan, int inputs) {
  void *const *given = frame->args.args, *const *found = frame->rets.rets;
  memset(pass, 0, SIZE * sizeof *pass);
  pass[Z] = address(given[0]);
  pass[RESULT] = address(found[0]);
  for (int i = 0; i < VARIABLES; i++) pass[GIVEN + i] = address(given[inputs + i]);
  memcpy(pass + NUMBERS, plan + CHANNELS, (SIZE - NUMBERS) * sizeof *pass);
  if (inputs == 1) return;
  pass[GRADIENT] = address(given[1]);
  for (int i = 0; i < VARIABLES; i++) pass[FOUND + i] = address(found[1 + i]);
  pass[SUMS] = address(found[1 + VARIABLES]);
}

static XLA_FFI_Error *run(XLA_FFI_CallFrame *frame, int inputs) {
  if (answered(frame)) return NULL;
  const XLA_FFI_Array *attribute = frame->attrs.attrs[0];
  const int64_t *plan = attribute->data;
  int64_t pass[SIZE];
  void *stream, *arguments[] = {pass};
  XLA_FFI_Error *error = STREAM(frame, &stream);
  if (error) return error;
  fill(pass, frame, plan, inputs);
  if ((pass[Z] | pass[GRADIENT] | pass[RESULT]) % 16) return failed(frame->api, "keras_adaptact: memory not aligned");
  if (set_context(context)) return failed(frame->api, "keras_adaptact: another GPU");
  void *kernel = inputs == 1 ? forward_kernel : backward_kernel;
  int status = 0;
  if (plan[GRID]) status = launch(kernel, plan[GRID], 1, 1, plan[THREADS], 1, 1, 0, stream, arguments, NULL);
  if (!status && inputs > 1 && plan[CHANNELS])
    status = launch(add_up_kernel, plan[CHANNELS], 1, 1, plan[THREADS], 1, 1, 0, stream, arguments, NULL);
  return status ? failed(frame->api, "keras_adaptact: can't launch a kernel") : NULL;
}

XLA_FFI_Error *forward(XLA_FFI_CallFrame *frame) { return run(frame, 1); }  /* z, variables... -> y */
XLA_FFI_Error *backward(XLA_FFI_CallFrame *frame) { return run(frame, 2); } /* z, gradient, variables... -> by each, sums */
