#include <fmt/format.h>
#include <gloo/allgather.h>
#include <gloo/allgatherv.h>
#include <gloo/allreduce.h>
#include <gloo/alltoallv.h>
#include <gloo/barrier.h>
#include <gloo/broadcast.h>
#include <gloo/context.h>
#include <gloo/gather.h>
#include <gloo/reduce.h>
#include <gloo/scatter.h>
#include <gloo/transport/context.h>
#include <gloo/transport/device.h>
#include <gloo/transport/pair.h>
#include <gloo/transport/tcp/device.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cstring>
#include <fstream>
#include <functional>
#include <mutex>
#include <span>

#include "base/os/entropy.h"
#include "server/collectives/mesh.h"
#include "server/collectives/net.h"

// Gloo, whose pairs the worker makes itself: addresses came through the clients (Gloo's own rendezvous would want a
// store that every worker can reach).

namespace waldo::server {
namespace {

using gloo::transport::UnboundBuffer;

Status disconnected(std::string text) { return Status(StatusKind::kDisconnected, std::move(text)); }

// Gloo's texts begin with the file and line they were written in.
std::string plain(std::string text) {
  const size_t end = text.find("] ");
  return text.starts_with('[') && end != std::string::npos ? text.substr(end + 2) : text;
}

// Which machine this is, or which network namespace of it (a container's), so that two that only listen to themselves
// are told apart.
std::string this_machine() {
  char name[256] = {}, net[64] = {};
  ::gethostname(name, sizeof(name) - 1);
  std::string boot;
  std::ifstream("/proc/sys/kernel/random/boot_id") >> boot;
  static_cast<void>(::readlink("/proc/self/ns/net", net, sizeof(net) - 1));
  return fmt::format("{} {} {}", name, boot, net);
}
std::string name_of(const std::string& machine) { return machine.substr(0, machine.find(' ')); }

Result<IpAddress> ip_of(const std::string& socket_address) {
  sockaddr_storage storage{};
  if (socket_address.size() < sizeof(storage)) return Status(StatusKind::kInvalid, "an address too short");
  std::memcpy(&storage, socket_address.data(), sizeof(storage));
  return IpAddress::of(storage);
}

class Context : public gloo::Context {
 public:
  Context(int rank, int size, std::shared_ptr<gloo::transport::Device> device, Milliseconds timeout)
      : gloo::Context(rank, size) {
    device_ = std::move(device);
    transportContext_ = device_->createContext(rank, size);
    setTimeout(timeout);
    transportContext_->setTimeout(timeout);
    for (int peer = 0; peer < size; ++peer) {
      if (peer != rank) transportContext_->createPair(peer);
    }
  }
};

// What the process that connects as a certain rank must know. It travels with the address, through the clients.
using Token = std::array<char, 16>;

Token new_token() {
  Token token;
  os::fill_random(std::as_writable_bytes(std::span(token)));
  return token;
}

template <size_t kBytes>
struct Element {
  char bytes[kBytes];
};

class GlooMesh final : public Mesh {
 public:
  GlooMesh(const MeshOptions& options, CollectiveNet net)
      : options_(options), net_(std::move(net)), machine_(this_machine()) {
    gloo::transport::tcp::attr where(net_.here().text().c_str());
    device_ = gloo::transport::tcp::CreateDevice(where);
    context_ = std::make_shared<Context>(options.rank, options.size, device_, options.timeout);
    for (int peer = 0; peer < options.size; ++peer) {
      const std::vector<char> mine =
          peer == options.rank ? std::vector<char>() : context_->getPair(peer)->address().bytes();
      expected_.push_back(new_token());
      addresses_.push_back(machine_ + "\n" + std::string(mine.begin(), mine.end()) +
                           std::string(expected_.back().begin(), expected_.back().end()));
    }
  }

  std::vector<std::string> addresses() override { return addresses_; }

  Status connect(const std::vector<std::string>& addresses) override {
    if (addresses.size() != addresses_.size())
      return Status(StatusKind::kInvalid, "not one address for each rank of the group");
    std::vector<Token> told(addresses.size());
    return guarded([&]() -> Status {
      for (int peer = 0; peer < options_.size; ++peer) {
        if (peer == options_.rank) continue;
        auto told_by_peer = read_address(peer, addresses[static_cast<size_t>(peer)]);
        if (!told_by_peer.ok()) return told_by_peer.status();
        told[static_cast<size_t>(peer)] = told_by_peer->token;
        WALDO_TRY(may_reach(*told_by_peer, peer));
        try {
          context_->getPair(peer)->connect(told_by_peer->socket_address);
        } catch (const std::exception& error) {
          return unreachable(*told_by_peer, peer, plain(error.what()));
        }
      }
      WALDO_TRY(recognise(told));
      const std::lock_guard lock(notes_mutex_);
      next_notes_ = awaiting_notes(0);
      return {};
    });
  }

  Status allreduce(void* data, const Reduction& reduction, Milliseconds timeout) override {
    if (options_.size == 1) return {};
    return guarded([&]() -> Status {
      gloo::AllreduceOptions options(context_);
      options.setReduceFunction(reduction.function);
      set_elements(reduction,
                   [&](auto* unit) { options.setOutput(static_cast<decltype(unit)>(data), reduction.elements); });
      options.setTag(next_tag_++);
      options.setTimeout(timeout);
      gloo::allreduce(options);
      return {};
    });
  }

  Status reduce(void* data, const Reduction& reduction, int root, Milliseconds timeout) override {
    if (options_.size == 1) return {};
    return guarded([&]() -> Status {
      gloo::ReduceOptions options(context_);
      options.setReduceFunction(reduction.function);
      set_elements(reduction,
                   [&](auto* unit) { options.setOutput(static_cast<decltype(unit)>(data), reduction.elements); });
      options.setRoot(root);
      options.setTag(next_tag_++);
      options.setTimeout(timeout);
      gloo::reduce(options);
      return {};
    });
  }

  Status broadcast(void* data, size_t bytes, int root, Milliseconds timeout) override {
    if (options_.size == 1) return {};
    return guarded([&]() -> Status {
      gloo::BroadcastOptions options(context_);
      options.setOutput(static_cast<char*>(data), bytes);
      options.setRoot(root);
      options.setTag(next_tag_++);
      options.setTimeout(timeout);
      gloo::broadcast(options);
      return {};
    });
  }

  Status allgather(const void* in, void* out, const std::vector<size_t>& bytes_of_rank, Milliseconds timeout) override {
    const size_t mine = bytes_of_rank[static_cast<size_t>(options_.rank)];
    if (options_.size == 1) return copy(out, in, mine);
    return guarded([&]() -> Status {
      gloo::AllgathervOptions options(context_);
      options.setInput(static_cast<char*>(const_cast<void*>(in)), mine);
      options.setOutput(static_cast<char*>(out), bytes_of_rank);
      options.setTag(next_tag_++);
      options.setTimeout(timeout);
      gloo::allgatherv(options);
      return {};
    });
  }

  Status gather(const void* in, size_t bytes, void* out, int root, Milliseconds timeout) override {
    if (options_.size == 1) return copy(out, in, bytes);
    return guarded([&]() -> Status {
      gloo::GatherOptions options(context_);
      options.setInput(static_cast<char*>(const_cast<void*>(in)), bytes);
      if (root == options_.rank) options.setOutput(static_cast<char*>(out), bytes * static_cast<size_t>(options_.size));
      options.setRoot(root);
      options.setTag(next_tag_++);
      options.setTimeout(timeout);
      gloo::gather(options);
      return {};
    });
  }

  Status scatter(const std::vector<const void*>& in, void* out, size_t bytes, int root, Milliseconds timeout) override {
    if (options_.size == 1) return copy(out, in[0], bytes);
    return guarded([&]() -> Status {
      gloo::ScatterOptions options(context_);
      if (root == options_.rank) {
        std::vector<char*> parts;
        for (const void* part : in) parts.push_back(static_cast<char*>(const_cast<void*>(part)));
        options.setInputs(parts, bytes);
      }
      options.setOutput(static_cast<char*>(out), bytes);
      options.setRoot(root);
      options.setTag(next_tag_++);
      options.setTimeout(timeout);
      gloo::scatter(options);
      return {};
    });
  }

  Status alltoall(const void* in, const std::vector<int64_t>& in_bytes, void* out,
                  const std::vector<int64_t>& out_bytes, Milliseconds timeout) override {
    if (options_.size == 1) return copy(out, in, static_cast<size_t>(in_bytes[0]));
    return guarded([&]() -> Status {
      gloo::AlltoallvOptions options(context_);
      options.setInput(static_cast<char*>(const_cast<void*>(in)), in_bytes);
      options.setOutput(static_cast<char*>(out), out_bytes);
      options.setTag(next_tag_++);
      options.setTimeout(timeout);
      gloo::alltoallv(options);
      return {};
    });
  }

  Status barrier(Milliseconds timeout) override {
    if (options_.size == 1) return {};
    return guarded([&]() -> Status {
      gloo::BarrierOptions options(context_);
      options.setTag(next_tag_++);
      options.setTimeout(timeout);
      gloo::barrier(options);
      return {};
    });
  }

  std::unique_ptr<Transfer> post_notes(const Note& mine, std::vector<Note>& all) override {
    const std::lock_guard lock(notes_mutex_);
    auto notes = next_notes_ ? std::move(next_notes_) : std::make_unique<Notes>(*this);
    notes->out = &all;
    notes->all[static_cast<size_t>(options_.rank)] = mine;
    notes->posted = guarded([&]() -> Status {
      auto sent = std::make_unique<SentNote>(mine);
      for (int peer = 0; peer < options_.size; ++peer) {
        if (peer == options_.rank) continue;
        auto& buffer = sent->buffers.emplace_back(context_->createUnboundBuffer(sent->note.data(), sizeof(Note)));
        buffer->send(peer, notes_slot(notes->number));
      }
      next_notes_ = awaiting_notes(notes->number + 1);
      next_notes_->before = std::move(sent);
      return {};
    });
    return notes;
  }

  std::unique_ptr<Transfer> post_send(const void* data, size_t bytes, int peer, uint32_t tag) override {
    auto transfer = std::make_unique<Sending>(*this);
    transfer->bytes = bytes;
    transfer->posted = guarded([&]() -> Status {
      transfer->header = context_->createUnboundBuffer(&transfer->bytes, sizeof(transfer->bytes));
      transfer->header->send(peer, header_slot(tag));
      if (bytes == 0) return {};
      transfer->payload = context_->createUnboundBuffer(const_cast<void*>(data), bytes);
      transfer->payload->send(peer, header_slot(tag) + 1);
      return {};
    });
    return transfer;
  }

  std::unique_ptr<Transfer> post_receive(void* data, size_t bytes, int peer, uint32_t tag) override {
    auto transfer = std::make_unique<Receiving>(*this);
    transfer->data = data;
    transfer->bytes = bytes;
    transfer->peer = peer;
    transfer->slot = header_slot(tag);
    transfer->posted = guarded([&]() -> Status {
      transfer->header = context_->createUnboundBuffer(&transfer->arriving, sizeof(transfer->arriving));
      transfer->header->recv(peer, transfer->slot);
      return {};
    });
    return transfer;
  }

  Status watch() override {
    return guarded([&]() -> Status {
      char said = 0;
      const std::shared_ptr<UnboundBuffer> buffer = context_->createUnboundBuffer(&said, sizeof(said));
      {
        const std::lock_guard lock(watching_mutex_);
        watching_ = buffer;
      }
      if (closed_) return disconnected("the group was closed");
      for (int peer = 0; peer < options_.size; ++peer) {
        if (peer != options_.rank) buffer->recv(peer, kGoodbyeSlot);
      }
      for (int left = options_.size - 1; left > 0; --left) {
        int peer = -1;
        if (!buffer->waitRecv(&peer, kForEver)) return disconnected("the group was closed");
        const auto heard = context_->createUnboundBuffer(&said, sizeof(said));
        heard->send(peer, kHeardSlot);
        heard->waitSend(options_.timeout);
      }
      return {};
    });
  }

  // Closing takes with it what was sent and not yet read, so the others say that they have heard.
  void say_goodbye(Milliseconds timeout) override {
    static_cast<void>(guarded([&]() -> Status {
      std::vector<char> said(2 * static_cast<size_t>(options_.size));
      std::vector<std::unique_ptr<UnboundBuffer>> sends, heard;
      for (int peer = 0; peer < options_.size; ++peer) {
        if (peer == options_.rank) continue;
        char* const own = &said[2 * static_cast<size_t>(peer)];
        heard.push_back(context_->createUnboundBuffer(own, 1));
        heard.back()->recv(peer, kHeardSlot);
        sends.push_back(context_->createUnboundBuffer(own + 1, 1));
        sends.back()->send(peer, kGoodbyeSlot);
      }
      for (const auto& one : heard) {
        if (!one->waitRecv(timeout)) return disconnected("saying goodbye was given up");
      }
      for (const auto& one : sends) one->waitSend(timeout);
      return {};
    }));
  }

  void close() override {
    if (closed_.exchange(true)) return;
    try {
      context_->closeConnections();
    } catch (const std::exception&) {  // they are closed as far as they can be
    }
    const std::lock_guard lock(watching_mutex_);
    if (watching_) watching_->abortWaitRecv();  // our own end wakes nobody here
  }

 private:
  struct Peer {
    std::string machine;
    IpAddress ip;
    std::vector<char> socket_address;
    Token token;
  };
  Result<Peer> read_address(int peer, const std::string& given) const {
    const Status malformed(StatusKind::kInvalid, "a rank's address is malformed");
    const size_t line = given.find('\n');
    if (line == std::string::npos) return malformed;
    if (given.size() - line != addresses_[static_cast<size_t>(peer)].size() - machine_.size()) return malformed;
    Peer found{.machine = given.substr(0, line)};
    const size_t token = given.size() - found.token.size();
    std::copy(given.begin() + static_cast<ptrdiff_t>(token), given.end(), found.token.begin());
    const std::string socket_address = given.substr(line + 1, token - line - 1);
    found.socket_address.assign(socket_address.begin(), socket_address.end());
    const auto ip = ip_of(socket_address);
    if (!ip.ok()) return malformed;
    found.ip = *ip;
    return found;
  }

  // What the owner of this host allows, whatever the client hands us.
  Status may_reach(const Peer& peer, int rank) const {
    if (peer.machine != machine_ && (peer.ip.loopback() || net_.loopback())) {
      return disconnected(fmt::format(
          "the workers of ranks {} and {} are on different hosts ({}; {}), and {} allows collectives on loopback only. "
          "On each host, start `waldo daemon --collective-net NET` (or set WALDO_COLLECTIVE_NET): a net in which the "
          "hosts reach each other, such as 10.1.0.0/16",
          options_.rank, rank, name_of(machine_), name_of(peer.machine), net_.loopback() ? "this one" : "the other"));
    }
    if (net_.holds(peer.ip)) return {};
    if (net_.loopback())
      return Status(StatusKind::kInvalid, "a rank's address is not on loopback, and no other is allowed");
    return disconnected(
        fmt::format("rank {} listens at {}, outside of the net {} in which rank {} may use collectives "
                    "(--collective-net). Try: the same net on every host",
                    rank, peer.ip.text(), net_.text(), options_.rank));
  }

  Status unreachable(const Peer& peer, int rank, const std::string& why) const {
    if (net_.loopback()) return disconnected(why);
    return disconnected(fmt::format(
        "ranks {} at {} and {} at {} do not reach each other in {}: {}. Try: "
        "`ping {}` on {}; a firewall between them must let TCP pass",
        options_.rank, net_.here().text(), rank, peer.ip.text(), net_.text(), why, peer.ip.text(), name_of(machine_)));
  }

  // Gloo takes whoever connects first. Each rank shows each other one the token that it was told; who cannot is none.
  Status recognise(std::vector<Token>& told) {
    std::vector<Token> shown(told.size());
    std::vector<std::unique_ptr<UnboundBuffer>> sends, receives;
    for (size_t peer = 0; peer < told.size(); ++peer) {
      if (static_cast<int>(peer) == options_.rank) continue;
      receives.push_back(context_->createUnboundBuffer(shown[peer].data(), sizeof(Token)));
      receives.back()->recv(static_cast<int>(peer), kTokenSlot);
      sends.push_back(context_->createUnboundBuffer(told[peer].data(), sizeof(Token)));
      sends.back()->send(static_cast<int>(peer), kTokenSlot);
    }
    for (const auto& receive : receives) {
      if (!receive->waitRecv(options_.timeout)) return disconnected("connecting was given up");
    }
    for (size_t peer = 0; peer < told.size(); ++peer) {
      if (static_cast<int>(peer) != options_.rank && shown[peer] != expected_[peer])
        return disconnected(fmt::format("what connected in place of rank {} is no rank of this group", peer));
    }
    for (const auto& send : sends) {
      if (!send->waitSend(options_.timeout)) return disconnected("connecting was given up");
    }
    return {};
  }

  struct SentNote {
    explicit SentNote(const Note& of) : note(of) {}
    Note note;
    std::vector<std::unique_ptr<UnboundBuffer>> buffers;
  };
  // One exchange. Its receives are posted when the one before it is sent: Gloo asks a receiver before it sends, and
  // that question would be a round between the workers. The end of a send is waited for in the exchange after it: Gloo
  // forgets a send that finds its connection broken, but every receive learns of it.
  struct Notes final : Transfer {
    explicit Notes(GlooMesh& of) : mesh(of), all(static_cast<size_t>(of.options_.size)) {}
    Status wait(Milliseconds timeout) override {
      WALDO_TRY(posted);
      WALDO_TRY(mesh.guarded([&]() -> Status {
        for (const auto& buffer : received) {
          if (!buffer->waitRecv(timeout)) return disconnected("waiting for the other ranks was given up");
        }
        for (size_t i = 0; before && i < before->buffers.size(); ++i) {
          if (!before->buffers[i]->waitSend(timeout)) return disconnected("waiting for the other ranks was given up");
        }
        return {};
      }));
      before = nullptr;
      *out = all;
      return {};
    }
    GlooMesh& mesh;
    uint32_t number = 0;
    Status posted;
    std::vector<Note> all;
    std::vector<Note>* out = nullptr;
    std::unique_ptr<SentNote> before;
    std::vector<std::unique_ptr<UnboundBuffer>> received;
  };
  std::unique_ptr<Notes> awaiting_notes(uint32_t number) {
    auto notes = std::make_unique<Notes>(*this);
    notes->number = number;
    for (int peer = 0; peer < options_.size; ++peer) {
      if (peer == options_.rank) continue;
      Note& note = notes->all[static_cast<size_t>(peer)];
      auto& buffer = notes->received.emplace_back(context_->createUnboundBuffer(note.data(), note.size()));
      buffer->recv(peer, notes_slot(number));
    }
    return notes;
  }

  // The size goes first, so that a message that does not fit is an error and no overrun; then the message itself.
  struct Sending final : Transfer {
    explicit Sending(GlooMesh& of) : mesh(of) {}
    Status wait(Milliseconds timeout) override {
      WALDO_TRY(posted);
      return mesh.guarded([&]() -> Status {
        if (!header->waitSend(timeout)) return disconnected("the send was given up");
        if (payload && !payload->waitSend(timeout)) return disconnected("the send was given up");
        return {};
      });
    }
    GlooMesh& mesh;
    Status posted;
    uint64_t bytes = 0;
    std::unique_ptr<UnboundBuffer> header, payload;
  };
  struct Receiving final : Transfer {
    explicit Receiving(GlooMesh& of) : mesh(of) {}
    Status wait(Milliseconds timeout) override {
      WALDO_TRY(posted);
      return mesh.guarded([&]() -> Status {
        if (!header->waitRecv(timeout)) return disconnected("the receive was given up");
        if (arriving != bytes) {
          return disconnected(fmt::format("rank {} sent {} bytes, but rank {} receives a tensor of {}", peer, arriving,
                                          mesh.options_.rank, bytes));
        }
        if (bytes == 0) return {};
        payload = mesh.context_->createUnboundBuffer(data, bytes);
        payload->recv(peer, slot + 1);
        return payload->waitRecv(timeout) ? Status() : disconnected("the receive was given up");
      });
    }
    GlooMesh& mesh;
    Status posted;
    void* data = nullptr;
    uint64_t bytes = 0, arriving = 0;
    int peer = 0;
    uint64_t slot = 0;
    std::unique_ptr<UnboundBuffer> header, payload;
  };

  // Collectives' slots have a prefix in their highest byte, which is never 0.
  static uint64_t header_slot(uint32_t tag) { return uint64_t{tag} << 1; }
  static constexpr Milliseconds kForEver = std::chrono::hours(24 * 365);
  static constexpr uint64_t kGoodbyeSlot = uint64_t{1} << 42;
  static constexpr uint64_t kHeardSlot = uint64_t{1} << 43;
  static constexpr uint64_t kTokenSlot = uint64_t{1} << 41;
  static uint64_t notes_slot(uint32_t number) { return uint64_t{1} << 40 | number; }

  static Status copy(void* out, const void* in, size_t bytes) {
    if (bytes != 0) std::memmove(out, in, bytes);
    return {};
  }

  template <typename Use>
  static void set_elements(const Reduction& reduction, const Use& use) {
    switch (reduction.element_bytes) {
      case 1:
        return use(static_cast<Element<1>*>(nullptr));
      case 2:
        return use(static_cast<Element<2>*>(nullptr));
      case 4:
        return use(static_cast<Element<4>*>(nullptr));
      default:
        return use(static_cast<Element<8>*>(nullptr));
    }
  }

  // Whatever fails closes the mesh: every other rank's collective then fails too, at once.
  template <typename Body>
  Status guarded(Body&& body) noexcept {
    Status status;
    try {
      status = closed_ ? disconnected("the group was closed after a failure") : body();
    } catch (const std::exception& error) {
      status = disconnected(plain(error.what()));
    } catch (...) {
      status = disconnected("an exception that is none");
    }
    if (!status.ok()) close();
    return status;
  }

  const MeshOptions options_;
  const CollectiveNet net_;
  const std::string machine_;
  std::shared_ptr<gloo::transport::Device> device_;
  std::shared_ptr<Context> context_;
  std::vector<std::string> addresses_;
  std::vector<Token> expected_;  // by rank
  uint32_t next_tag_ = 1;
  std::atomic<bool> closed_{false};

  std::mutex watching_mutex_;
  std::shared_ptr<UnboundBuffer> watching_;

  std::mutex notes_mutex_;
  std::unique_ptr<Notes> next_notes_;  // null: not connected, or failed
};

}  // namespace
}  // namespace waldo::server

extern "C" __attribute__((visibility("default"))) waldo::server::Mesh* waldo_make_mesh(
    const waldo::server::MeshOptions& options, std::string* error) {
  auto net = waldo::server::CollectiveNet::parse(options.net);
  if (!net.ok()) {
    *error = net.status().text();
    return nullptr;
  }
  try {
    return new waldo::server::GlooMesh(options, std::move(*net));
  } catch (const std::exception& failure) {
    *error = waldo::server::plain(failure.what());
  }
  return nullptr;
}
