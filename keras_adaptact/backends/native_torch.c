/* Called by ctypes, with OpenMP's threads, which are torch's too. */

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
