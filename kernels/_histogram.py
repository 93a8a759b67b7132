"""Adding the lanes of a tile to counters that programs share: integers only, so that the order does not matter."""

# The language of kernels is not what pyright reads.
# pyright: reportArgumentType=false, reportAssignmentType=false, reportGeneralTypeIssues=false, reportOperatorIssue=false
import triton
import triton.language as tl


@triton.jit
def add(counter, amount):
    """One addition of a scalar, left out where it is 0."""
    tl.atomic_add(counter, amount, mask=amount != 0, sem="relaxed")


@triton.jit
def tally(counters, slot, amount, inside):
    """Add the amounts of the lanes inside; those of the lowest slot (zeros and other ties meet there) as one."""
    slot = tl.where(inside, slot, 0x7FFFFFFF)
    lowest = tl.min(slot, axis=0)
    common = slot == lowest
    together = tl.sum(tl.where(inside & common, amount, 0), axis=0)
    tl.atomic_add(counters + slot, amount, mask=inside & ~common, sem="relaxed")
    add(counters + lowest, together)
