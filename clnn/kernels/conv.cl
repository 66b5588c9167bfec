// Convolution of images x[N][C][H][W] with filters w[F][C / groups][KH][KW] to y[N][F][OH][OW].
//
// Plain kernels, one work-item an element, the definition to read and to check against:
//   conv_forward, conv_backward_data, conv_backward_weight
// Helpers of the fast form, which turns all three into the matrix product of gemm.cl ("im2col", Chellapilla et
// al. 2006) but writes the unfolded image straight into that product's panels of COLUMNS columns:
//   pack_windows      rows (c, ky, kx), columns = positions of the result       -> forward
//   pack_windows_t    the same transposed, columns = (c, ky, kx)                -> gradient of the filters
//   turn_filters      w as [C][F / groups][KH][KW], turned by 180 degrees       -> gradient of the image
//   interleave        with a stride: that gradient from its sy * sx parts
// The gradient of the image is itself a convolution, of the result's gradient with the turned filters.
//
// A tap (ky, kx) of result (oy, ox) reads pixel (oy * sy - py + ky * dy, ox * sx - px + kx * dx); outside the
// image is zero.

#ifndef REAL
#define REAL float
#define COLUMNS 16
#endif

#define GEOMETRY                                                                                       \
    int C, int H, int W, int F, int OH, int OW, int groups, int KH, int KW, int sy, int sx, int py, int px, \
    int dy, int dx

__kernel void conv_forward(
    __global const REAL *x, __global const REAL *w, __global const REAL *bias, __global REAL *y, GEOMETRY)
{
    int o = get_global_id(0), f = get_global_id(1), n = get_global_id(2);
    if (o >= OH * OW || f >= F) return;
    int oy = o / OW, ox = o % OW, per_group = C / groups, c0 = f / (F / groups) * per_group;
    REAL sum = bias ? bias[f] : 0;
    for (int c = 0; c < per_group; c++)
        for (int ky = 0; ky < KH; ky++)
            for (int kx = 0; kx < KW; kx++) {
                int iy = oy * sy - py + ky * dy, ix = ox * sx - px + kx * dx;
                if (iy >= 0 && iy < H && ix >= 0 && ix < W)
                    sum += w[((f * per_group + c) * KH + ky) * KW + kx] * x[((n * C + c0 + c) * H + iy) * W + ix];
            }
    y[(n * F + f) * OH * OW + o] = sum;
}

// Each pixel collects from the results that read it.
__kernel void conv_backward_data(
    __global const REAL *g, __global const REAL *w, __global REAL *dx_, GEOMETRY)
{
    int i = get_global_id(0), c = get_global_id(1), n = get_global_id(2);
    if (i >= H * W || c >= C) return;
    int iy = i / W, ix = i % W, per_group = C / groups, filters = F / groups, group = c / per_group;
    REAL sum = 0;
    for (int f = group * filters; f < (group + 1) * filters; f++)
        for (int ky = 0; ky < KH; ky++)
            for (int kx = 0; kx < KW; kx++) {
                int ty = iy + py - ky * dy, tx = ix + px - kx * dx;
                if (ty < 0 || ty % sy || ty / sy >= OH || tx < 0 || tx % sx || tx / sx >= OW) continue;
                sum += w[((f * per_group + c % per_group) * KH + ky) * KW + kx]
                    * g[((n * F + f) * OH + ty / sy) * OW + tx / sx];
            }
    dx_[(n * C + c) * H * W + i] = sum;
}

__kernel void conv_backward_weight(
    __global const REAL *x, __global const REAL *g, __global REAL *dw, int N, GEOMETRY)
{
    int k = get_global_id(0), f = get_global_id(1), per_group = C / groups;
    if (k >= per_group * KH * KW || f >= F) return;
    int c = f / (F / groups) * per_group + k / (KH * KW), ky = k / KW % KH, kx = k % KW;
    REAL sum = 0;
    for (int n = 0; n < N; n++)
        for (int oy = 0; oy < OH; oy++)
            for (int ox = 0; ox < OW; ox++) {
                int iy = oy * sy - py + ky * dy, ix = ox * sx - px + kx * dx;
                if (iy >= 0 && iy < H && ix >= 0 && ix < W)
                    sum += g[((n * F + f) * OH + oy) * OW + ox] * x[((n * C + c) * H + iy) * W + ix];
            }
    dw[f * per_group * KH * KW + k] = sum;
}

// panels[image][group][panel of positions][row (c, ky, kx)][COLUMNS]; the images count from `first`
__kernel void pack_windows(__global const REAL *x, __global REAL *panels, int first, GEOMETRY)
{
    int per_group = C / groups, rows = per_group * KH * KW;
    int row = get_global_id(0), panel = get_global_id(1), batch = get_global_id(2);
    if (row >= rows) return;
    int c = row / (KH * KW), ky = row / KW % KH, kx = row % KW, last = OH * OW;
    x += ((first + batch / groups) * C + batch % groups * per_group + c) * H * W;
    panels += ((size_t)(batch * (int)get_global_size(1) + panel) * rows + row) * COLUMNS;
    int o = panel * COLUMNS, oy = o / OW, ox = o % OW;
    for (int j = 0; j < COLUMNS; j++, o++) {
        int iy = oy * sy - py + ky * dy, ix = ox * sx - px + kx * dx;
        panels[j] = o < last && iy >= 0 && iy < H && ix >= 0 && ix < W ? x[iy * W + ix] : 0;
        if (++ox == OW) {
            ox = 0;
            oy++;
        }
    }
}

// panels[group][panel of (c, ky, kx)][image][position][COLUMNS]: the sum over images becomes one long sum
__kernel void pack_windows_t(__global const REAL *x, __global REAL *panels, int first, int images, GEOMETRY)
{
    int per_group = C / groups, rows = per_group * KH * KW;
    int o = get_global_id(0), panel = get_global_id(1), batch = get_global_id(2);
    if (o >= OH * OW) return;
    int group = batch / images, image = batch % images, oy = o / OW, ox = o % OW, k = panel * COLUMNS;
    x += ((first + image) * C + group * per_group) * H * W;
    panels += (((size_t)(group * (int)get_global_size(1) + panel) * images + image) * OH * OW + o) * COLUMNS;
    int c = k / (KH * KW), ky = k / KW % KH, kx = k % KW;
    for (int j = 0; j < COLUMNS; j++) {
        int iy = oy * sy - py + ky * dy, ix = ox * sx - px + kx * dx;
        panels[j] = k + j < rows && iy >= 0 && iy < H && ix >= 0 && ix < W ? x[(c * H + iy) * W + ix] : 0;
        if (++kx == KW) {
            kx = 0;
            if (++ky == KH) {
                ky = 0;
                c++;
            }
        }
    }
}

// The filters as the image's gradient needs them: input and output channels of each group swapped, taps turned round.
//
// Taps that lie a stride apart read the same pixels, others never: the image falls into sy * sx interleaved ones, each
// with filters of its own, JH x JW of the taps. Neighbours among these lie step_y, step_x pixels apart; where the window
// is not that large, or dilation leaves a gap, there is a zero.
__kernel void turn_filters(
    __global const REAL *w, __global REAL *out, int JH, int JW, int step_y, int step_x, GEOMETRY)
{
    int i = get_global_id(0), per_group = C / groups, filters = F / groups;
    if (i >= C * sy * sx * filters) return;
    int f = i % filters, plane = i / filters;
    int rx = plane % sx, ry = plane / sx % sy, c = plane / (sx * sy) % per_group, group = plane / (sx * sy * per_group);
    w += ((size_t)(group * filters + f) * per_group + c) * KH * KW;
    out += (size_t)i * JH * JW;
    for (int jy = JH - 1, y = ry; jy >= 0; jy--, y += step_y)
        for (int jx = JW - 1, x = rx; jx >= 0; jx--, x += step_x) {
            bool is_tap = y % dy == 0 && x % dx == 0 && y / dy < KH && x / dx < KW;
            out[jy * JW + jx] = is_tap ? w[y / dy * KW + x / dx] : 0;
        }
}

// image[N][C][H][W] from its interleaved parts[N][C][sy][sx][PH][PW], which begin at the first pixels inside; each
// work-item every sx-th pixel of a row
__kernel void interleave(__global const REAL *parts, __global REAL *image, int PH, int PW, GEOMETRY)
{
    int rx = get_global_id(0), iy = get_global_id(1), plane = get_global_id(2), y = iy + py;
    if (rx >= sx || iy >= H) return;
    int first = (rx - px % sx + sx) % sx;
    parts += ((((size_t)plane * sy + y % sy) * sx + rx) * PH + y / sy - py / sy) * PW + (first + px) / sx - px / sx;
    image += ((size_t)plane * H + iy) * W;
    for (int ix = first; ix < W; ix += sx)
        image[ix] = *parts++;
}
