// Every maximum of the protocol, in one file. Both sides check them before memory is taken.
#pragma once

#include <cstddef>
#include <cstdint>

namespace waldo::limits {

// Frames.
inline constexpr uint32_t frame_payload_bytes_max = 1u << 20;  // 1 MiB; a longer one ends the session
inline constexpr uint32_t chunk_bytes = 256u << 10;            // payload of one bulk chunk we send (fits in L2)
inline constexpr uint32_t records_bytes_soft = 256u << 10;     // a records frame is cut at the first record past this

// Flow control: bytes sent and not yet consumed by the peer's session, per lane. Together they bound the replay log.
inline constexpr uint64_t records_window_bytes = 4u << 20;
inline constexpr uint64_t bulk_window_bytes = 16u << 20;
inline constexpr uint64_t staging_bytes_max = 32u << 20;  // uploads that wait on the worker for their call
inline constexpr uint64_t ack_every_bytes = 1u << 20;     // acknowledge at the latest after so many received bytes

// Content that stays on this machine goes through memory both processes have mapped (channel/shared_chunks.h).
inline constexpr uint32_t shared_chunk_count = 64;       // of chunk_bytes, each way: as much as the bulk window
inline constexpr uint32_t shared_bytes_min = 16u << 10;  // a smaller piece travels in its message

// Session.
inline constexpr uint16_t queue_count_max = 64;
inline constexpr uint32_t slot_count_max = (1u << 26) - (1u << 20);  // per queue; above are the worker's own
inline constexpr uint32_t plan_count_max = 1u << 20;                 // per queue
inline constexpr uint32_t plan_body_bytes_max = 960u << 10;          // torch.stack of 20,000 losses
inline constexpr uint32_t call_slot_count_max = 1u << 15;            // slots named by one call
inline constexpr uint32_t call_scalar_bytes_max = 256u << 10;
inline constexpr uint32_t free_count_max = 1u << 15;  // slots named by one FREE
inline constexpr uint64_t storage_bytes_max = 1ull << 42;
inline constexpr uint32_t command_bytes_max = 512u << 10;
inline constexpr uint32_t report_bytes_max = 512u << 10;
inline constexpr uint32_t text_bytes_max = 64u << 10;   // error texts are cut to this
inline constexpr uint32_t info_bytes_max = 256u << 10;  // HELLO and WELCOME

inline constexpr int64_t grace_seconds_max = 7 * 24 * 3600;  // how long a worker may keep a lost client's session

// Plan bodies.
inline constexpr uint32_t tensor_dim_max = 128;
inline constexpr uint32_t plan_argument_count_max = 1u << 16;
inline constexpr uint32_t plan_list_count_max = 1u << 15;
inline constexpr uint32_t plan_depth_max = 4;  // lists of lists of outputs
inline constexpr uint32_t graph_value_count_max = 1u << 20;
inline constexpr uint32_t name_bytes_max = 256;

}  // namespace waldo::limits
