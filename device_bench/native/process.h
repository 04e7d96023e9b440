// What a runner knows of its own process: time, peak memory, who started it, how fast its core is just now.
#pragma once

#include <time.h>

#include <cstdint>
#include <vector>

namespace phonefit {

int64_t now_ns(clockid_t clock = CLOCK_MONOTONIC);

// Nobody waits for a measurement whose starter was killed, and it would disturb the next one: from here on the kernel
// ends this process with `parent`. Throws Failed when that has ended already.
void end_with_parent(long parent);

// Times of arithmetic that needs no memory and is always the same: they tell how fast this core is just now.
std::vector<int64_t> reference_loops(long count);

// Largest resident memory of this process so far. Throws Failed where the kernel does not tell it.
long peak_resident_bytes();

// Lets the peak begin anew at what is resident now, where the kernel allows it (man proc_pid_clear_refs).
void restart_peak();

}  // namespace phonefit
