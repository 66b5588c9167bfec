// Max and average pooling of x[planes][H][W] to y[planes][OH][OW], one work-item an element of the result.
//
// The window of (oy, ox) starts at (oy * stride - pad, ox * stride - pad). Backward is written from the input's
// side: a pixel collects from every window that covers it. So each sum has one owner and a fixed order.

#ifndef REAL
#define REAL float
#endif

__kernel void max_pool(
    __global const REAL *x, __global REAL *y, __global int *winner, int planes, int H, int W, int OH, int OW,
    int kh, int kw, int sh, int sw, int ph, int pw, int dh, int dw)
{
    int ox = get_global_id(0), oy = get_global_id(1), plane = get_global_id(2);
    if (ox >= OW || oy >= OH) return;
    x += (size_t)plane * H * W;
    REAL top = -INFINITY;
    int at = -1;
    for (int ky = 0; ky < kh; ky++)
        for (int kx = 0; kx < kw; kx++) {
            int iy = oy * sh - ph + ky * dh, ix = ox * sw - pw + kx * dw;
            if (iy < 0 || iy >= H || ix < 0 || ix >= W) continue;
            REAL v = x[iy * W + ix];
            if (at < 0 || v > top || v != v) {
                top = v;
                at = iy * W + ix;
            }
        }
    size_t o = ((size_t)plane * OH + oy) * OW + ox;
    y[o] = top;
    winner[o] = at;  // the place in the plane that the gradient goes back to
}

__kernel void max_pool_backward(
    __global const REAL *g, __global const int *winner, __global REAL *dx,
    int planes, int H, int W, int OH, int OW, int kh, int kw, int sh, int sw, int ph, int pw, int dh, int dw)
{
    int ix = get_global_id(0), iy = get_global_id(1), plane = get_global_id(2);
    if (ix >= W || iy >= H) return;
    g += (size_t)plane * OH * OW;
    winner += (size_t)plane * OH * OW;
    int me = iy * W + ix;
    // The first and last window that can cover this pixel.
    int y0 = (iy + ph - (kh - 1) * dh + sh - 1) / sh, y1 = (iy + ph) / sh;
    int x0 = (ix + pw - (kw - 1) * dw + sw - 1) / sw, x1 = (ix + pw) / sw;
    if (iy + ph - (kh - 1) * dh < 0) y0 = 0;
    if (ix + pw - (kw - 1) * dw < 0) x0 = 0;
    if (y1 > OH - 1) y1 = OH - 1;
    if (x1 > OW - 1) x1 = OW - 1;
    REAL sum = 0;
    for (int oy = y0; oy <= y1; oy++)
        for (int ox = x0; ox <= x1; ox++)
            sum += winner[oy * OW + ox] == me ? g[oy * OW + ox] : 0;
    dx[(size_t)plane * H * W + me] = sum;
}

// The same where windows do not overlap: each window writes its own pixels. dx holds zeros before.
__kernel void max_pool_backward_apart(
    __global const REAL *g, __global const int *winner, __global REAL *dx,
    int planes, int H, int W, int OH, int OW, int kh, int kw, int sh, int sw, int ph, int pw, int dh, int dw)
{
    int o = get_global_id(0), plane = get_global_id(1);
    if (o >= OH * OW) return;
    size_t from = (size_t)plane * OH * OW + o;
    dx[(size_t)plane * H * W + winner[from]] = g[from];
}

// How many elements a window's mean divides by: those of the window cut to the padded image, or to the image.
static inline int window_size(int o, int k, int s, int p, int n, int count_include_pad)
{
    int from = o * s - p, to = from + k;
    int low = count_include_pad ? from : (from < 0 ? 0 : from);
    int high = count_include_pad ? (to > n + p ? n + p : to) : (to > n ? n : to);
    return high - low;
}

__kernel void avg_pool(
    __global const REAL *x, __global REAL *y, int planes, int H, int W, int OH, int OW,
    int kh, int kw, int sh, int sw, int ph, int pw, int count_include_pad)
{
    int ox = get_global_id(0), oy = get_global_id(1), plane = get_global_id(2);
    if (ox >= OW || oy >= OH) return;
    x += (size_t)plane * H * W;
    REAL sum = 0;
    for (int ky = 0; ky < kh; ky++)
        for (int kx = 0; kx < kw; kx++) {
            int iy = oy * sh - ph + ky, ix = ox * sw - pw + kx;
            if (iy >= 0 && iy < H && ix >= 0 && ix < W)
                sum += x[iy * W + ix];
        }
    int count = window_size(oy, kh, sh, ph, H, count_include_pad) * window_size(ox, kw, sw, pw, W, count_include_pad);
    y[((size_t)plane * OH + oy) * OW + ox] = sum / count;
}

__kernel void avg_pool_backward(
    __global const REAL *g, __global REAL *dx, int planes, int H, int W, int OH, int OW,
    int kh, int kw, int sh, int sw, int ph, int pw, int count_include_pad)
{
    int ix = get_global_id(0), iy = get_global_id(1), plane = get_global_id(2);
    if (ix >= W || iy >= H) return;
    g += (size_t)plane * OH * OW;
    REAL sum = 0;
    for (int oy = 0; oy < kh; oy++) {  // window row (iy + ph) / sh - oy, if it covers this pixel
        int wy = (iy + ph) / sh - oy;
        if (wy < 0) break;
        if (wy >= OH || wy * sh - ph + kh <= iy) continue;
        for (int ox = 0; ox < kw; ox++) {
            int wx = (ix + pw) / sw - ox;
            if (wx < 0) break;
            if (wx >= OW || wx * sw - pw + kw <= ix) continue;
            sum += g[wy * OW + wx] / (window_size(wy, kh, sh, ph, H, count_include_pad)
                                      * window_size(wx, kw, sw, pw, W, count_include_pad));
        }
    }
    dx[((size_t)plane * H + iy) * W + ix] = sum;
}
