"""Convolution of stride 1 along x on CPUs, positions of a row side by side in a vector. conv.py says where it pays."""

from ..program import c_name, empty, kernel, launch, round_up
from .activation import fused
from .gemm import vector_width
from .reduce import reduce_run

MOST_FILTERS = 6  # of a tile: each takes a register for the address of its taps
PLANE_BYTES = 16 * 2**10  # half of a core's first cache
LEAST_SHARE = 8  # images, so that adding up the lanes of the sums hardly counts
PLACES = 16  # for each core, from which on a work-item computes all filters of its place
STARTING = 50  # what a work-item costs besides its sums, in products of two vectors


def sums(device) -> int:
    """Vectors of sums that a tile may hold. With more, compilers put some of them, or the pixels, into memory."""
    return 18 if device.vector_bytes == 64 else 10


def possible(device, dtype, geo) -> bool:
    """Whether this form can do it: the kernels' vectors have 4 numbers or more, next to each other in the image."""
    return device.kind == "CPU" and geo.sx == 1 and vector_width(device, dtype) >= 4


def candidates(device, dtype, geo, pool: int = 1) -> list[dict]:
    """The tiles that conv_rows may be compiled with: TILE filters by VECTORS vectors of a row, POOL rows high."""
    if not possible(device, dtype, geo) or pool > 2:
        return []
    most = sums(device) // pool
    return [
        {"FORM": "conv_rows", "VECTORS": vectors, "TILE": tile}
        for vectors in (4, 3, 2, 1)
        for tile in range(min(most // vectors, MOST_FILTERS), 0, -1)
    ]


def cost(device, dtype, geo, pool: int, tile: dict) -> float:
    """What an image takes with a tile, in products of two vectors."""
    width = tile["VECTORS"] * vector_width(device, dtype)
    pixels, products = pool * tile["VECTORS"], pool * tile["VECTORS"] * tile["TILE"]
    tiles = geo.blocks(tile["TILE"]) * (geo.OH // pool) * -(-(geo.OW // pool * pool) // width)
    return tiles * (geo.taps * max(products + pixels + 1, 9) + 4 * products / pool + STARTING)


def rows_kernel(device, name, dtype, geo=None, tile=1, vectors=1, pool=1, **defines):
    sizes = {"V": vector_width(device, dtype), "VECTORS": vectors, "TILE": tile, "POOL": pool}
    taps = {"KW": geo.KW, "DX": geo.dx} if geo else {}
    return kernel(device, "conv_rows", name, REAL=c_name(dtype), **sizes, **taps, **defines)


def padded(device, x, height, width, py, px):
    """Images x with borders: ``py`` rows and ``px`` columns of zeros first, as many behind as make up the size."""
    (count, channels, h, w), size = x.shape, (height, width)
    if (h, w) == size and not py and not px:
        return x
    out, rows = empty(device, (count, channels, *size), x.dtype), count * channels * height
    launch(device, rows_kernel(device, "pad_planes", x.dtype), (rows,), (16,), x, out, rows, h, w, *size, py, px)
    return out


def bordered(device, x, geo, positions):
    """Images with their border, high enough for all rows of the result, wide enough for ``positions`` of each."""
    height = max(geo.H + geo.py, (geo.OH - 1) * geo.sy + geo.dy * (geo.KH - 1) + 1)
    width = max(geo.W + geo.px, positions + geo.dx * (geo.KW - 1))
    return padded(device, x, height, width, geo.py, geo.px)


def forward_rows(device, x, w, bias, geo, out, tiling, winner=None, activation=None):
    """y by tiles of TILE filters and VECTORS vectors of a row, max pooled and activated where wanted."""
    pool, width = tiling.POOL, tiling.VECTORS * tiling.V
    tiles = -(-(geo.OW // pool * pool) // width)
    images = bordered(device, x, geo, tiles * width)
    options = fused(activation, x.dtype) | ({"PLACES": 1} if winner is not None and pool == 2 else {})
    knl = rows_kernel(device, "conv_rows", x.dtype, geo, tiling.TILE, tiling.VECTORS, pool, **options)
    places, of_group = geo.OH // pool * tiles * x.shape[0] * geo.groups, geo.blocks(tiling.TILE) // geo.groups
    blocks = of_group if places >= PLACES * device.cores else 1
    size = (geo.OH // pool * tiles, -(-of_group // blocks), x.shape[0] * geo.groups)
    launch(
        device, knl, size, (1, 1, 1), images, w, bias, out, winner,
        geo.C, *images.shape[2:], geo.F, geo.OH, geo.OW, geo.groups, geo.KH, geo.sy, geo.dy, blocks,
        flops=geo.flops(x.shape[0], pool),
    )  # fmt: skip


def weight_filters(device, geo) -> int:
    """The filters of a tile of weight_rows: as many as leave their sums in registers, none if a row of taps is long."""
    return min(sums(device) // geo.KW, MOST_FILTERS)


def weight_cost(device, dtype, geo) -> float:
    """What an image's part of the gradient takes, in products of two vectors."""
    tile, vectors = weight_filters(device, geo), -(-geo.OW // vector_width(device, dtype))
    steps = geo.C // geo.groups * geo.KH * geo.OH * vectors * geo.blocks(tile)
    return steps * max((tile + 0.5) * geo.KW, 9)


def backward_weight_rows(device, x, g, geo, out):
    """The gradient by the filters, a row of taps at a time. The images are shared out so that what a share needs for
    all rows of taps stays in a core's first cache."""
    tile, count = weight_filters(device, geo), x.shape[0]
    filled = round_up(geo.OW, vector_width(device, x.dtype))
    images, slopes = bordered(device, x, geo, filled), padded(device, g, geo.OH, filled, 0, 0)
    strips, blocks = geo.C // geo.groups * geo.KH, geo.blocks(tile) // geo.groups
    share = PLANE_BYTES // ((images.shape[2] * images.shape[3] + tile * geo.OH * filled) * x.dtype.itemsize)
    share = min(max(share, LEAST_SHARE), -(-count * strips * blocks * geo.groups // (4 * device.cores)), count)
    parts = -(-count // share)
    result = out if parts == 1 else empty(device, (parts, out.size), out.dtype)
    knl = rows_kernel(device, "weight_rows", x.dtype, geo, tile, ACROSS=filled // vector_width(device, x.dtype))
    launch(
        device, knl, (strips, blocks, geo.groups * parts), (1, 1, 1),
        images, slopes, result, count, geo.C, *images.shape[2:], geo.F, geo.OH, geo.groups, geo.KH, geo.sy,
        geo.dy, share, flops=geo.flops(count),
    )  # fmt: skip
    if parts > 1:
        reduce_run(device, "sum", result, 1, parts, out.size, out)
