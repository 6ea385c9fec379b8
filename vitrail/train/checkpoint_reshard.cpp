#include "vitrail/train/checkpoint_reshard.h"

#include <algorithm>
#include <array>
#include <filesystem>
#include <memory>

#include <fmt/format.h>
#include <unistd.h>

#include "vitrail/core/atomic_file.h"
#include "vitrail/core/checksum.h"
#include "vitrail/core/error.h"
#include "vitrail/io/safetensors.h"
#include "vitrail/models/model.h"
#include "vitrail/parallel/engine.h"
#include "vitrail/train/assembly.h"
#include "vitrail/train/checkpoint_files.h"
#include "vitrail/train/checkpoint_folder.h"
#include "vitrail/train/checkpoint_load.h"
#include "vitrail/train/checkpoint_manifest.h"
#include "vitrail/train/checkpoint_tensor.h"

namespace vitrail::train {

namespace {

namespace fs = std::filesystem;
using core::CheckpointError;

/// A multiple of kBlockBytes, much longer than one so that blocks read twice at its ends do not count.
constexpr int64_t kChunkBytes = 64 * kBlockBytes;

/// Long enough that no checksum's block is read many times.
int64_t chunk_bytes(const TensorEntry& entry) {
  int64_t bytes = kChunkBytes;
  for (const Region& region : entry.regions) bytes = std::max(bytes, region.block_bytes());
  return (bytes + kBlockBytes - 1) / kBlockBytes * kBlockBytes;
}

/// Copies one range into the file, piece by piece; returns the checksums of its blocks.
std::vector<uint32_t> copy_range(const CheckpointReader& from, const std::string& name,
                                 const parallel::BoxRange& range, const std::string& entry_name,
                                 io::SafetensorsWriter& to) {
  const TensorEntry& entry = from.manifest().tensors.at(name);
  const int64_t width = core::size_bytes(entry.dtype);
  const int64_t step = chunk_bytes(entry) / width;
  std::vector<char> buffer(static_cast<size_t>(std::min(step, range.count) * width));
  std::vector<uint32_t> checksums;
  for (int64_t done = 0; done < range.count; done += step) {
    const int64_t count = std::min(step, range.count - done);
    from.read(name, {range.box, range.start + done, count}, buffer.data());
    to.append(entry_name, buffer.data(), count * width);
    for (const uint32_t one : block_checksums(buffer.data(), count * width))
      checksums.push_back(one);
  }
  return checksums;
}

/// Writes the file of one rank and adds it to the manifest.
void write_rank(const CheckpointReader& from, const std::vector<StatePiece>& pieces, int rank,
                const std::string& folder, Manifest& manifest) {
  const std::string name = rank_file_name(rank), path = folder + "/" + name;
  const std::vector<Share> shares = even_share(pieces);
  const io::SafetensorsLayout layout = file_layout(pieces, shares, manifest.info.step, path);
  io::SafetensorsWriter writer(path, layout);
  for (size_t i = 0; i < shares.size(); ++i) {
    const StatePiece& piece = pieces[shares[i].piece];
    const parallel::BoxRange range = range_of(piece, shares[i]);
    Region region{.file = name,
                  .offset = layout.places[i].offset,
                  .bytes = shares[i].bytes,
                  .start = range.start,
                  .count = range.count};
    region.crc32c = copy_range(from, piece.name, range, layout.places[i].name, writer);
    add_region(manifest, piece.name, piece.dtype, piece.whole_shape, range.box, std::move(region));
  }
  writer.finish();
  manifest.files[name] = {layout.file_bytes, static_cast<int64_t>(layout.header.size()),
                          core::crc32c(layout.header.data(), layout.header.size())};
}

/// A file of every rank, and the manifest over them.
Manifest write_all_ranks(const CheckpointReader& from, const RankPlan& plan,
                         const std::string& folder) {
  Manifest manifest{.info = from.info()};
  for (const auto& [name, entry] : from.manifest().tensors)  // the plan may not name what is empty
    if (entry.count() == 0) manifest.tensors[name] = {entry.dtype, entry.shape, {}, {}};
  for (int rank = 0; rank < plan.ranks; ++rank)
    write_rank(from, plan.pieces(rank), rank, folder, manifest);
  sort_regions(manifest);
  check_manifest(manifest, folder);
  VT_CHECK(manifest.tensors.size() == from.manifest().tensors.size(),
           "[checkpoint] the new layout must hold all {} tensors but holds {}",
           from.manifest().tensors.size(), manifest.tensors.size());
  return manifest;
}

/// Axes of the mesh that a recipe asks for, all on one host; what it leaves open must come out of `ranks`. Without a number
/// of ranks there is one replica.
std::array<int, comm::kAxisCount> sizes_of(const config::Parallel& options, int ranks) {
  const comm::MeshShape shape = mesh_shape(options, ranks, ranks);
  std::array<int64_t, comm::kAxisCount> sizes{shape.replicate, shape.shard, shape.pipeline,
                                              shape.sequence, shape.tensor};
  if (ranks == 0 && sizes[0] == -1) sizes[0] = 1;
  int64_t product = 1;
  for (const int64_t size : sizes)
    if (size > 0) product *= size;
  const bool open = std::count(sizes.begin(), sizes.end(), -1) > 0;
  VT_REQUIRE(ConfigError, ranks > 0 || !open,
             "[checkpoint] parallel.shard must be given, or the number of ranks: add "
             "parallel.shard=N or --ranks N");
  VT_REQUIRE(ConfigError, ranks == 0 || (open ? ranks % product == 0 : ranks == product),
             "[checkpoint] the axes of the mesh must multiply to {} ranks but give {}", ranks,
             product);
  std::array<int, comm::kAxisCount> found{};
  for (size_t axis = 0; axis < sizes.size(); ++axis)
    found[axis] = static_cast<int>(sizes[axis] == -1 ? ranks / product : sizes[axis]);
  return found;
}

/// Row-major place of a rank, as comm::Mesh numbers them: tensor ranks are neighbours.
parallel::MeshPlace place_of_rank(const std::array<int, comm::kAxisCount>& sizes, int rank) {
  parallel::MeshPlace place{sizes, {}};
  for (size_t axis = sizes.size(); axis-- > 0;) {
    place.coordinates[axis] = rank % sizes[axis];
    rank /= sizes[axis];
  }
  return place;
}

/// Tensors of the checkpoint by kind: "" for parameters.
std::vector<std::string> kinds_of(const Manifest& manifest) {
  std::vector<std::string> kinds;
  for (const auto& [name, entry] : manifest.tensors)
    if (const std::string kind = kind_of(name);
        std::find(kinds.begin(), kinds.end(), kind) == kinds.end())
      kinds.push_back(kind);
  return kinds;
}

}  // namespace

RankPlan undivided_plan(const CheckpointReader& checkpoint, int ranks) {
  VT_REQUIRE(ConfigError, ranks >= 1, "[checkpoint] --ranks must be at least 1 but got {}", ranks);
  return {ranks, [&checkpoint, ranks](int rank) {
            std::vector<StatePiece> pieces;
            for (const auto& [name, entry] : checkpoint.manifest().tensors)
              pieces.push_back({name,
                                entry.shape,
                                entry.dtype,
                                {parallel::whole_box(entry.shape), 0, entry.count()},
                                {},
                                {ranks, rank}});
            return pieces;
          }};
}

RankPlan plan_of(const CheckpointReader& checkpoint, const config::Recipe& recipe, int ranks) {
  const auto sizes = sizes_of(recipe.parallel, ranks);
  int product = 1;
  for (const int size : sizes) product *= size;
  std::shared_ptr<models::Model> model = models::make_model_shapes(recipe.model);
  return {product, [&checkpoint, recipe, sizes, model](int rank) {
            const parallel::MeshPlace place = place_of_rank(sizes, rank);
            const parallel::Layout layout(*model, layout_options(*model, recipe, place));
            const std::vector<parallel::KeptPiece> kept = parallel::kept_pieces(layout, place);
            const auto& tensors = checkpoint.manifest().tensors;
            std::vector<StatePiece> pieces;
            for (const std::string& kind : kinds_of(checkpoint.manifest()))
              for (const parallel::KeptPiece& piece : kept) {
                const std::string name = (kind.empty() ? "" : kind + "/") + piece.slot->name;
                const auto found = tensors.find(name);
                VT_REQUIRE(CheckpointError,
                           found != tensors.end() && found->second.shape == piece.slot->whole_shape,
                           "[checkpoint] {}: its recipe's model has {} {} but the checkpoint not",
                           checkpoint.path(), name, shape_text(piece.slot->whole_shape));
                pieces.push_back({name,
                                  piece.slot->whole_shape,
                                  found->second.dtype,
                                  piece.range,
                                  {},
                                  piece.copies});
              }
            return pieces;
          }};
}

Resharded reshard_checkpoint(const CheckpointReader& checkpoint, const std::string& output,
                             const RankPlan& plan) {
  core::make_directories(output);
  const FolderLock lock(output, 10);
  const std::string final_path = output + "/" + step_folder_name(checkpoint.info().step);
  std::error_code ignored;
  VT_REQUIRE(
      ConfigError, !fs::equivalent(final_path, checkpoint.path(), ignored),
      "[checkpoint] --output must be another folder than {}, which holds the checkpoint that "
      "is read",
      output);
  const std::string unfinished =
      fmt::format("{}{}reshard-{}", final_path, kUnfinishedMark, ::getpid());
  const FileOperations files;
  files.make_folder(unfinished);
  try {
    const Manifest manifest = write_all_ranks(checkpoint, plan, unfinished);
    files.write_file(unfinished + "/" + std::string(kManifestName), {to_text(manifest)});
    files.sync_folder(unfinished);
    files.put_in_place(unfinished, final_path);
    files.sync_folder(output);
    remove_folder(unfinished);  // an older one of the same step, exchanged for the new one
    Resharded done{final_path, static_cast<int64_t>(manifest.files.size()), 0};
    for (const auto& [name, file] : manifest.files) done.bytes += file.bytes;
    return done;
  } catch (...) {
    remove_folder(unfinished);
    throw;
  }
}

}  // namespace vitrail::train
