#include "server/backends/torch/test_support.h"

#include <ATen/ops/empty.h>

namespace waldo::torch_backend::test {

at::Tensor Worker::get(uint32_t index, const wire::TensorMeta& meta, uint16_t q) {
  GeometryTable geometries;
  const Geometry& geometry = *geometries.intern(meta).value();
  const auto bytes = static_cast<int64_t>(geometry.bytes_at(meta.offset).value());
  const at::Tensor content = at::empty({bytes}, at::TensorOptions().dtype(c10::ScalarType::Byte));
  int64_t done = 0;
  const Status status =
      queue(q).read(slot(index, q), 0, static_cast<uint64_t>(bytes), [&](std::span<const std::byte> chunk) {
        std::memcpy(static_cast<std::byte*>(content.mutable_data_ptr()) + done, chunk.data(), chunk.size());
        done += static_cast<int64_t>(chunk.size());
        return Status();
      });
  EXPECT_TRUE(status.ok()) << status.to_string();
  EXPECT_EQ(done, bytes);
  return make_tensor(content.storage(), geometry, meta.offset, c10::DispatchKeySet(c10::DispatchKey::CPU)).clone();
}

bool same_bits(const at::Tensor& a, const at::Tensor& b) {
  if (a.sizes() != b.sizes() || a.scalar_type() != b.scalar_type()) return false;
  const at::Tensor x = a.contiguous(), y = b.contiguous();
  return x.nbytes() == 0 || std::memcmp(x.const_data_ptr(), y.const_data_ptr(), x.nbytes()) == 0;
}

}  // namespace waldo::torch_backend::test
