#include "vitrail/comm/self.h"
#include "vitrail/comm/launch.h"
namespace vitrail::comm { std::unique_ptr<Communicator> device_communicator(Communicator&, int) { return device_self_communicator(); } }
