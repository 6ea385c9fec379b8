#include "vitrail/comm/self.h"

#include <atomic>
#include <cstring>

#include "vitrail/comm/host_communicator.h"
#include "vitrail/comm/reduce.h"

namespace vitrail::comm {
namespace {

class SelfCommunicator final : public Communicator {
 public:
  explicit SelfCommunicator(bool device) : device_(device) {}
  int rank() const override { return 0; }
  int size() const override { return 1; }
  std::string backend() const override { return "self"; }

  Work all_reduce(Buffer inout, Reduce op, Stream) override {
    check_open("all_reduce");
    check_buffer("all_reduce", inout);
    require_reducible("all_reduce", inout.dtype, op);
    return {};
  }
  Work all_gather(Buffer in, Buffer out, Stream stream) override {
    check_open("all_gather");
    check_gather(1, in, out);
    return copy_to_self(in, out, stream, device_);
  }
  Work reduce_scatter(Buffer in, Buffer out, Reduce op, Stream stream) override {
    check_open("reduce_scatter");
    check_scatter(1, in, out, op);
    return copy_to_self(in, out, stream, device_);
  }
  Work broadcast(Buffer inout, int root, Stream) override {
    check_open("broadcast");
    check_buffer("broadcast", inout);
    check_peer("broadcast", 1, root);
    return {};
  }
  Work all_to_all(Buffer in, Buffer out, Stream stream) override {
    check_open("all_to_all");
    check_all_to_all(1, in, out);
    return copy_to_self(in, out, stream, device_);
  }
  Work send(Buffer, int to, Stream) override { refuse("send", to); }
  Work receive(Buffer, int from, Stream) override { refuse("receive", from); }
  Work send_receive(Buffer in, int to, Buffer out, int from, Stream stream) override {
    check_open("send_receive");
    check_peer("send_receive", 1, to);
    check_peer("send_receive", 1, from);
    return copy_to_self(in, out, stream, device_);
  }
  void barrier() override { check_open("barrier"); }
  std::unique_ptr<Communicator> split(int color, int) override {
    check_open("split");
    check_color(color);
    return std::make_unique<SelfCommunicator>(device_);
  }
  void abort(int) noexcept override { aborted_ = true; }

 private:
  void check_open(const char* collective) const {
    VT_REQUIRE(CommError, !aborted_, "[comm] {}: the group was aborted", collective);
  }
  [[noreturn]] static void refuse(const char* collective, int peer) {
    check_peer(collective, 1, peer);
    core::fail<core::CommError>("[comm] {}: rank 0 cannot be its own peer; use send_receive",
                                collective);
  }

  const bool device_;
  std::atomic<bool> aborted_{false};
};

}  // namespace

Work copy_to_self(Buffer in, Buffer out, Stream stream, bool device) {
  check_buffer("send_receive", in);
  check_buffer("send_receive", out);
  VT_REQUIRE(CommError, in.count == out.count && in.dtype == out.dtype,
             "[comm] send_receive: rank must receive what it sends to itself, {} x {}, but expects "
             "{} x {}",
             in.count, core::name(in.dtype), out.count, core::name(out.dtype));
  if (in.data == out.data || in.count == 0) return {};
  if (device)
    copy_on_device(out.data, in.data, in.bytes(), stream);
  else
    std::memmove(out.data, in.data, static_cast<size_t>(in.bytes()));
  return {};
}

std::unique_ptr<Communicator> self_communicator() {
  return std::make_unique<SelfCommunicator>(false);
}
std::unique_ptr<Communicator> device_self_communicator() {
  return std::make_unique<SelfCommunicator>(true);
}

}  // namespace vitrail::comm
