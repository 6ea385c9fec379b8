#pragma once
/// Marks a loop function to be compiled for AVX2 and for the baseline, chosen when the program
/// starts. AVX2 without FMA on purpose: every version then rounds alike.

#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__) && \
    !defined(__SANITIZE_ADDRESS__)
#define VT_VECTORIZED __attribute__((target_clones("avx2", "default")))
#else
#define VT_VECTORIZED
#endif
