"""Philox4x32-10 (Salmon, Moraes, Dror, Shaw 2011): random words from counters."""

# The language of kernels is not what pyright reads.
# pyright: reportArgumentType=false, reportAssignmentType=false, reportGeneralTypeIssues=false, reportOperatorIssue=false
import triton
import triton.language as tl

NODE, DRAW, POISSON = tl.constexpr(1), tl.constexpr(2), tl.constexpr(3)
PRIORITY, BERNOULLI, SUCCESSIVE = tl.constexpr(5), tl.constexpr(6), tl.constexpr(7)


@triton.jit
def philox(c0, c1, c2, c3, k0, k1):
    """Four 32-bit words for a counter of four and a key of two, all uint32."""
    for _ in tl.static_range(10):
        high0, low0 = tl.umulhi(c0, 0xD2511F53), tl.mul(c0, 0xD2511F53, sanitize_overflow=False)
        high1, low1 = tl.umulhi(c2, 0xCD9E8D57), tl.mul(c2, 0xCD9E8D57, sanitize_overflow=False)
        c0, c1, c2, c3 = high1 ^ c1 ^ k0, low1, high0 ^ c3 ^ k1, low0
        k0 = tl.add(k0, 0x9E3779B9, sanitize_overflow=False)
        k1 = tl.add(k1, 0xBB67AE85, sanitize_overflow=False)
    return c0, c1, c2, c3


@triton.jit
def unsigned(word):
    """The uint32 with the bits of an int32."""
    return word.to(tl.int32).to(tl.uint32, bitcast=True)


@triton.jit
def random_bits(x, y, purpose, attempt, k0, k1, stream):
    """R(x, y, purpose, attempt): 64 random bits, uint64, for x [n] int64 and scalars y and attempt."""
    c3 = (attempt * 256 + purpose).to(tl.uint32)
    w0, w1, w2, w3 = philox((x >> 1).to(tl.uint32), y.to(tl.uint32), unsigned(stream), c3, unsigned(k0), unsigned(k1))
    odd = (x & 1) != 0
    low, high = tl.where(odd, w2, w0), tl.where(odd, w3, w1)
    return low.to(tl.uint64) | (high.to(tl.uint64) << 32)


@triton.jit
def lane_bits(tile, purpose, k0, k1, stream, TILE: tl.constexpr):
    """R(lane, tile, purpose, 0) for every lane of a tile, uint64 [TILE]; each call serves two lanes."""
    call, zero = tl.arange(0, TILE // 2).to(tl.uint32), tl.zeros([], tl.int32)
    c3 = (zero + purpose).to(tl.uint32)
    w0, w1, w2, w3 = philox(call, tile.to(tl.uint32), unsigned(stream), c3, unsigned(k0), unsigned(k1))
    even = w0.to(tl.uint64) | (w1.to(tl.uint64) << 32)
    odd = w2.to(tl.uint64) | (w3.to(tl.uint64) << 32)
    return tl.interleave(even, odd)


def words(*numbers: int) -> tuple[int, ...]:
    """Unsigned 32-bit numbers as int32, so that their size never changes a kernel's signature."""
    return tuple(((number + (1 << 31)) & 0xFFFFFFFF) - (1 << 31) for number in numbers)


def key(seed: int) -> tuple[int, ...]:
    """The two words of the key, low first."""
    return words(seed, seed >> 32)
