"""Keys whose order selects: of the values themselves, or of a race between them; as a fixed sequence of IEEE steps."""

# The language of kernels is not what pyright reads.
# pyright: reportArgumentType=false, reportAssignmentType=false, reportGeneralTypeIssues=false, reportOperatorIssue=false
import triton
import triton.language as tl

from ._elements import TILE, fp64, rescale
from ._philox import PRIORITY, SUCCESSIVE, lane_bits

PLAIN, PRIORITY_RACE, SUCCESSIVE_RACE = tl.constexpr(0), tl.constexpr(1), tl.constexpr(2)


@triton.jit
def uniforms(bits):
    """u in [2^-64, 1] from 64 random bits: fp64(high 32) 2^-32 + (fp64(low 32) + 1) 2^-64."""
    high, low = (bits >> 32).to(tl.uint32), bits.to(tl.uint32)
    return high.to(tl.float64) * 2.3283064365386963e-10 + (low.to(tl.float64) + 1.0) * 5.421010862427522e-20


@triton.jit
def negative_log(u):
    """-log u, at least 2^-64, for u in [2^-64, 1]: an atanh series after frexp; the reference's steps."""
    bits = u.to(tl.int64, bitcast=True)
    e = ((bits >> 52) - 1022).to(tl.int32)
    f = ((bits & 0xFFFFFFFFFFFFF) | 0x3FE0000000000000).to(tl.float64, bitcast=True)
    small = f < fp64(0.7071067811865476)
    f = tl.where(small, f * 2.0, f)
    e = tl.where(small, e - 1, e).to(tl.float64)
    s = (f - 1.0) / (f + 1.0)
    square = s * s
    series = fp64(1.0 / 21.0)
    for i in tl.static_range(10):
        series = series * square + fp64(1.0 / (19 - 2 * i))
    log = e * fp64(0.6931471805599453) + 2.0 * (s * series)
    return -tl.where(log < -5.421010862427522e-20, log, -5.421010862427522e-20)


@triton.jit
def race_values(v, tile, exponent, k0, k1, stream, RACE: tl.constexpr):
    """Values and what their keys order: v itself, v/u (priority) or v/(-log u) (successive draws)."""
    keyed = v
    if RACE == PRIORITY_RACE:
        v = rescale(v, exponent)
        keyed = v / uniforms(lane_bits(tile, PRIORITY, k0, k1, stream, TILE))
    elif RACE == SUCCESSIVE_RACE:
        v = rescale(v, exponent)
        keyed = v / negative_log(uniforms(lane_bits(tile, SUCCESSIVE, k0, k1, stream, TILE)))
    return v, keyed


@triton.jit
def order_keys(v):
    """The bits of v, the low 63 inverted for negative numbers."""
    bits = v.to(tl.int64, bitcast=True)
    return tl.where(bits < 0, bits ^ 0x7FFFFFFFFFFFFFFF, bits)
