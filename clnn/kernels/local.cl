// The windows of images x[N][C][H][W] as rows of matrices, one matrix a position: what a locally connected layer
// multiplies with that position's own filters.
//
// Position l = (oy, ox) has the matrix rows[l][N][K], where k = (c, ky, kx) holds pixel (oy * sy - py + ky,
// ox * sx - px + kx) of channel c, or zero beyond the border.

#ifndef REAL
#define REAL float
#endif

#define SIZES int N, int C, int H, int W, int OH, int OW, int KH, int KW, int sy, int sx, int py, int px

// One work-item a channel, image and position
__kernel void windows_to_rows(__global const REAL *x, __global REAL *rows, SIZES)
{
    int c = get_global_id(0), n = get_global_id(1), l = get_global_id(2);
    if (c >= C) return;
    int top = l / OW * sy - py, left = l % OW * sx - px;
    x += ((size_t)n * C + c) * H * W;
    rows += (((size_t)l * N + n) * C + c) * KH * KW;
    for (int ky = 0; ky < KH; ky++)
        for (int kx = 0; kx < KW; kx++) {
            int iy = top + ky, ix = left + kx;
            rows[ky * KW + kx] = iy >= 0 && iy < H && ix >= 0 && ix < W ? x[iy * W + ix] : 0;
        }
}

// The gradient: a pixel collects from every window that holds it, always in the same order. One work-item a pixel,
// channel and image
__kernel void rows_to_windows(__global const REAL *rows, __global REAL *dx, SIZES)
{
    int i = get_global_id(0), c = get_global_id(1), n = get_global_id(2), iy = i / W, ix = i % W;
    if (i >= H * W) return;
    REAL sum = 0;
    for (int ky = 0; ky < KH; ky++)
        for (int kx = 0; kx < KW; kx++) {
            int y = iy + py - ky, x = ix + px - kx;
            if (y < 0 || x < 0 || y % sy || x % sx || y / sy >= OH || x / sx >= OW) continue;
            int l = y / sy * OW + x / sx;
            sum += rows[((((size_t)l * N + n) * C + c) * KH + ky) * KW + kx];
        }
    dx[((size_t)n * C + c) * H * W + i] = sum;
}
