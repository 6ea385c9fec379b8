#include "vitrail/parallel/collect.h"

#include <algorithm>
#include <cstring>
#include <map>
#include <optional>

#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty.h>
#include <fmt/format.h>

#include "vitrail/core/error.h"
#include "vitrail/ops/dtype.h"
#include <nlohmann/json.hpp>

namespace vitrail::parallel {
namespace {

using comm::Axis;
using nlohmann::json;

/// One more digit of a number written in mixed base: its place among `size`.
void append(Copies& copies, int size, int coordinate) {
  copies.count *= size;
  copies.index = copies.index * size + coordinate;
}

/// With such a parameter the tensor ranks' units differ in what lies where, so that their slices of a parameter that
/// they all hold differ too.
bool has_owned_slot(const Unit& unit) {
  return std::any_of(unit.slots.begin(), unit.slots.end(), [](const ParameterSlot& slot) {
    return slot.placement.split == Split::owner && slot.placement.parts > 1;
  });
}

bool is_held_by_all(const Placement& placement) {
  return placement.split == Split::none || placement.parts == 1;
}

/// What rank 0 must know of a piece that another rank will send.
json describe(const KeptPiece& piece) {
  return {piece.slot->name,      piece.slot->whole_shape, piece.range.box.start,
          piece.range.box.shape, piece.range.start,       piece.range.count};
}

struct Incoming {
  int rank;
  BoxRange range;
};
struct Parcel {
  std::vector<int64_t> shape;
  std::vector<Incoming> parts;
};

void send_text(comm::Communicator& group, const std::string& text) {
  int64_t length = static_cast<int64_t>(text.size());
  group.send({&length, 1, core::DType::i64}, 0).wait();
  std::string copy = text;
  group.send({copy.data(), length, core::DType::u8}, 0).wait();
}

std::string receive_text(comm::Communicator& group, int rank) {
  int64_t length = 0;
  group.receive({&length, 1, core::DType::i64}, rank).wait();
  std::string text(static_cast<size_t>(length), '\0');
  group.receive({text.data(), length, core::DType::u8}, rank).wait();
  return text;
}

/// Rank 0's text on every rank.
std::string share_text(comm::Communicator& group, std::string text) {
  int64_t length = static_cast<int64_t>(text.size());
  group.broadcast({&length, 1, core::DType::i64}, 0).wait();
  text.resize(static_cast<size_t>(length));
  if (length > 0) group.broadcast({text.data(), length, core::DType::u8}, 0).wait();
  return text;
}

class Collection {
 public:
  Collection(const Layout& layout, const at::Tensor& arena, comm::Mesh& mesh)
      : group_(mesh.world()), arena_(arena) {
    for (KeptPiece& piece : kept_pieces(layout, place_of(mesh)))
      if (piece.copies.index == 0) mine_[piece.slot->name].push_back(std::move(piece));
  }

  void run(const CollectVisitor& visitor) {
    const std::map<std::string, Parcel> parcels = announce();
    if (group_.rank() == 0)
      lead(parcels, visitor);
    else
      follow();
  }

 private:
  /// Every rank tells rank 0 what it will send.
  std::map<std::string, Parcel> announce() {
    json list = json::array();
    for (const auto& [name, pieces] : mine_)
      for (const KeptPiece& piece : pieces) list.push_back(describe(piece));
    if (group_.rank() != 0) {
      send_text(group_, list.dump());
      return {};
    }
    std::map<std::string, Parcel> parcels;
    for (int rank = 0; rank < group_.size(); ++rank) {
      if (rank > 0) list = json::parse(receive_text(group_, rank));
      for (const json& part : list) {
        Parcel& parcel = parcels[part[0].get<std::string>()];
        parcel.shape = part[1].get<std::vector<int64_t>>();
        parcel.parts.push_back({rank, {{part[2], part[3]}, part[4], part[5]}});
      }
    }
    return parcels;
  }

  /// Each round rank 0 names a tensor, so that nobody waits longer than one tensor takes; then "" or why it gave up.
  void lead(const std::map<std::string, Parcel>& parcels, const CollectVisitor& visitor) {
    try {
      if (visitor.begin) {
        std::vector<WholeParameter> all;
        for (const auto& [name, parcel] : parcels) all.push_back({name, parcel.shape});
        visitor.begin(all);
      }
      for (const auto& [name, parcel] : parcels) {
        // Memory first: once the name is out, the others send.
        at::Tensor whole = at::empty(parcel.shape, arena_.options().device(at::kCPU));
        share_text(group_, "=" + name);
        put_together(name, parcel, whole);
        visitor.tensor(name, whole);
      }
    } catch (const core::CommError&) {
      throw;
    } catch (const std::exception& error) {
      share_text(group_, std::string("!") + error.what());
      throw;
    }
    share_text(group_, "");
  }

  void follow() {
    for (std::string order = share_text(group_, ""); !order.empty();
         order = share_text(group_, "")) {
      VT_REQUIRE(Error, order[0] == '=', "{} (rank 0)", order.substr(1));
      const auto found = mine_.find(order.substr(1));
      if (found == mine_.end()) continue;
      for (const KeptPiece& piece : found->second) {
        const at::Tensor part = on_host(piece);
        group_.send(buffer(part), 0).wait();
      }
    }
  }

  at::Tensor on_host(const KeptPiece& piece) const {
    return arena_.narrow(0, piece.kept_offset, piece.range.count).to(at::kCPU).contiguous();
  }
  static comm::Buffer buffer(const at::Tensor& tensor) {
    return {const_cast<void*>(tensor.const_data_ptr()), tensor.numel(),
            ops::dtype_of(tensor.scalar_type())};
  }

  void put_together(const std::string& name, const Parcel& parcel, at::Tensor& whole) const {
    const BoxRange all{whole_box(parcel.shape), 0, whole.numel()};
    auto* out = static_cast<char*>(whole.mutable_data_ptr());
    const auto width = static_cast<int64_t>(whole.element_size());
    int64_t filled = 0;
    size_t own = 0;
    for (const auto& [rank, range] : parcel.parts) {
      at::Tensor part;
      if (rank == 0) {
        part = on_host(mine_.at(name)[own++]);
      } else {
        part = at::empty({range.count}, whole.options());
        group_.receive(buffer(part), rank).wait();
      }
      const auto* data = static_cast<const char*>(part.const_data_ptr());
      for_each_common_run(all, range, [&](int64_t to, int64_t from, int64_t count) {
        std::memcpy(out + to * width, data + from * width, static_cast<size_t>(count * width));
        filled += count;
      });
    }
    VT_CHECK(filled == whole.numel(),
             "[collect] the ranks' parts of {} must hold its {} elements once but hold {}", name,
             whole.numel(), filled);
  }

  comm::Communicator& group_;
  const at::Tensor& arena_;
  std::map<std::string, std::vector<KeptPiece>> mine_;
};

}  // namespace

Copies copies_of(const Placement& placement, const Sharding& sharding, const MeshPlace& place) {
  const int divided = place.size(Axis::shard) * place.size(Axis::sequence);
  const int replicas = place.size(Axis::replicate), tensor = place.size(Axis::tensor);
  VT_CHECK((sharding.weights == 1 || sharding.weights == divided) &&
               (sharding.kept == 1 || sharding.kept == replicas),
           "[layout] slices must be those of shard x sequence = {} ranks and of {} replicas but "
           "are {} and {}",
           divided, replicas, sharding.weights, sharding.kept);
  VT_CHECK(is_held_by_all(placement) || placement.parts == tensor,
           "[layout] a divided parameter must lie on the {} tensor ranks but lies on {}", tensor,
           placement.parts);
  Copies copies;
  if (sharding.kept == 1) append(copies, replicas, place.coordinate(Axis::replicate));
  if (sharding.weights == 1)
    append(copies, divided,
           place.coordinate(Axis::shard) * place.size(Axis::sequence) +
               place.coordinate(Axis::sequence));
  if (is_held_by_all(placement)) append(copies, tensor, place.coordinate(Axis::tensor));
  return copies;
}

MeshPlace place_of(const comm::Mesh& mesh) {
  MeshPlace place;
  for (int axis = 0; axis < comm::kAxisCount; ++axis) {
    place.sizes[static_cast<size_t>(axis)] = mesh.size(static_cast<Axis>(axis));
    place.coordinates[static_cast<size_t>(axis)] = mesh.coordinate(static_cast<Axis>(axis));
  }
  return place;
}

std::vector<KeptPiece> kept_pieces(const Layout& layout, const MeshPlace& place) {
  std::vector<KeptPiece> pieces;
  MeshPlace first_tensor_rank_alone = place;
  first_tensor_rank_alone.sizes[static_cast<size_t>(Axis::tensor)] = 1;
  first_tensor_rank_alone.coordinates[static_cast<size_t>(Axis::tensor)] = 0;
  std::map<const ParameterSlot*, bool> uneven;
  for (const Unit& unit : layout.units())
    for (const ParameterSlot& slot : unit.slots)
      uneven[&slot] = layout.sharding().pieces() > 1 && has_owned_slot(unit);
  for (const KeptRun& run : layout.kept_runs()) {
    const ParameterSlot& slot = *run.slot;
    const bool alone = is_held_by_all(slot.placement) && uneven.at(&slot);
    Copies copies =
        copies_of(slot.placement, layout.sharding(), alone ? first_tensor_rank_alone : place);
    if (alone && place.coordinate(Axis::tensor) != 0) copies.index = -1;
    int64_t offset = run.kept_offset;
    for (BoxRange& range :
         split_run(boxes(slot.whole_shape, slot.placement), run.start, run.count)) {
      const int64_t count = range.count;
      pieces.push_back({&slot, std::move(range), offset, copies});
      offset += count;
    }
  }
  return pieces;
}

void collect(const Layout& layout, const at::Tensor& kept_arena, comm::Mesh& mesh,
             const CollectVisitor& visitor) {
  const at::NoGradGuard no_grad;
  Collection(layout, kept_arena, mesh).run(visitor);
}

}  // namespace vitrail::parallel
