/* A clock and a source of random bytes for an emulated program that are the same in every run.
 *
 *   gcc -O2 -shared -fPIC -o guest_clock.so guest_clock.c
 *   LD_PRELOAD=./guest_clock.so qemu-aarch64 -U LD_PRELOAD ... PROGRAM ...
 *
 * qemu-user hands the host's time and random bytes to the program. Programs act upon them, so that how fast and how
 * busy the host is would show in their counts. Loaded into QEMU, this takes the place of the C library's functions
 * there: each look at a clock finds it a microsecond later, and random bytes come from a fixed sequence.
 */
#define _GNU_SOURCE
#include <stddef.h>
#include <stdint.h>
#include <sys/random.h>
#include <sys/time.h>
#include <time.h>

enum { STEP = 1000, SECOND = 1000000000, MICROSECOND = 1000 };

static uint64_t nanoseconds = 1700000000ull * SECOND, state;

int clock_gettime(clockid_t clock, struct timespec *time) {
  (void)clock;
  nanoseconds += STEP;
  time->tv_sec = nanoseconds / SECOND;
  time->tv_nsec = nanoseconds % SECOND;
  return 0;
}

int gettimeofday(struct timeval *restrict time, void *restrict zone) {
  (void)zone;
  nanoseconds += STEP;
  time->tv_sec = nanoseconds / SECOND;
  time->tv_usec = nanoseconds % SECOND / MICROSECOND;
  return 0;
}

/* SplitMix64: Steele, Lea and Flood, Fast splittable pseudorandom number generators, OOPSLA 2014. */
ssize_t getrandom(void *buffer, size_t length, unsigned flags) {
  (void)flags;
  for (size_t i = 0; i < length; i++) {
    uint64_t z = state += 0x9e3779b97f4a7c15;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
    z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
    ((unsigned char *)buffer)[i] = (unsigned char)(z ^ (z >> 31));
  }
  return (ssize_t)length;
}
