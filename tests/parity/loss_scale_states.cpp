// The states of the loss scaler over patterns of overflows, for loss_scale.py. Standard input, a line a run: first scale,
// window, hysteresis, consecutive (0 or 1), minimum, pattern such as 00101 (1 = overflow). Standard output, for every
// step: scale, hysteresis, last overflow, iteration, failed, as fp64.

#include <array>
#include <cstdio>
#include <iostream>
#include <limits>
#include <sstream>
#include <string>

#include "vitrail/kernels/loss_scale.h"

int main() {
  namespace kernels = vitrail::kernels;
  for (std::string line; std::getline(std::cin, line);) {
    std::istringstream fields(line);
    kernels::LossScaleRules rules;
    kernels::LossScaleState state;
    std::string pattern;
    fields >> state.scale >> rules.window >> rules.hysteresis >> rules.consecutive_hysteresis >>
        rules.minimum >> pattern;
    if (!fields) return 1;
    state.hysteresis = rules.hysteresis;
    for (const char step : pattern) {
      const double sum = step == '1' ? std::numeric_limits<double>::infinity() : 1.0;
      float norm, factor, next;
      kernels::LossScaleReport report;
      kernels::unscale(&sum, 1.0f, rules, &state, &norm, &factor, &next, &report);
      const std::array<double, 5> row{state.scale, static_cast<double>(state.hysteresis),
                                      static_cast<double>(state.last_overflow),
                                      static_cast<double>(state.iteration),
                                      static_cast<double>(state.failed)};
      std::fwrite(row.data(), sizeof(double), row.size(), stdout);
    }
  }
}
