// y = W x + bias by the kept weights: row after row, in tiles of the batch.
#include "cpu/spmm.h"

#include <numeric>
#include <vector>

#include "lines.h"

#define KERNELS "cpu/spmm_kernels.h"
#include "each_isa.h"

namespace sparseprune {
namespace {

// Tiles of columns [0, width), ... times `parts` ranges of rows of equal cost: as many items as threads, or a multiple.
template <class T>
class SpmmWork {
 public:
  explicit SpmmWork(const Spmm<T>& p)
      : p_(p),
        width_(ON_ISA(spmm_width<T>(p))),
        tiles_((p.batch + width_ - 1) / width_) {
    const int64_t lanes = ON_ISA(Vec<Sum<T>>::LANES), vectors = (p.batch + lanes - 1) / lanes;
    const int64_t threads = threads_for((p.w.entries + p.w.rows) * vectors);
    parts_ = threads / std::gcd(threads, tiles_);
  }

  int64_t items() const { return tiles_ * parts_; }

  void run(int64_t begin, int64_t end) const {
    Lines<T> packed;
    std::vector<int32_t> cursors;
    int64_t held = -1;
    for (int64_t item = begin; item < end; ++item) {
      const int64_t tile = item / parts_, part = item % parts_, column = tile * width_;
      const int64_t columns = std::min(width_, p_.batch - column);
      SpmmBlock<T> block{balanced(p_.w.offsets, p_.w.rows, ROW_COST, part, parts_),
                         balanced(p_.w.offsets, p_.w.rows, ROW_COST, part + 1, parts_),
                         column, p_.x + column, p_.batch, nullptr};
      if (worth_packing(p_.batch, width_, p_.inputs, p_.w.entries / parts_)) {
        if (!packed) packed = lines<T>(p_.inputs * width_);
        if (held != tile) pack(block.x, columns, packed.get());
        held = tile;
        block.x = packed.get();
        block.pitch = width_;
      }
      cursors.resize(block.end - block.row);
      block.cursors = cursors.data();
      ON_ISA(spmm_tile<T>(p_, block, columns));
    }
  }

 private:
  void pack(const T* x, int64_t columns, T* packed) const {
    for (int64_t k = 0; k < p_.inputs; ++k) std::memcpy(packed + k * width_, x + k * p_.batch, columns * sizeof(T));
  }

  const Spmm<T>& p_;
  int64_t width_, tiles_, parts_;
};

Tensor spmm_cpu(Tensor values, Tensor offsets, Tensor indices, std::optional<Tensor> order, Tensor dense,
                std::optional<Tensor> bias) {
  const Pattern w = pattern("spmm", offsets, indices, order);
  const ScalarType type = dense.scalar_type();
  dense = matrix("spmm", "dense", dense, type, -1, -1);
  values = vector("spmm", "values", values, type, w.entries);
  if (bias) bias = vector("spmm", "bias", *bias, type, w.rows);
  Tensor result = torch::stable::new_empty(dense, {w.rows, dense.size(1)});
  on_type("spmm", type, [&]<class T>() {
    const Spmm<T> p{w, data<T>(values), bias ? data<T>(*bias) : nullptr, data<T>(dense),
                    static_cast<T*>(result.data_ptr()), dense.size(0), dense.size(1)};
    const SpmmWork<T> work(p);
    torch::stable::parallel_for(0, work.items(), 1, [&](int64_t begin, int64_t end) { work.run(begin, end); });
  });
  return result;
}

}  // namespace
}  // namespace sparseprune

STABLE_TORCH_LIBRARY_IMPL(sparseprune, CPU, m) { m.impl("spmm", TORCH_BOX(&sparseprune::spmm_cpu)); }
