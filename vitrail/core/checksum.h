#pragma once
/// CRC-32C (Castagnoli), the checksum of checkpoints and of TensorBoard records.
///
/// Paper    RFC 3720 appendix B.4 (polynomial 0x1EDC6F41, reflected).
/// Time     one byte stream of the SSE 4.2 instruction where the processor has it, else a table.

#include <cstddef>
#include <cstdint>

namespace vitrail::core {

/// `seed` is the checksum of what came before, so crc32c(b, n, crc32c(a, m)) is that of a followed
/// by b.
uint32_t crc32c(const void* data, size_t bytes, uint32_t seed = 0);

/// The checksum as TFRecord stores it: rotated and shifted, so that a record may hold checksums
/// itself.
uint32_t masked_crc32c(const void* data, size_t bytes);

/// The two ways, for the test that they agree. crc32c_hardware must be called only where
/// has_crc32c_hardware().
bool has_crc32c_hardware();
uint32_t crc32c_hardware(const void* data, size_t bytes, uint32_t seed = 0);
uint32_t crc32c_table(const void* data, size_t bytes, uint32_t seed = 0);

}  // namespace vitrail::core
