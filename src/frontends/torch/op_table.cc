#include "frontends/torch/op_table.h"

#include <algorithm>
#include <atomic>
#include <unordered_map>
#include <unordered_set>

#include "frontends/torch/kernels_made_of.h"
#include "frontends/torch/register.h"

namespace waldo::torch_frontend {
namespace {

using Names = std::unordered_set<std::string_view>;

enum class Listed : uint8_t { kPlain, kAsk };
struct ListedOperator {
  std::string_view name;
  Listed kind;
};
constexpr auto kPlain = Listed::kPlain;
constexpr auto kAsk = Listed::kAsk;
constexpr ListedOperator kListed[] = {
#define WALDO_OP(name, kind) {name, kind},
#include "frontends/torch/op_table.inc"
#undef WALDO_OP
};

// Kernels in kernels.cc and kernels_copy.cc.
const Names kByHand = {
    "aten::empty.memory_format",
    "aten::empty_strided",
    "aten::as_strided",
    "aten::as_strided_",
    "aten::resize_",
    "aten::_reshape_alias",
    "aten::view",
    "aten::unfold",
    "aten::view_as_real",
    "aten::view_as_complex",
    "aten::set_",
    "aten::set_.source_Tensor",
    "aten::set_.source_Storage",
    "aten::set_.source_Storage_storage_offset",
    "aten::addr_",
    "aten::conj_physical_",
    "aten::dot",
    "aten::vdot",
    "aten::copy_",
    "aten::_copy_from",
    "aten::_copy_from_and_resize",
    "aten::_local_scalar_dense",
    "aten::is_set_to",
    "aten::record_stream",
    "aten::_use_cudnn_ctc_loss",
    "aten::_use_cudnn_ctc_loss.Tensor",
    "aten::_use_miopen_ctc_loss",
    "aten::_use_miopen_ctc_loss.Tensor",
    "aten::_fused_sdp_choice",
    "aten::_efficientzerotensor",
    // kernels_quantized.cc.
    "aten::quantize_per_tensor",
    "aten::quantize_per_tensor.tensor_qparams",
    "aten::quantize_per_tensor_dynamic",
    "aten::quantize_per_channel",
    "aten::_make_per_tensor_quantized_tensor",
    "aten::_make_per_channel_quantized_tensor",
};

// Composite here: the first has a Python kernel of PyTorch's own on the CUDA key, the second's backward exists on CUDA
// only, the third asks its argument whether it requires a gradient.
const Names kStayComposite = {"aten::_foreach_mm", "aten::_fused_rms_norm", "aten::as_strided_scatter"};

// The yaml does not list these under CUDA, yet decomposing them ends nowhere.
const Names kAlsoForwarded = {"aten::convolution", "aten::mode.values", "aten::narrow_copy.out"};

// Meta and the worker differ in sizes or dtypes that only the worker knows.
const Names kLearned = {
    "aten::native_batch_norm",
    "aten::native_batch_norm.out",
    "aten::native_batch_norm_backward",
    "aten::_native_batch_norm_legit",
    "aten::_native_batch_norm_legit.no_stats",
    "aten::_native_batch_norm_legit.out",
    "aten::_native_batch_norm_legit.no_stats_out",
    "aten::_native_batch_norm_legit_no_training",
    "aten::_native_batch_norm_legit_functional",
    "aten::_batch_norm_with_update",
    "aten::_batch_norm_with_update.out",
    "aten::_batch_norm_no_update",
    "aten::batch_norm_backward",
    "aten::_embedding_bag",
    "aten::_embedding_bag_forward_only",
    "aten::histc",
    "aten::multinomial",
    "aten::native_group_norm",
    "aten::native_group_norm_backward",
    "aten::_thnn_fused_lstm_cell",
    "aten::_thnn_fused_gru_cell",
    // These resize or refuse what they write as no Meta kernel does.
    "aten::addbmm_",
    "aten::addr",
    "aten::addr.out",
    "aten::triangular_solve.X",
};

// Tagged as of unknown size, but the sizes follow from what the key holds.
const Names kNotAsked = {"aten::index.Tensor", "aten::_ctc_loss", "aten::linalg_lstsq.out",
                         "aten::_local_scalar_dense"};

const Names kScalarsInKey = {
    "aten::arange",   "aten::arange.out",   "aten::arange.start", "aten::arange.start_out", "aten::arange.start_step",
    "aten::linspace", "aten::linspace.out", "aten::logspace",     "aten::logspace.out",     "aten::range.out",
    "aten::range",    "aten::range.step",
};

// Indices and lengths that CUDA's kernels take from the CPU.
const Names kUploadsCpuTensors = {
    "aten::index.Tensor", "aten::index.Tensor_out", "aten::_index_put_impl_",         "aten::index_put_",
    "aten::index_put",    "aten::_ctc_loss.Tensor", "aten::_ctc_loss_backward.Tensor"};

ArgumentClass class_of(const c10::Type& type) {
  switch (type.kind()) {
    case c10::TypeKind::OptionalType:
      return class_of(*type.castRaw<c10::OptionalType>()->getElementType());
    case c10::TypeKind::TensorType:
      return ArgumentClass::kTensor;
    case c10::TypeKind::NumberType:
      return ArgumentClass::kScalar;
    case c10::TypeKind::FloatType:
      return ArgumentClass::kFloat;
    case c10::TypeKind::IntType:
    case c10::TypeKind::SymIntType:
      return ArgumentClass::kInt;
    case c10::TypeKind::BoolType:
      return ArgumentClass::kBool;
    case c10::TypeKind::StringType:
      return ArgumentClass::kString;
    case c10::TypeKind::ScalarTypeType:
      return ArgumentClass::kDType;
    case c10::TypeKind::LayoutType:
      return ArgumentClass::kLayout;
    case c10::TypeKind::MemoryFormatType:
      return ArgumentClass::kMemoryFormat;
    case c10::TypeKind::DeviceObjType:
      return ArgumentClass::kDevice;
    case c10::TypeKind::GeneratorType:
      return ArgumentClass::kGenerator;
    case c10::TypeKind::ListType:
      switch (class_of(*type.castRaw<c10::ListType>()->getElementType())) {
        case ArgumentClass::kTensor:
          return ArgumentClass::kTensorList;
        case ArgumentClass::kScalar:
          return ArgumentClass::kScalarList;
        case ArgumentClass::kFloat:
          return ArgumentClass::kFloatList;
        case ArgumentClass::kInt:
          return ArgumentClass::kIntList;
        case ArgumentClass::kBool:
          return ArgumentClass::kBoolList;
        case ArgumentClass::kString:
          return ArgumentClass::kStringList;
        default:
          return ArgumentClass::kOther;
      }
    default:
      return ArgumentClass::kOther;
  }
}

std::string name_of(const c10::OperatorName& name) {
  return name.overload_name.empty() ? name.name : name.name + "." + name.overload_name;
}

std::unordered_map<c10::OperatorName, c10::SafeKernelFunction>& metas() {
  static auto* map = new std::unordered_map<c10::OperatorName, c10::SafeKernelFunction>();
  return *map;
}

}  // namespace

Operator::Operator(c10::OperatorHandle op) : handle(std::move(op)) {
  static std::atomic<uint64_t> next_id{1};
  id = next_id.fetch_add(1, std::memory_order_relaxed);
  const auto& schema = handle.schema();
  for (const auto& argument : schema.arguments()) {
    arguments.push_back(class_of(*argument.real_type()));
    written.push_back(argument.alias_info() != nullptr && argument.alias_info()->isWrite());
  }
  return_count = schema.returns().size();
  const std::string full = name();
  static const auto* listed = [] {
    auto* map = new std::unordered_map<std::string_view, Listed>();
    for (const auto& entry : kListed) map->emplace(entry.name, entry.kind);
    return map;
  }();
  const auto found = listed->find(full);
  if (kLearned.contains(full) || kNotAsked.contains(full)) {
    foresight = Foresight::kLearn;
  } else if (found != listed->end() && found->second == kAsk) {
    foresight = Foresight::kAsk;
  }
  // Of wire/own_operators.h: how many values a sparse result has depends on where those of the arguments are.
  if (full.starts_with("waldo::") && return_count != 0 &&
      (return_count != 1 || schema.returns()[0].type()->kind() == c10::TypeKind::ListType))
    foresight = Foresight::kAsk;
  if (full == "aten::index.Tensor" || full == "aten::index.Tensor_out") {
    foresight = Foresight::kMeta;
    masks_ask = true;
  }
  uploads_cpu_tensors = kUploadsCpuTensors.contains(full);
  crosses_devices = full == "aten::copy_";
  scalars_in_key = kScalarsInKey.contains(full) || full.find("upsample") != std::string::npos;
  pointwise = handle.hasTag(at::Tag::pointwise);
  const bool multiplies = full.find("mm") != std::string::npos || full.find("conv") != std::string::npos ||
                          full.find("mv") != std::string::npos || full.find("dot") != std::string::npos ||
                          full.find("rnn") != std::string::npos;
  flags = pointwise ? FlagCheck::kNone : multiplies ? FlagCheck::kAll : FlagCheck::kCheap;
  if (full.starts_with("aten::_foreach_") && handle.hasComputedKernelForDispatchKey(c10::DispatchKey::CPU))
    one_by_one = handle.getComputedKernelForDispatchKey(c10::DispatchKey::CPU);
  if (foresight == Foresight::kMeta) meta = snapshotted_meta(handle);
}

std::string Operator::name() const { return name_of(handle.operator_name()); }

bool is_by_hand(std::string_view name) { return kByHand.contains(name); }

void snapshot_meta_kernels() {
  auto& dispatcher = c10::Dispatcher::singleton();
  for (const auto& name : dispatcher.getAllOpNames()) {
    const auto handle = dispatcher.findSchema(name);
    if (!handle || !handle->hasComputedKernelForDispatchKey(c10::DispatchKey::Meta)) continue;
    // Implicit composites never reach us, and would answer for the wrong decomposition.
    const bool direct = handle->hasKernelForDispatchKey(c10::DispatchKey::Meta);
    const bool explicit_composite =
        handle->hasKernelForDispatchKey(c10::DispatchKey::CompositeExplicitAutogradNonFunctional) ||
        handle->hasKernelForDispatchKey(c10::DispatchKey::CompositeExplicitAutograd);
    if (!direct && !explicit_composite) continue;
    metas().emplace(name, handle->getComputedKernelForDispatchKey(c10::DispatchKey::Meta));
  }
}

std::optional<c10::SafeKernelFunction> snapshotted_meta(const c10::OperatorHandle& handle) {
  const auto found = metas().find(handle.operator_name());
  if (found == metas().end()) return std::nullopt;
  return found->second;
}

std::vector<c10::OperatorHandle> forwarded_operators() {
  auto& dispatcher = c10::Dispatcher::singleton();
  Names listed;
  for (const auto& entry : kListed) listed.insert(entry.name);
  std::vector<std::pair<std::string, c10::OperatorHandle>> found;
  for (const auto& operator_name : dispatcher.getAllOpNames()) {
    if (!operator_name.name.starts_with("aten::")) continue;
    auto handle = dispatcher.findSchema(operator_name);
    if (!handle) continue;
    std::string name = name_of(operator_name);
    if (kByHand.contains(name) || kStayComposite.contains(name) || is_made_of_plain(name)) continue;
    const bool decomposed = handle->hasKernelForDispatchKey(c10::DispatchKey::CompositeExplicitAutogradNonFunctional);
    if (!listed.contains(name) && !decomposed && !kAlsoForwarded.contains(name)) continue;
    found.emplace_back(std::move(name), *handle);
  }
  std::sort(found.begin(), found.end(), [](const auto& a, const auto& b) { return a.first < b.first; });
  std::vector<c10::OperatorHandle> handles;
  for (auto& entry : found) handles.push_back(entry.second);
  return handles;
}

}  // namespace waldo::torch_frontend
