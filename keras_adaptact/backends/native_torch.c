/* Called by ctypes, with OpenMP's threads, which are torch's too. */

static void run_all(const Pass *pass) {
  const int64_t blocks = blocks_of(pass);
#pragma omp parallel for schedule(static) if (blocks > 1)
  for (int64_t block = 0; block < blocks; block++) run_block(pass, block);
}

void forward(int64_t outer, int64_t channels, int64_t inner, const Element *z, Element *result,
             const float *const *variables) {
  const Pass pass = {variables, z, NULL, result, NULL, outer, channels, inner};
  run_all(&pass);
}

/* Returns 0, or 1 if there is no memory. */
int backward(int64_t outer, int64_t channels, int64_t inner, const Element *z, const Element *gradient,
             Element *result, const float *const *variables, float *const *by_variables) {
  Pass pass = {variables, z, gradient, result, NULL, outer, channels, inner};
  double *sums = malloc((sums_of(&pass) + 1) * sizeof *sums);
  if (!sums) return 1;
  pass.sums = sums;
  run_all(&pass);
  add_up(&pass, by_variables);
  free(sums);
  return 0;
}
