#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <csignal>
#include <cstring>
#include <numeric>
#include <thread>

#include "base/os/unique_fd.h"
#include "server/collectives/load_mesh.h"

namespace waldo::server {
namespace {

using namespace std::chrono_literals;

const auto kIgnored =
    std::signal(SIGPIPE, SIG_IGN);  // as a worker does: Gloo writes to sockets that others have closed

void add(void* out, const void* a, const void* b, size_t elements) {
  for (size_t i = 0; i < elements; ++i)
    static_cast<float*>(out)[i] = static_cast<const float*>(a)[i] + static_cast<const float*>(b)[i];
}

// `size` meshes in this process that know each other's addresses.
std::vector<std::unique_ptr<Mesh>> made(int size, Milliseconds timeout = 5s) {
  std::vector<std::unique_ptr<Mesh>> meshes;
  for (int rank = 0; rank < size; ++rank) {
    auto mesh = make_mesh({.rank = rank, .size = size, .net = "127.0.0.1", .timeout = timeout});
    EXPECT_TRUE(mesh.ok()) << mesh.status().to_string();
    meshes.push_back(std::move(*mesh));
  }
  return meshes;
}

std::vector<std::string> addresses_for(const std::vector<std::unique_ptr<Mesh>>& meshes, size_t rank) {
  std::vector<std::string> found;
  for (const auto& mesh : meshes) found.push_back(mesh->addresses()[rank]);
  return found;
}

// Runs `body` for each rank on a thread of its own.
template <typename Body>
void on_each(std::vector<std::unique_ptr<Mesh>>& meshes, const Body& body) {
  std::vector<std::thread> threads;
  for (size_t rank = 0; rank < meshes.size(); ++rank)
    threads.emplace_back([&, rank] { body(*meshes[rank], static_cast<int>(rank)); });
  for (auto& thread : threads) thread.join();
}

std::vector<std::unique_ptr<Mesh>> connected(int size, Milliseconds timeout = 5s) {
  auto meshes = made(size, timeout);
  on_each(meshes, [&](Mesh& mesh, int rank) {
    const Status status = mesh.connect(addresses_for(meshes, static_cast<size_t>(rank)));
    EXPECT_TRUE(status.ok()) << status.to_string();
  });
  return meshes;
}

// Goal: three ranks get the same sum, and each other's parts of other sizes.
TEST(Mesh, ReducesAndGathers) {
  auto meshes = connected(3);
  on_each(meshes, [](Mesh& mesh, int rank) {
    std::vector<float> values(1000, static_cast<float>(rank + 1));
    EXPECT_TRUE(mesh.allreduce(values.data(), {values.size(), sizeof(float), &add}, 5s).ok());
    EXPECT_EQ(values, std::vector<float>(1000, 6.0f));

    const std::string mine(static_cast<size_t>(rank + 1), static_cast<char>('a' + rank));
    std::string all(6, '?');
    EXPECT_TRUE(mesh.allgather(mine.data(), all.data(), {1, 2, 3}, 5s).ok());
    EXPECT_EQ(all, "abbccc");
    EXPECT_TRUE(mesh.barrier(5s).ok());
  });
}

Note note_of(int rank, int round) {
  Note note{};
  note[0] = static_cast<std::byte>(rank);
  note[31] = static_cast<std::byte>(round);
  return note;
}

// Goal: notes reach every rank in the order they were posted, also several at once and with a collective between them.
TEST(Mesh, NotesReachEveryRank) {
  auto meshes = connected(3);
  on_each(meshes, [](Mesh& mesh, int rank) {
    constexpr int kRounds = 20;
    std::vector<std::vector<Note>> said(kRounds);
    for (int first = 0; first < kRounds; first += 2) {
      const auto one = mesh.post_notes(note_of(rank, first), said[static_cast<size_t>(first)]);
      const auto two = mesh.post_notes(note_of(rank, first + 1), said[static_cast<size_t>(first + 1)]);
      EXPECT_TRUE(one->wait(5s).ok());
      std::vector<float> values(100, 1.0f);
      EXPECT_TRUE(mesh.allreduce(values.data(), {values.size(), sizeof(float), &add}, 5s).ok());
      EXPECT_TRUE(two->wait(5s).ok());
    }
    for (int round = 0; round < kRounds; ++round)
      EXPECT_EQ(said[static_cast<size_t>(round)],
                (std::vector<Note>{note_of(0, round), note_of(1, round), note_of(2, round)}));
  });
}

// Goal: posting waits for nobody; a rank that never says anything is an error when the time is up, and for all.
TEST(Mesh, ASilentRankIsATimeout) {
  auto meshes = connected(2, 200ms);
  std::vector<Note> said;
  const auto posted = meshes[0]->post_notes(note_of(0, 0), said);
  EXPECT_EQ(posted->wait(200ms).kind(), StatusKind::kDisconnected);
  EXPECT_TRUE(said.empty());
  const auto late = meshes[1]->post_notes(note_of(1, 0), said);
  EXPECT_FALSE(late->wait(5s).ok() && meshes[1]->barrier(5s).ok());
}

// Goal: a message that is not what the receiver expects is an error on both sides, and nothing is overrun.
TEST(Mesh, RefusesAMessageOfAnotherSize) {
  auto meshes = connected(2, 2s);
  on_each(meshes, [](Mesh& mesh, int rank) {
    std::vector<char> large(64, 'x'), small(8, '.');
    auto transfer = rank == 0 ? mesh.post_send(large.data(), large.size(), 1, 0)
                              : mesh.post_receive(small.data(), small.size(), 0, 0);
    const Status status = transfer->wait(2s);
    EXPECT_FALSE(status.ok());
    if (rank == 1) {
      EXPECT_NE(status.text().find("64 bytes"), std::string::npos) << status.text();
    }
    EXPECT_EQ(small, std::vector<char>(8, '.'));
  });
}

// Goal: when one rank goes, the others' collective fails long before its time is up.
TEST(Mesh, ARankThatGoesFailsTheOthers) {
  auto meshes = connected(3, 60s);
  const auto begin = std::chrono::steady_clock::now();
  on_each(meshes, [](Mesh& mesh, int rank) {
    if (rank == 2) return mesh.close();
    std::vector<float> values(10, 1.0f);
    EXPECT_FALSE(mesh.allreduce(values.data(), {values.size(), sizeof(float), &add}, 60s).ok());
  });
  EXPECT_LT(std::chrono::steady_clock::now() - begin, 20s);
}

// Goal: a rank that never comes is an error when the time is up.
TEST(Mesh, ARankThatNeverComesIsATimeout) {
  auto meshes = connected(2, 200ms);
  std::vector<float> values(10, 1.0f);
  EXPECT_FALSE(meshes[0]->allreduce(values.data(), {values.size(), sizeof(float), &add}, 200ms).ok());
}

// Goal: a client cannot make its worker connect to wherever it likes.
TEST(Mesh, RefusesAddressesOutsideThisMachine) {
  auto meshes = made(2);
  auto addresses = addresses_for(meshes, 0);
  const size_t socket_address = addresses[1].find('\n') + 1;
  std::string elsewhere = addresses[1];
  elsewhere[socket_address + 4] = 10;  // 10.0.0.1
  const Status refused = meshes[0]->connect({addresses[0], elsewhere});
  EXPECT_NE(refused.text().find("not on loopback"), std::string::npos) << refused.text();
  EXPECT_FALSE(meshes[1]->connect({"", "x"}).ok());
}

// Goal: a process that found the port but was not told what to say is no rank, and the others hear of it.
TEST(Mesh, RefusesWhoDoesNotKnowTheToken) {
  auto meshes = made(2);
  on_each(meshes, [&](Mesh& mesh, int rank) {
    auto addresses = addresses_for(meshes, static_cast<size_t>(rank));
    if (rank == 1) addresses[0].back() ^= 1;
    const Status connected = mesh.connect(addresses);
    if (rank == 0) {
      EXPECT_NE(connected.text().find("is no rank of this group"), std::string::npos) << connected.text();
    } else {
      EXPECT_FALSE(connected.ok() && mesh.barrier(5s).ok());
    }
  });
}

// Goal: a watcher hears of a rank that goes, at once, but of none that has said goodbye.
TEST(Mesh, WatchTellsDeathFromGoodbye) {
  auto meshes = connected(3, 60s);
  std::vector<Status> heard(3);
  std::vector<std::thread> watchers;
  for (size_t rank = 0; rank < 3; ++rank) watchers.emplace_back([&, rank] { heard[rank] = meshes[rank]->watch(); });
  meshes[2]->say_goodbye(5s);
  on_each(meshes, [](Mesh& mesh, int) { EXPECT_TRUE(mesh.barrier(5s).ok()); });
  meshes[2]->close();
  meshes[1]->close();  // as when it dies
  for (auto& watcher : watchers) watcher.join();
  EXPECT_EQ(heard[0].kind(), StatusKind::kDisconnected);

  auto others = connected(2, 60s);
  on_each(others, [](Mesh& mesh, int) {
    Status heard = Status(StatusKind::kInternal, "not yet");
    std::thread watcher([&] { heard = mesh.watch(); });
    mesh.say_goodbye(5s);
    watcher.join();
    EXPECT_TRUE(heard.ok()) << heard.to_string();
  });
}

// A process that found the ports and says something else there.
class Stranger {
 public:
  Stranger(const std::string& address, const std::string& says)
      : socket_(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
    sockaddr_in where{};
    std::memcpy(&where, address.data() + address.find('\n') + 1, sizeof(where));
    if (::connect(socket_.get(), reinterpret_cast<sockaddr*>(&where), sizeof(where)) != 0) return;  // asks nobody to
    static_cast<void>(::send(socket_.get(), says.data(), says.size(), MSG_NOSIGNAL));
  }

 private:
  os::UniqueFd socket_;
};

// Goal: whoever comes to a rank's port first and talks rubbish, or nothing, is no rank: the group fails on every rank,
// in time, and nothing worse happens.
TEST(Mesh, SurvivesAStrangerWhoTalksRubbish) {
  std::string counting;
  for (int i = 0; i < 4096; ++i) counting.push_back(static_cast<char>(i * 7));
  for (const std::string& says : {std::string(), std::string("GET / HTTP/1.0\r\n\r\n"), std::string(4096, '\0'),
                                  std::string(4096, '\xff'), counting}) {
    auto meshes = made(2, 300ms);
    const Stranger to_first(meshes[0]->addresses()[1], says), to_second(meshes[1]->addresses()[0], says);
    on_each(meshes, [&](Mesh& mesh, int rank) {
      const Status connected = mesh.connect(addresses_for(meshes, static_cast<size_t>(rank)));
      std::vector<float> values(10, 1.0f);
      EXPECT_FALSE(connected.ok() && mesh.allreduce(values.data(), {values.size(), sizeof(float), &add}, 300ms).ok());
      EXPECT_EQ(values, std::vector<float>(10, 1.0f));
    });
  }
}

// Goal: workers on two hosts that may use loopback only say so, and what to do.
TEST(Mesh, NamesTheOptionForOtherHosts) {
  auto meshes = made(2);
  auto addresses = addresses_for(meshes, 0);
  addresses[1] = "other boot-id" + addresses[1].substr(addresses[1].find('\n'));
  const Status refused = meshes[0]->connect(addresses);
  EXPECT_NE(refused.text().find("--collective-net"), std::string::npos) << refused.text();
}

}  // namespace
}  // namespace waldo::server
