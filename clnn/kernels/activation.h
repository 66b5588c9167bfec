// The activation functions themselves, for every kernel that applies one; -DDOUBLE for double.
//
// exp and tanh are written out for float because some compilers make a slow call of each built-in.

#ifdef DOUBLE
#define EXP exp
#define TANH tanh
#else
// e^x = 2^k e^r with k the nearest integer to x / ln 2 and |r| <= ln 2 / 2, e^r by its Taylor series.
// ln 2 is subtracted in two parts, so that r keeps its digits (Cody and Waite 1980).
static inline float fast_exp(float x)
{
    float inside = x < -87.0f ? -87.0f : x > 88.0f ? 88.0f : x;
    float scaled = inside * 1.44269504f;
    int k = (int)(scaled + (scaled < 0 ? -0.5f : 0.5f));
    float r = inside - k * 0.693359375f;
    r = r + k * 2.12194440e-4f;
    float p = 1.0f / 5040;
    p = p * r + 1.0f / 720;
    p = p * r + 1.0f / 120;
    p = p * r + 1.0f / 24;
    p = p * r + 1.0f / 6;
    p = p * r + 0.5f;
    p = p * r + 1.0f;
    p = p * r + 1.0f;
    return p * as_float((k + 127) << 23);
}

// x P(x^2) / Q(x^2), the quotient nearest to tanh over -7.9 .. 7.9 in the largest relative error (1.7e-8, found by
// weighted least squares); beyond that tanh differs from 1 by less than a float can tell.
static inline float fast_tanh(float x)
{
    float inside = x < -7.9f ? -7.9f : x > 7.9f ? 7.9f : x, s = inside * inside;
    float p = 2.410634479e-11f;
    p = p * s - 1.490671353e-8f;
    p = p * s + 9.939350462e-6f;
    p = p * s + 2.992115579e-3f;
    p = p * s + 1.298492706e-1f;
    p = p * s + 1.0f;
    float q = 2.380893589e-4f;
    q = q * s + 2.405316968e-2f;
    q = q * s + 4.631824502e-1f;
    q = q * s + 1.0f;
    return inside * p / q;
}
#define EXP fast_exp
#define TANH fast_tanh
#endif
#define RELU(x) ((x) < 0 ? 0 : (x))  // written so that NaN stays NaN
#define SIGMOID(x) (1 / (1 + EXP(-(x))))

// The gradient before the function, from the gradient g behind it and its result y: tanh' = 1 - y^2, sigmoid' = y (1 - y)
#define RELU_SLOPE(y, g) ((y) > 0 ? (g) : 0)
#define TANH_SLOPE(y, g) ((g) * (1 - (y) * (y)))
#define SIGMOID_SLOPE(y, g) ((g) * (y) * (1 - (y)))
