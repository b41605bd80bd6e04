/* The functions of kernels: exact to a relative 1e-6 in float32, or to 2e-38. Polynomials and rational functions are
   minimax fits (Lawson's iteration), with the relative error that stands beside each.

   NaN passes every selection here, as each comparison with it is false. */

#define LN2_HIGH 0.693359375f /* ln(2) in two parts, of which the first times an integer is exact */
#define LN2_LOW -2.12194440e-4f

static inline float of_bits(uint32_t bits) {
  float value;
  memcpy(&value, &bits, sizeof value);
  return value;
}

static inline uint32_t bits_of(float value) {
  uint32_t bits;
  memcpy(&bits, &value, sizeof bits);
  return bits;
}

#define NONE 0 /* where CHANNELS lie */
#define LAST 1
#define INSIDE 2

/* Elements of 16 bits become floats, and are made of them, by the instructions of a GPU, or by integers. */
#define FLOAT32 0
#define BFLOAT16 1
#define FLOAT16 2
#if ELEMENT == FLOAT32
typedef float Element;
static inline float load(Element x) { return x; }
static inline Element stored(float x) { return x; }
#else
typedef uint16_t Element;
#endif
#if ELEMENT == BFLOAT16 /* the upper half of a float, rounded to even */
static inline float load(Element x) { return of_bits((uint32_t)x << 16); }
#if __CUDA_ARCH__ >= 800
static inline Element stored(float x) {
  Element y;
  asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(y) : "f"(x));
  return y;
}
#else
static inline Element stored(float x) {
  const uint32_t bits = bits_of(x);
  return x != x ? (Element)(bits >> 16 | 0x40) : (Element)((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}
#endif
#endif
#if ELEMENT == FLOAT16
#ifdef __CUDA_ARCH__
static inline float load(Element x) {
  float y;
  asm("cvt.f32.f16 %0, %1;" : "=f"(y) : "h"(x));
  return y;
}
static inline Element stored(float x) {
  Element y;
  asm("cvt.rn.f16.f32 %0, %1;" : "=h"(y) : "f"(x));
  return y;
}
#else
static inline float load(Element x) {
  const uint32_t size = x & 0x7fff, sign = (uint32_t)(x & 0x8000) << 16;
  const uint32_t subnormal = bits_of((float)(int32_t)size * 0x1p-24f); /* a normal float, which no thread flushes */
  const uint32_t normal = (size << 13) + (size < 0x7c00 ? 0x38000000u : 0x70000000u);
  return of_bits((size < 0x400 ? subnormal : normal) | sign);
}
static inline Element stored(float x) {
  const uint32_t bits = bits_of(x), sign = bits >> 16 & 0x8000, size = bits & 0x7fffffffu;
  const uint32_t normal = (size - 0x38000000u + 0xfff + (size >> 13 & 1)) >> 13;
  const uint32_t subnormal = bits_of(of_bits(size) + 0.5f) - 0x3f000000u; /* the adder rounds */
  const uint32_t finite = size < 0x38800000u ? subnormal : normal > 0x7c00u ? 0x7c00u : normal;
  return (Element)(sign | (size > 0x7f800000u ? 0x7e00u : size >= 0x47800000u ? 0x7c00u : finite));
}
#endif
#endif

static inline float maximum_of(float a, float b) { return (a > b) | (a != a) ? a : b; }
static inline float minimum_of(float a, float b) { return (a < b) | (a != a) ? a : b; }

/* 2 (exp(r) - 1) for |r| <= ln(2) / 2: 2e-9. */
static inline float twice_expm1_near_zero(float r) {
  float p = 0.00276872882f;
  p = p * r + 0.0167483267f;
  p = p * r + 0.0833360053f;
  p = p * r + 0.333328623f;
  p = p * r + 0.999999884f;
  p = p * r + 2.00000005f;
  return p * r;
}

/* x = n ln(2) + r and half = 2^(n-1), from -87 on. A number that large has no fraction: adding it rounds, and the lower
   bits of the sum are the exponent of half. From 89 on n is 128, and r whatever remains. */
#define ROUNDER 12583038.0f /* 1.5 * 2^23 + 126 */
#define SPLIT(x, half, r)                                                           \
  const int32_t sum = (int32_t)bits_of(x * 1.44269504f + ROUNDER);                  \
  const uint32_t exponent = (uint32_t)(sum > 0x4b4000fe ? 0x4b4000fe : sum);        \
  const float half = of_bits(exponent << 23), n = of_bits(exponent) - ROUNDER;      \
  const float r = (x - n * LN2_HIGH) - n * LN2_LOW

static inline float exp_of(float x) {
  SPLIT(x, half, r);
  const float value = (twice_expm1_near_zero(r) + 2.0f) * half;
  return x < -87.0f ? 0.0f : value;
}

static inline float expm1_of(float x) {
  SPLIT(x, half, r);
  const float value = (twice_expm1_near_zero(r) * half + (half - 0.5f)) + (half - 0.5f); /* 2^128 alone is infinite */
  return x < -87.0f ? -1.0f : value;
}

static inline float sigmoid_of(float x) { return 1.0f / (1.0f + exp_of(-x)); }

/* x P(x^2) / Q(x^2) up to 9: 2e-8. From there on it is 1 to the bit, as its slope 1 - tanh^2 is 0 there. */
static inline float tanh_of(float x) {
  const float square = x * x;
  float p = 1.33546624e-08f, q = 7.7765586e-07f;
  p = p * square + 2.06090826e-05f;
  p = p * square + 0.00349558812f;
  p = p * square + 0.133810256f;
  p = p * square + 0.999999979f;
  q = q * square + 0.000328563482f;
  q = q * square + 0.0258769821f;
  q = q * square + 0.467143412f;
  q = q * square + 1.0f;
  const float value = x * p / q;
  return fabsf(x) >= 9.0f ? copysignf(1.0f, x) : value;
}

/* x P(x^2) / Q(x^2) up to 3.92, where erf has reached 1 - 3e-8: 2e-8. */
static inline float erf_of(float x) {
  const float square = x * x;
  float p = 2.05008652e-06f, q = 3.80917565e-05f;
  p = p * square + 0.000284883662f;
  p = p * square + 0.00376564479f;
  p = p * square + 0.0527488091f;
  p = p * square + 0.190407074f;
  p = p * square + 1.12837915f;
  q = q * square + 0.00116254286f;
  q = q * square + 0.0149692717f;
  q = q * square + 0.114109368f;
  q = q * square + 0.502076616f;
  q = q * square + 1.0f;
  const float value = x * p / q;
  return fabsf(x) >= 3.92f ? copysignf(1.0f, x) : value;
}

/* erf(log(1 + exp(x))), as e P(e) / Q(e) of e = exp(x) up to 3.92, where it has reached 1 - 3e-8: 3e-8. */
static inline float erf_softplus_of(float x) {
  const float e = exp_of(x);
  float p = 0.00107723724f, q = 0.0010772313f;
  p = p * e + 0.0155351392f;
  p = p * e + 0.129792471f;
  p = p * e + 0.555387628f;
  p = p * e + 1.4569175f;
  p = p * e + 1.12837913f;
  q = q * e + 0.0155362515f;
  q = q * e + 0.129709262f;
  q = q * e + 0.558628216f;
  q = q * e + 1.38782651f;
  q = q * e + 1.79115648f;
  q = q * e + 1.0f;
  return x >= 3.92f ? 1.0f : e * p / q;
}

/* Its slope likewise, up to 4.25, where it has fallen to 1e-8: 3e-8 of it below 0, and 3e-8 of 1 above. */
static inline float erf_softplus_slope_of(float x) {
  const float e = exp_of(x);
  float p = 1.63575144e-09f, q = 2.81145712e-05f;
  p = p * e + -2.37344209e-07f;
  p = p * e + 6.67665265e-06f;
  p = p * e + 0.00064860079f;
  p = p * e + -0.0539707473f;
  p = p * e + 1.33455466f;
  p = p * e + 1.12837917f;
  q = q * e + 0.000572419655f;
  q = q * e + 0.00913433742f;
  q = q * e + 0.0716969401f;
  q = q * e + 0.371075743f;
  q = q * e + 1.13513502f;
  q = q * e + 2.1349187f;
  q = q * e + 2.18271736f;
  q = q * e + 1.0f;
  return x >= 4.25f ? 0.0f : e * p / q;
}

/* 2 artanh(s) = log((1 + s) / (1 - s)) for |s| <= 1/3: 4e-9. */
static inline float twice_artanh(float s) {
  const float square = s * s;
  float p = 0.140895129f;
  p = p * square + 0.139802343f;
  p = p * square + 0.200124591f;
  p = p * square + 0.333331573f;
  p = p * square + 1.0f;
  return 2.0f * s * p;
}

/* x = 2^n m with m between sqrt(1/2) and sqrt(2) */
static inline float log_of(float x) {
  const int small = x < 1.17549435e-38f; /* subnormal */
  const uint32_t bits = bits_of(small ? x * 8388608.0f : x) - 0x3f3504f3u;
  const float n = (float)((int32_t)bits >> 23) - (small ? 23.0f : 0.0f);
  const float f = of_bits((bits & 0x7fffffu) + 0x3f3504f3u) - 1.0f;
  const float value = n * LN2_HIGH + (n * LN2_LOW + twice_artanh(f / (2.0f + f)));
  const float outside = x == 0.0f ? -INFINITY : x > 0.0f ? x : NAN; /* infinity, negative or NaN */
  return (x > 0.0f) & (x < INFINITY) ? value : outside;
}

/* The logarithm of the rounded 1 + x, and what was rounded away. */
static inline float log1p_of(float x) {
  const float u = 1.0f + x;
  const float value = log_of(u);
  return (u > 0.0f) & (u < INFINITY) ? value + (x - (u - 1.0f)) / u : value;
}

/* log(1 + exp(x)), by e = exp(-|x|), which doesn't overflow; log(1 + e) is e P(e): 3e-8, without a division. */
static inline float softplus_of(float x) {
  const float e = exp_of(-fabsf(x));
  float p = 0.00523269502f;
  p = p * e + -0.0295052435f;
  p = p * e + 0.078225963f;
  p = p * e + -0.136632472f;
  p = p * e + 0.191060081f;
  p = p * e + -0.24842982f;
  p = p * e + 0.333190978f;
  p = p * e + -0.499994934f;
  p = p * e + 0.99999997f;
  return (x < 0.0f ? 0.0f : x) + e * p;
}

/* The logistic function, by the same exponential. */
static inline float softplus_slope_of(float x) {
  const float e = exp_of(-fabsf(x));
  const float above = 1.0f / (1.0f + e);
  return x < 0.0f ? e * above : above;
}

/* (x + sqrt(x^2 + b)) / 2, below 0 without a difference of like numbers, and its slope, which is it by the root: one
   division serves both. Far out, where x^2 is too large, the root is |x|. */
#define SQUAREPLUS(x, b)                                                            \
  const int far = fabsf(x) > 1e19f;                                                 \
  const float root = sqrtf(x * x + b), sum = root + fabsf(x);                       \
  const float divided = 1.0f / (far ? fabsf(x) : root * sum);                       \
  const float value = 0.5f * (x < 0.0f ? b * ((far ? 0.5f : root) * divided) : sum)

static inline float squareplus_of(float x, float b) {
  SQUAREPLUS(x, b);
  return x > 1e19f ? x : value;
}

static inline float squareplus_slope_of(float x, float b) {
  SQUAREPLUS(x, b);
  return far ? (float)(x > 0.0f) : value * (sum * divided);
}

/* 1 / y for y from 1 to 2, by two of Newton's steps: 1e-8. Loops that divide for something else don't wait for it. */
static inline float reciprocal_from_1_to_2(float y) {
  float r = (0.323232353f * y + -1.45454574f) * y + 2.12121248f;
  r = r * (1.0f - y * r) + r;
  return r * (1.0f - y * r) + r;
}

/* x P(x^2) up to 1: 2e-8; beyond, by that of 1 / x. */
#define NEAR(x)                         \
  const int large = fabsf(x) > 1.0f;    \
  const float near = large ? -1.0f / x : x, square = near * near

static inline float arctan_of(float x) {
  NEAR(x);
  float p = 0.0028498953f;
  p = p * square + -0.0160686541f;
  p = p * square + 0.0426915623f;
  p = p * square + -0.0750429854f;
  p = p * square + 0.106409363f;
  p = p * square + -0.142036453f;
  p = p * square + 0.199926198f;
  p = p * square + -0.333330721f;
  p = p * square + 1.0f;
  return near * p + (large ? copysignf(1.57079633f, x) : 0.0f);
}

/* 1 / (1 + x^2) */
static inline float arctan_slope_of(float x) {
  NEAR(x);
  const float value = reciprocal_from_1_to_2(1.0f + square);
  return large ? square * value : value;
}

/* Sine and cosine of x = n pi/2 + r, with pi/2 in three parts of which the first two times n are exact up to 8192.
   Beyond, x / (2 pi) is taken part by part in double precision, each product exact and its whole turns dropped: right
   for every float, and some ten times slower. */

static inline int is_far(float x) { return fabsf(x) > 8192.0f; }

static inline float rest_of_turns(float x, float *n) {
  const double parts[7] = {0x1.45f3068p-3,  0x1.727220ap-29,  0x1.29fc274p-58, 0x1.7d1f534p-86,
                           0x1.bb81b68p-115, 0x1.14acc9ep-141, 0x1.0e41070p-172}; /* of 1 / (2 pi), 28 bits each */
  double turns = 0.0;
  for (int i = 0; i < 7; i++) {
    const double product = x * parts[i];
    turns += product - rint(product);
  }
  turns -= rint(turns);
  const double quarters = rint(4.0 * turns);
  *n = (float)quarters;
  return (float)((turns - 0.25 * quarters) * 6.283185307179586);
}

static inline float rest(float x, float *n, const int exact) {
  if (exact) return rest_of_turns(x, n);
  *n = rintf(x * 0.636619772f);
  return ((x - *n * 1.5703125f) - *n * 4.837512969970703125e-4f) - *n * 7.54978995489188216e-8f;
}

/* For |r| <= pi/4: 5e-12 and 6e-11. */
static inline float wave(float r, int n) {
  const float square = r * r;
  float s = 2.71711428e-06f, c = 2.43722454e-05f;
  s = s * square + -0.000198391742f;
  s = s * square + 0.00833332868f;
  s = s * square + -0.166666666f;
  s = r + r * square * s;
  c = c * square + -0.00138865243f;
  c = c * square + 0.0416666131f;
  c = c * square + -0.499999996f;
  c = c * square + 1.0f;
  const float value = n & 1 ? c : s;
  return n & 2 ? -value : value;
}

static inline float sin_of(float x, const int exact) {
  float n;
  const float r = rest(x, &n, exact);
  return wave(r, (int)n);
}

static inline float cos_of(float x, const int exact) {
  float n;
  const float r = rest(x, &n, exact);
  return wave(r, (int)n + 1);
}
