// The bodies that front end and backend exchange. What is accepted must be stable: encoding what was decoded, decoded
// and encoded again, gives the same bytes.
#include "fuzz/input.h"
#include "wire/graph_body.h"
#include "wire/plan_body.h"

using namespace waldo;

namespace {

template <typename Body>
void try_decode(std::span<const std::byte> bytes, Result<Body> (*decode)(std::span<const std::byte>)) {
  const auto body = decode(bytes);
  if (!body.ok()) return;
  const Buffer once = wire::encode(*body);
  const auto again = decode(once);
  WALDO_CHECK(again.ok() && wire::encode(*again) == once);
}

}  // namespace

int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) return 0;
  const Buffer bytes = fuzz::input(data + 1, size - 1);
  switch (data[0] % 4) {
    case 0:
      try_decode(bytes, wire::decode_plan_body);
      break;
    case 1:
      try_decode(bytes, wire::decode_report);
      break;
    case 2:
      try_decode(bytes, wire::decode_command);
      break;
    case 3:
      try_decode(bytes, wire::decode_graph_body);
      break;
  }
  return 0;
}
