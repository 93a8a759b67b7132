"""Reading and writing elements inside a kernel: exact conversions, one rounding a step, no fused multiply-add."""

# The language of kernels is not what pyright reads.
# pyright: reportArgumentType=false, reportAssignmentType=false, reportGeneralTypeIssues=false, reportOperatorIssue=false
import triton
import triton.language as tl

TILE = tl.constexpr(4096)
GIVEN, ABS, SQUARE = tl.constexpr(0), tl.constexpr(1), tl.constexpr(2)
M, COUNTS, WEIGHTS, BOOL = tl.constexpr(0), tl.constexpr(1), tl.constexpr(2), tl.constexpr(3)


@triton.jit
def fp64(number: tl.constexpr):
    """An fp64 constant. A bare number may be made fp32 first (in Triton 3.6: in comparisons, tl.where, tl.maximum).

    Powers of two from 2^-126 to 2^127 survive that and stay bare.
    """
    return tl.full([], number, tl.float64)


@triton.jit
def widen(x, to: tl.constexpr):
    """x in the type `to`; bfloat16 by its bits, as Triton's interpreter does not convert it to fp64."""
    if x.dtype == tl.bfloat16:
        x = (x.to(tl.uint16, bitcast=True).to(tl.uint32) << 16).to(tl.float32, bitcast=True)
    return x.to(to)


@triton.jit
def narrow(x, to: tl.constexpr):
    """x in the type `to`; half types by way of fp32, as torch; bfloat16 by its bits, as the interpreter truncates."""
    if to == tl.float16:
        x = x.to(tl.float32).to(tl.float16)
    elif to == tl.bfloat16:
        x = x.to(tl.float32)
        bits = x.to(tl.uint32, bitcast=True)
        even = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16
        x = tl.where(x == x, even, 0x7FC0).to(tl.uint16).to(tl.bfloat16, bitcast=True)
    else:
        x = x.to(to)
    return x


@triton.jit
def read(score, factor, at, live, skip, period, TRANSFORM: tl.constexpr, FACTORED: tl.constexpr):
    """v = score, |score f| or score^2 f as fp64; -0 becomes 0, and so do lanes that are not live."""
    v = widen(tl.load(score + at, mask=live, other=0), tl.float64)
    if TRANSFORM == SQUARE:
        v = v * v
    if FACTORED:
        v = v * widen(tl.load(factor + (at + skip) % period, mask=live, other=0), tl.float64)
    if TRANSFORM == ABS:
        v = tl.abs(v)
    return v + 0.0


@triton.jit
def write(out, weight, at, live, value, OUTPUT: tl.constexpr, WIDE: tl.constexpr):
    """Store m or w m (`value` = m), counts or count > 0 (`value` = count); `value` is fp64.

    m is rounded to fp32 unless WIDE; w m is one product in fp64 if either is fp64, else in fp32.
    """
    if OUTPUT == COUNTS:
        result = value.to(tl.int32)
    elif OUTPUT == BOOL:
        result = value > 0
    elif OUTPUT == WEIGHTS:
        to: tl.constexpr = tl.float64 if WIDE or weight.dtype.element_ty == tl.float64 else tl.float32
        m = value if WIDE else value.to(tl.float32)
        result = m.to(to) * widen(tl.load(weight + at, mask=live, other=0), to)
    else:
        result = value if WIDE else value.to(tl.float32)
    tl.store(out + at, narrow(result, out.dtype.element_ty), mask=live)


@triton.jit
def tile_number(tiles, first, row, LISTED: tl.constexpr):
    """The tile in row `row` of a run: listed where tiles were gathered, else consecutive."""
    return tl.load(tiles + row) if LISTED else first.to(tl.int64) + row


@triton.jit
def global_number(ids, tile, NUMBERED: tl.constexpr):
    """The number of a tile in the one vector of which this one is a rank's share: random counters name it."""
    return tl.load(ids + tile) if NUMBERED else tile


@triton.jit
def power_of_two(exponent):
    """2^exponent as fp64, exactly, for -1022 <= exponent <= 1023."""
    return ((exponent.to(tl.int64) + 1023) << 52).to(tl.float64, bitcast=True)


@triton.jit
def exponent_of(v):
    """The frexp exponent of a finite v >= 0 (v = f 2^e, 1/2 <= f < 1); 0 for 0."""
    small = v < fp64(2.2250738585072014e-308)
    scaled = v * tl.where(small, 18014398509481984.0, 1.0)  # 2^54: a subnormal becomes normal
    exponent = ((scaled.to(tl.int64, bitcast=True) >> 52) - 1022).to(tl.int32) - tl.where(small, 54, 0)
    return tl.where(v > 0, exponent, 0)


@triton.jit
def rescale(v, exponent):
    """v 2^-exponent, at least 2^-1022, where v > 0, else 0; in two steps, as 2^-exponent itself may not be finite."""
    shift = -exponent.to(tl.int32)
    half = shift >> 1
    scaled = (v * power_of_two(half)) * power_of_two(shift - half)
    least = power_of_two(tl.full([], -1022, tl.int32))
    return tl.where(v > 0, tl.where(scaled > least, scaled, least), 0.0)


@triton.jit
def quantize(v, exponent):
    """q = max(1, trunc(v 2^(31-e))) where v > 0, else 0 (int64); in two steps, as 2^(31-e) itself may not be finite."""
    shift = 31 - exponent
    half = shift >> 1
    q = ((v * power_of_two(half)) * power_of_two(shift - half)).to(tl.int64)
    return tl.where(v > 0, tl.maximum(q, 1), 0)
