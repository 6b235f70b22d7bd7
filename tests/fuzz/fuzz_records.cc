// A RECORDS payload: every record that is shown is recorded again, and a payload that is accepted to its end must come
// out as the same bytes.
#include "fuzz/input.h"
#include "wire/dump.h"
#include "wire/records.h"

using namespace waldo;
using wire::Answer;
using wire::RecordKind;

namespace {

void record_again(wire::RecordsBuilder& builder, const wire::Record& r) {
  const Answer answer = r.report_wanted ? Answer::kReport : Answer::kNone;
  switch (r.kind) {
    case RecordKind::kCall:
      builder.call(r.plan, r.slots, r.body, answer);
      break;
    case RecordKind::kDefinePlan:
      builder.define_plan(r.plan, r.reads, r.creates, r.body);
      break;
    case RecordKind::kFree:
      builder.free(r.slots);
      break;
    case RecordKind::kCreate:
      builder.create(r.slot, r.bytes);
      break;
    case RecordKind::kResize:
      builder.resize(r.slot, r.bytes);
      break;
    case RecordKind::kUpload:
      builder.upload(r.slot, r.offset, r.bytes, r.upload);
      break;
    case RecordKind::kRead:
      builder.read(r.slot, r.offset, r.bytes);
      break;
    case RecordKind::kAfter:
      builder.after(r.other_queue, r.target);
      break;
    case RecordKind::kResumeAt:
      builder.resume_at(r.target);
      break;
    case RecordKind::kSync:
      builder.sync();
      break;
    case RecordKind::kTime:
      builder.time();
      break;
    case RecordKind::kCommand:
      builder.command(r.body, answer);
      break;
  }
}

}  // namespace

int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const Buffer payload = fuzz::input(data, size);
  static_cast<void>(wire::dump(wire::FrameKind::kRecords, FrameNumber{1}, wire::Lane::kRecords, payload));
  auto reader = wire::RecordReader::open(payload);
  if (!reader.ok()) return 0;
  wire::RecordsBuilder builder(reader->header().queue, reader->header().first_call);
  for (wire::Record record; reader->next(record);) record_again(builder, record);
  if (reader->status().ok()) WALDO_CHECK(builder.take() == payload);
  return 0;
}
