/* Called by XLA: a handler of its foreign function interface, with XLA's own threads. */

#include "xla/ffi/api/c_api.h"

/* Helpers may begin late or never: the caller takes blocks too, waits only for those that were taken, and whoever
   comes last frees the memory. */
static void leave(Shared *shared) {
  if (atomic_fetch_sub(&shared->users, 1) == 1) free(shared);
}

static void help(void *data) {
  take_blocks(data);
  leave(data);
}

static XLA_FFI_Error *no_memory(const XLA_FFI_Api *api) {
  XLA_FFI_Error_Create_Args error = {XLA_FFI_Error_Create_Args_STRUCT_SIZE, NULL, "keras_adaptact: out of memory",
                                     XLA_FFI_Error_Code_RESOURCE_EXHAUSTED};
  return api->XLA_FFI_Error_Create(&error);
}

static int run_all(const XLA_FFI_CallFrame *frame, const Pass *pass) {
  const int64_t blocks = blocks_of(pass);
  int64_t threads = 1;
  if (blocks > 1) {
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
    for (int64_t block = 0; block < blocks; block++) run_block(pass, block);
    return 1;
  }
  Shared *shared = malloc(sizeof *shared);
  if (!shared) return 0;
  const int64_t helpers = threads - 1 < blocks - 1 ? threads - 1 : blocks - 1;
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
  take_blocks(shared);
  while (atomic_load(&shared->done) < blocks) { /* microseconds: each is under way in another thread */
  }
  leave(shared);
  return 1;
}

/* Whether XLA only asks what the handler was compiled for. */
static int answered(XLA_FFI_CallFrame *frame) {
  const XLA_FFI_Metadata_Extension *asked = (XLA_FFI_Metadata_Extension *)frame->extension_start;
  if (!asked || asked->extension_base.type != XLA_FFI_Extension_Metadata) return 0; /* another, which begins alike */
  XLA_FFI_Metadata *metadata = asked->metadata;
  metadata->api_version.major_version = XLA_FFI_API_MAJOR;
  metadata->api_version.minor_version = XLA_FFI_API_MINOR;
  return 1;
}

static Pass pass_of(const XLA_FFI_CallFrame *frame, int inputs, const float **variables) {
  XLA_FFI_Buffer **arguments = (XLA_FFI_Buffer **)frame->args.args;
  for (int64_t i = inputs; i < frame->args.size; i++) variables[i - inputs] = arguments[i]->data;
  Pass pass = {variables, arguments[0]->data, inputs > 1 ? arguments[1]->data : NULL,
               ((XLA_FFI_Buffer *)frame->rets.rets[0])->data};
  set_shape(&pass, arguments[0]->dims, arguments[0]->rank);
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
  pass.sums = malloc((sums_of(&pass) + 1) * sizeof *pass.sums);
  if (!pass.sums) return no_memory(frame->api);
  const int done = run_all(frame, &pass);
  if (done) add_up(&pass, by_variables);
  free(pass.sums);
  return done ? NULL : no_memory(frame->api);
}
