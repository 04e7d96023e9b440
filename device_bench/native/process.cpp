#include "process.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/prctl.h>
#include <unistd.h>

#include <cstdio>
#include <string>

#include "runner.h"

namespace phonefit {
namespace {

// About 5 ms on a fast core: eight cycles a step.
constexpr long kReferenceSteps = 3000000;

int64_t reference_loop() {
  const int64_t start = now_ns();
  uint64_t whole = 1;
  float real = 1.0f;
  for (long i = 0; i < kReferenceSteps; ++i) {
    // Knuth's MMIX generator; each step needs the one before, in both number formats
    whole = whole * 6364136223846793005u + 1442695040888963407u;
    real = real * 0.999f + 1.0f;
  }
  // read by nobody, but the compiler has to work it out
  [[maybe_unused]] volatile uint64_t keep_whole = whole;
  [[maybe_unused]] volatile float keep_real = real;
  return now_ns() - start;
}

}  // namespace

int64_t now_ns(clockid_t clock) {
  timespec time;
  clock_gettime(clock, &time);
  return int64_t{time.tv_sec} * 1000000000 + time.tv_nsec;
}

void end_with_parent(long parent) {
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  // it may have ended before the kernel was asked
  if (getppid() != parent) throw Failed("process " + std::to_string(parent) + ", which started it, has ended");
}

std::vector<int64_t> reference_loops(long count) {
  std::vector<int64_t> taken;
  for (long i = 0; i < count; ++i) taken.push_back(reference_loop());
  return taken;
}

// ru_maxrss would be no alternative: it starts at the parent's peak.
long peak_resident_bytes() {
  FILE* status = std::fopen("/proc/self/status", "r");
  if (!status) throw Failed("/proc/self/status cannot be read, so the peak memory is unknown");
  char line[256];
  long kibibytes = -1;
  while (kibibytes < 0 && std::fgets(line, sizeof line, status)) std::sscanf(line, "VmHWM: %ld", &kibibytes);
  std::fclose(status);
  if (kibibytes < 0) throw Failed("/proc/self/status has no VmHWM, so the peak memory is unknown");
  return kibibytes * 1024;
}

void restart_peak() {
  const int file = open("/proc/self/clear_refs", O_WRONLY | O_CLOEXEC);
  if (file < 0) return;
  if (write(file, "5", 1) != 1) std::fprintf(stderr, "warning: the peak memory includes the start of the runtime\n");
  close(file);
}

}  // namespace phonefit
