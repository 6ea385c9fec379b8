#pragma once
/// A group of one, for host memory or for one device's.

#include "vitrail/comm/communicator.h"

namespace vitrail::comm {

/// Copies as one queued piece of work; `device`: on `stream`.
Work copy_to_self(Buffer in, Buffer out, Stream stream, bool device);

/// self_communicator() for buffers on a CUDA device.
std::unique_ptr<Communicator> device_self_communicator();

/// Queues a copy between device (or host) buffers on `stream`; in a build without CUDA a plain
/// copy.
void copy_on_device(void* to, const void* from, int64_t bytes, Stream stream);

}  // namespace vitrail::comm
