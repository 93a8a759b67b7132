// Scratch memory that begins at a cache line, as tensors do: elsewhere every load of a register would touch two lines.
#pragma once

#include <cstdint>
#include <memory>
#include <new>

namespace sparseprune {

struct FreeLines {
  void operator()(void* p) const { ::operator delete(p, std::align_val_t{64}); }
};

template <class T>
using Lines = std::unique_ptr<T[], FreeLines>;

// Room for n numbers, not initialised.
template <class T>
Lines<T> lines(int64_t n) {
  return Lines<T>(static_cast<T*>(::operator new(n * sizeof(T), std::align_val_t{64})));
}

}  // namespace sparseprune
