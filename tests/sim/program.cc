#include "sim/program.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>

namespace waldo::sim {
namespace {

struct Operation {
  const char* name;
  uint16_t reads, creates;
};
constexpr Operation kOperations[] = {{"add_u8", 2, 1},  {"add_into_u8", 2, 0}, {"copy_u8", 1, 1},
                                     {"full_u8", 0, 1}, {"fill_u8", 1, 0},     {"fail", 0, 0}};
constexpr size_t kValuesMax = 12;

std::vector<std::byte> numbers(std::initializer_list<uint64_t> values) {
  std::vector<std::byte> scalars(values.size() * 8);
  std::memcpy(scalars.data(), values.begin(), scalars.size());
  return scalars;
}

}  // namespace

Program::Program(client::Queue& queue, uint64_t seed, int operations)
    : queue_(queue), prng_(seed), operations_(operations) {}

Status Program::run() {
  WALDO_TRY(define());
  WALDO_TRY(full(64, 1));
  for (int i = 0; i < operations_ && failure_.empty(); ++i) WALDO_TRY(one());
  for (const auto& [slot, content] : values_) WALDO_TRY(check(slot, content));
  while (!values_.empty()) {
    queue_.free_slot(values_.begin()->first);
    values_.erase(values_.begin());
  }
  return queue_.synchronize();
}

Status Program::define() {
  for (const auto& operation : kOperations) {
    const std::string_view body = operation.name;
    plans_[operation.name] = queue_.define_plan(operation.reads, operation.creates, as_bytes(body));
  }
  return {};
}

void Program::note(const char* operation) { calls_.push_back(fmt::format("{}:{}", queue_.id().raw, operation)); }

Status Program::full(size_t bytes, uint8_t value) {
  Slot made[1];
  WALDO_TRY(queue_.call_making(plans_["full_u8"], made, numbers({bytes, value})));
  note("full_u8");
  values_[made[0]] = Content(bytes, value);
  return {};
}

std::map<Slot, Program::Content>::iterator Program::any() {
  return std::next(values_.begin(), static_cast<ptrdiff_t>(prng_.below(values_.size())));
}

std::map<Slot, Program::Content>::iterator Program::same_size(size_t bytes) {
  std::vector<std::map<Slot, Content>::iterator> fit;
  for (auto at = values_.begin(); at != values_.end(); ++at) {
    if (at->second.size() == bytes) fit.push_back(at);
  }
  return fit[prng_.below(fit.size())];
}

Status Program::check(Slot slot, const Content& wanted) {
  Content got(wanted.size(), 0xee);
  WALDO_TRY(queue_.read(slot, 0, got.data(), got.size()));
  for (const uint8_t byte : got) digest_ = digest_ * 1099511628211u + byte;
  if (got != wanted) failure_ = fmt::format("a value of {} bytes is not what it must be", wanted.size());
  return {};
}

Status Program::reads_together() {
  std::vector<std::pair<client::ReadTicket, std::map<Slot, Content>::iterator>> reads;
  std::vector<Content> got(3);
  for (Content& destination : got) {
    const auto value = any();
    destination.assign(value->second.size(), 0xee);
    auto ticket = queue_.start_read(value->first, 0, destination.data(), destination.size());
    if (!ticket.ok()) return ticket.status();
    reads.emplace_back(*ticket, value);
  }
  Status result;
  for (size_t i = 0; i < reads.size(); ++i) {
    const Status status = queue_.finish_read(reads[i].first);
    if (!status.ok()) result = status;
    if (status.ok() && got[i] != reads[i].second->second) failure_ = "a value read together with others is wrong";
  }
  return result;
}

Status Program::one() {
  const auto a = any();
  Content& content = a->second;
  switch (prng_.below(values_.size() >= kValuesMax ? 9 : 12)) {
    case 0:
    case 1: {
      const auto b = same_size(content.size());
      const Slot named[2] = {a->first, b->first};
      WALDO_TRY(queue_.call(plans_["add_into_u8"], named, {}));
      note("add_into_u8");
      const Content added = b->second;
      for (size_t i = 0; i < content.size(); ++i) content[i] = static_cast<uint8_t>(content[i] + added[i]);
      return {};
    }
    case 2: {
      const auto value = static_cast<uint8_t>(prng_.next());
      const Slot named[1] = {a->first};
      WALDO_TRY(queue_.call(plans_["fill_u8"], named, numbers({value})));
      note("fill_u8");
      std::ranges::fill(content, value);
      return {};
    }
    case 3:
      return check(a->first, content);
    case 4:
      return reads_together();
    case 5:
      if (values_.size() < 2) return {};
      queue_.free_slot(a->first);
      values_.erase(a);
      return {};
    case 6: {  // new contents from here, now and then many
      for (uint8_t& byte : content) byte = static_cast<uint8_t>(prng_.next());
      return queue_.upload(a->first, 0, content.data(), content.size());
    }
    case 7:
      return prng_.one_in(4) ? queue_.synchronize() : Status();
    case 8: {
      if (!prng_.one_in(6)) return {};
      WALDO_TRY(queue_.call(plans_["fail"], {}, {}));
      note("fail");
      const Status told = queue_.synchronize();
      if (told.ok()) failure_ = "a failure was not told";
      return told.kind() == StatusKind::kDevice ? Status() : told;
    }
    case 9: {
      const auto b = same_size(content.size());
      Slot named[3] = {a->first, b->first, {}};
      WALDO_TRY(queue_.call_making(plans_["add_u8"], named, {}));
      note("add_u8");
      Content sum = content;
      for (size_t i = 0; i < sum.size(); ++i) sum[i] = static_cast<uint8_t>(sum[i] + b->second[i]);
      values_[named[2]] = std::move(sum);
      return {};
    }
    case 10: {
      Slot named[2] = {a->first, {}};
      WALDO_TRY(queue_.call_making(plans_["copy_u8"], named, {}));
      note("copy_u8");
      const Content copy = content;
      values_[named[1]] = copy;
      return {};
    }
    default: {
      const size_t bytes = prng_.one_in(20) ? prng_.between(100'000, 700'000) : prng_.between(1, 300);
      return full(bytes, static_cast<uint8_t>(prng_.next()));
    }
  }
}

}  // namespace waldo::sim
