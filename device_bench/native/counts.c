/* QEMU TCG plugin: exact, repeatable costs of one single-threaded aarch64 Linux process (qemu-user 7.2, plugin
 * interface 1, https://www.qemu.org/docs/master/devel/tcg-plugins.html).
 *
 *   gcc -O2 -shared -fPIC -o counts.so counts.c
 *   qemu-aarch64 -plugin ./counts.so,out=FILE,l1=BYTES/WAYS,l2=BYTES/WAYS,l3=BYTES/WAYS -cpu cortex-a76 PROGRAM ...
 *
 * Each time that the program makes the system call 20000 + k, which no kernel has, one JSON line with "mark": k and all
 * totals since the start goes to FILE.
 *
 * Instructions, by the top level of the A64 encoding (Arm Architecture Reference Manual, "A64 instruction set
 * encoding"): integer, branch (with system instructions), memory (loads and stores of any register), simd_multiply
 * (vector and scalar floating-point multiplications, multiply-accumulates and dot products) and simd_other.
 *
 * Bytes and cache lines: of loads and stores. Zeroing by `dc zva` counts as an instruction only, and instruction
 * fetches are not simulated. The caches are set-associative with least-recently-used replacement, 64-byte lines and
 * virtual addresses, each level asked only when the one above missed, without prefetching.
 *
 * Memory: pages of 4 KiB that the program ran, read or wrote, or had the kernel fill, less those that it gave back by
 * munmap, madvise, brk or a mapping over them. That is what VmRSS counts, except that Linux also maps the neighbours of
 * a touched page of a file. The peak begins anew at mark 0.
 */
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Debian's qemu-user has no qemu-plugin.h: the part of interface 1 that is used here. */
typedef uint64_t qemu_plugin_id_t;
typedef uint32_t qemu_plugin_meminfo_t;
typedef struct qemu_info_t qemu_info_t;
struct qemu_plugin_tb;
struct qemu_plugin_insn;
enum qemu_plugin_op { QEMU_PLUGIN_INLINE_ADD_U64 };
enum qemu_plugin_cb_flags { QEMU_PLUGIN_CB_NO_REGS };
enum qemu_plugin_mem_rw { QEMU_PLUGIN_MEM_RW = 3 };
void qemu_plugin_register_vcpu_tb_trans_cb(qemu_plugin_id_t, void (*)(qemu_plugin_id_t, struct qemu_plugin_tb *));
void qemu_plugin_register_vcpu_tb_exec_inline(struct qemu_plugin_tb *, enum qemu_plugin_op, void *, uint64_t);
void qemu_plugin_register_vcpu_mem_cb(struct qemu_plugin_insn *,
                                      void (*)(unsigned, qemu_plugin_meminfo_t, uint64_t, void *),
                                      enum qemu_plugin_cb_flags, enum qemu_plugin_mem_rw, void *);
void qemu_plugin_register_vcpu_syscall_cb(qemu_plugin_id_t,
                                          void (*)(qemu_plugin_id_t, unsigned, int64_t, uint64_t, uint64_t, uint64_t,
                                                   uint64_t, uint64_t, uint64_t, uint64_t, uint64_t));
void qemu_plugin_register_vcpu_syscall_ret_cb(qemu_plugin_id_t, void (*)(qemu_plugin_id_t, unsigned, int64_t, int64_t));
size_t qemu_plugin_tb_n_insns(const struct qemu_plugin_tb *);
struct qemu_plugin_insn *qemu_plugin_tb_get_insn(const struct qemu_plugin_tb *, size_t);
const void *qemu_plugin_insn_data(const struct qemu_plugin_insn *);
uint64_t qemu_plugin_insn_vaddr(const struct qemu_plugin_insn *);
unsigned qemu_plugin_mem_size_shift(qemu_plugin_meminfo_t);
bool qemu_plugin_mem_is_store(qemu_plugin_meminfo_t);

#define EXPORT __attribute__((visibility("default")))
EXPORT int qemu_plugin_version = 1;

enum { MARKS = 20000, LAST_MARK = 10000000, BEFORE_LOAD = 0 };

/* ---- instructions ---- */

enum kind { INTEGER, BRANCH, MEMORY, SIMD_MULTIPLY, SIMD_OTHER, KINDS };
static const char *const kind_names[KINDS] = {"integer", "branch", "memory", "simd_multiply", "simd_other"};
static uint64_t executed[KINDS];

static unsigned bits(uint32_t word, int high, int low) { return word >> low & ((1u << (high - low + 1)) - 1); }

/* Tables "Advanced SIMD three same / three different / x indexed element" and "Floating-point data-processing". */
static bool multiplies(uint32_t word) {
  unsigned top = bits(word, 28, 24);
  if (top == 0x1f) { /* one element, or scalar multiply-add (bit 30 clear) */
    return bits(word, 30, 30) == 0 || bits(word, 10, 10) == 0;
  }
  if (top == 0x0f) return bits(word, 10, 10) == 0; /* by element: nothing but multiplications */
  if (top == 0x1e && bits(word, 30, 30) == 0)      /* scalar floating point: FMUL, FNMUL */
    return bits(word, 21, 21) == 1 && bits(word, 11, 10) == 2 && (bits(word, 15, 12) & 7) == 0;
  if (top != 0x0e) return false;
  unsigned opcode = bits(word, 15, 11);
  bool high = bits(word, 29, 29);
  if (bits(word, 21, 21) == 0) /* three same extra: dot products, rounding and complex multiply-accumulate */
    return bits(word, 15, 15) == 1 && bits(word, 10, 10) == 1 && bits(word, 14, 11) <= 0xb;
  if (bits(word, 10, 10) == 1) /* three same: MLA, MUL, SQDMULH, FMLA, FMUL and FMLAL, FMULX */
    return opcode == 0x12 || opcode == 0x13 || opcode == 0x16 || opcode == 0x19 || opcode == 0x1b ||
           (opcode == 0x1d && high);
  if (bits(word, 11, 11) == 0) { /* three different: the long multiplications */
    unsigned wide = bits(word, 15, 12);
    return wide >= 0x8 && wide != 0xf;
  }
  return false;
}

static enum kind kind_of(uint32_t word) {
  unsigned op0 = bits(word, 28, 25);
  if ((op0 & 7) == 7) return multiplies(word) ? SIMD_MULTIPLY : SIMD_OTHER;
  if ((op0 & 5) == 4) return MEMORY;
  if ((op0 & 14) == 10) return BRANCH;
  return INTEGER;
}

/* ---- caches ---- */

enum { LEVELS = 3, LINE_SHIFT = 6 };
static struct level {
  uint64_t sets, ways, misses;
  uint64_t *tags; /* of each set, the latest used first; 0 is empty */
} levels[LEVELS];
static uint64_t read_bytes, written_bytes;

static bool hit(struct level *level, uint64_t line) {
  uint64_t *tags = level->tags + line % level->sets * level->ways, tag = line + 1, place = 0;
  if (tags[0] == tag) return true;
  while (place < level->ways && tags[place] != tag) place++;
  bool found = place < level->ways;
  if (!found) place = level->ways - 1;
  memmove(tags + 1, tags, place * sizeof *tags);
  tags[0] = tag;
  return found;
}

static void access_line(uint64_t line) {
  for (int i = 0; i < LEVELS && !hit(&levels[i], line); i++) levels[i].misses++;
}

/* ---- resident pages: a hash table of 2 MiB stretches of address space, each with a bit for each page ---- */

enum { PAGE_SHIFT = 12, STRETCH_SHIFT = 21, SLOTS = 1 << 16, PAGES = 1 << (STRETCH_SHIFT - PAGE_SHIFT) };
static struct stretch {
  uint64_t key; /* address >> STRETCH_SHIFT, plus 1; 0 is empty */
  uint64_t pages[PAGES / 64];
} *stretches, *latest;
static uint64_t resident, peak;

/* The stretch of an address; with `make` false, NULL when nothing in it was ever resident. */
static struct stretch *stretch_of(uint64_t address, bool make) {
  uint64_t key = (address >> STRETCH_SHIFT) + 1;
  if (latest->key == key) return latest;
  uint64_t slot = key * 0x9e3779b97f4a7c15u >> 48;
  for (int tried = 0; tried < SLOTS; tried++, slot = (slot + 1) % SLOTS) {
    if (stretches[slot].key == 0 && !make) return NULL;
    if (stretches[slot].key == key || stretches[slot].key == 0) {
      stretches[slot].key = key;
      return latest = &stretches[slot];
    }
  }
  fprintf(stderr, "counts plugin: the program touches more than 128 GiB of address space\n");
  exit(3);
}

static bool has_page(uint64_t address) {
  struct stretch *stretch = stretch_of(address, false);
  uint64_t place = address >> PAGE_SHIFT & (PAGES - 1);
  return stretch && stretch->pages[place / 64] >> place % 64 & 1;
}

static void set_page(uint64_t address, bool present) {
  struct stretch *stretch = stretch_of(address, present);
  if (!stretch) return;
  uint64_t place = address >> PAGE_SHIFT & (PAGES - 1), bit = 1ull << place % 64;
  uint64_t *word = &stretch->pages[place / 64];
  if (((*word & bit) != 0) == present) return;
  *word ^= bit;
  resident += present ? 1 : -1;
  if (resident > peak) peak = resident;
}

static void set_pages(uint64_t start, uint64_t length, bool present) {
  uint64_t page = start >> PAGE_SHIFT, end = (start + length + (1 << PAGE_SHIFT) - 1) >> PAGE_SHIFT;
  while (length && page < end) {
    if (present || stretch_of(page << PAGE_SHIFT, false))
      set_page(page++ << PAGE_SHIFT, present);
    else
      page = (page / PAGES + 1) * PAGES; /* reservations of address space are wide and empty */
  }
}

static void move_pages(uint64_t from, uint64_t from_length, uint64_t to, uint64_t to_length) {
  uint64_t size = 1 << PAGE_SHIFT;
  for (uint64_t offset = 0; offset < from_length; offset += size) {
    bool present = has_page(from + offset);
    set_page(from + offset, false);
    if (present && offset < to_length) set_page(to + offset, true);
  }
}

/* ---- callbacks ---- */

static void on_access(unsigned cpu, qemu_plugin_meminfo_t info, uint64_t address, void *data) {
  (void)cpu, (void)data;
  uint64_t size = 1ull << qemu_plugin_mem_size_shift(info), last = address + size - 1;
  *(qemu_plugin_mem_is_store(info) ? &written_bytes : &read_bytes) += size;
  access_line(address >> LINE_SHIFT);
  if (address >> LINE_SHIFT != last >> LINE_SHIFT) access_line(last >> LINE_SHIFT);
  set_page(address, true);
  if (address >> PAGE_SHIFT != last >> PAGE_SHIFT) set_page(last, true);
}

static void on_translation(qemu_plugin_id_t id, struct qemu_plugin_tb *block) {
  (void)id;
  uint64_t found[KINDS] = {0};
  for (size_t i = 0; i < qemu_plugin_tb_n_insns(block); i++) {
    struct qemu_plugin_insn *instruction = qemu_plugin_tb_get_insn(block, i);
    uint32_t word;
    memcpy(&word, qemu_plugin_insn_data(instruction), sizeof word);
    enum kind kind = kind_of(word);
    found[kind]++;
    if (kind == MEMORY)
      qemu_plugin_register_vcpu_mem_cb(instruction, on_access, QEMU_PLUGIN_CB_NO_REGS, QEMU_PLUGIN_MEM_RW, NULL);
    set_page(qemu_plugin_insn_vaddr(instruction), true);
  }
  for (int kind = 0; kind < KINDS; kind++)
    if (found[kind])
      qemu_plugin_register_vcpu_tb_exec_inline(block, QEMU_PLUGIN_INLINE_ADD_U64, &executed[kind], found[kind]);
}

static FILE *out;

static void write_totals(long mark) {
  if (mark == BEFORE_LOAD) peak = resident;
  uint64_t all = 0;
  for (int kind = 0; kind < KINDS; kind++) all += executed[kind];
  fprintf(out, "{\"mark\": %ld, \"instructions\": %lu", mark, all);
  for (int kind = 0; kind < KINDS; kind++) fprintf(out, ", \"%s\": %lu", kind_names[kind], executed[kind]);
  fprintf(out, ", \"read_bytes\": %lu, \"written_bytes\": %lu", read_bytes, written_bytes);
  for (int i = 0; i < LEVELS; i++) fprintf(out, ", \"l%d_misses\": %lu", i + 1, levels[i].misses);
  fprintf(out, ", \"resident_bytes\": %lu, \"peak_bytes\": %lu}\n", resident << PAGE_SHIFT, peak << PAGE_SHIFT);
  fflush(out);
}

/* System calls of aarch64 Linux (include/uapi/asm-generic/unistd.h). */
enum { READ = 63, PREAD = 67, BRK = 214, MUNMAP = 215, MREMAP = 216, MMAP = 222, MADVISE = 233 };
enum { MAP_FIXED_FLAG = 0x10, DONTNEED = 4 };
static uint64_t call[4], program_break;

static void on_call(qemu_plugin_id_t id, unsigned cpu, int64_t number, uint64_t a, uint64_t b, uint64_t c, uint64_t d,
                    uint64_t e, uint64_t f, uint64_t g, uint64_t h) {
  (void)id, (void)cpu, (void)e, (void)f, (void)g, (void)h;
  if (number >= MARKS && number < LAST_MARK) write_totals(number - MARKS);
  call[0] = a, call[1] = b, call[2] = c, call[3] = d;
}

static void on_return(qemu_plugin_id_t id, unsigned cpu, int64_t number, int64_t result) {
  (void)id, (void)cpu;
  if (result < 0 && result > -4096) return; /* failed */
  uint64_t value = result;
  if (number == READ || number == PREAD) set_pages(call[1], value, true);
  if (number == MUNMAP) set_pages(call[0], call[1], false);
  if (number == MMAP && (call[3] & MAP_FIXED_FLAG)) set_pages(call[0], call[1], false);
  if (number == MADVISE && call[2] == DONTNEED) set_pages(call[0], call[1], false);
  if (number == MREMAP) {
    if (value != call[0])
      move_pages(call[0], call[1], value, call[2]);
    else if (call[2] < call[1])
      set_pages(call[0] + call[2], call[1] - call[2], false);
  }
  if (number == BRK) {
    if (value < program_break) set_pages(value, program_break - value, false);
    program_break = value;
  }
}

static bool set_level(struct level *level, const char *text) {
  unsigned long bytes, ways;
  if (sscanf(text, "%lu/%lu", &bytes, &ways) != 2 || ways == 0 || bytes < ways << LINE_SHIFT) return false;
  level->ways = ways;
  level->sets = (bytes >> LINE_SHIFT) / ways;
  level->tags = calloc(level->sets * ways, sizeof *level->tags);
  return level->tags != NULL;
}

EXPORT int qemu_plugin_install(qemu_plugin_id_t id, const qemu_info_t *info, int count, char **options) {
  (void)info;
  for (int i = 0; i < count; i++) {
    char *value = strchr(options[i], '=');
    bool known = value != NULL;
    if (known && !strncmp(options[i], "out=", 4))
      known = (out = fopen(value + 1, "w")) != NULL;
    else if (known && options[i][0] == 'l' && options[i][1] >= '1' && options[i][1] <= '3' && value == options[i] + 2)
      known = set_level(&levels[options[i][1] - '1'], value + 1);
    else
      known = false;
    if (!known) {
      fprintf(stderr, "counts plugin: cannot use the option %s\n", options[i]);
      return -1;
    }
  }
  latest = stretches = calloc(SLOTS, sizeof *stretches);
  if (!out || !stretches || !levels[0].tags || !levels[1].tags || !levels[2].tags) {
    fprintf(stderr, "counts plugin: needs out=FILE, l1=, l2= and l3=BYTES/WAYS, and memory\n");
    return -1;
  }
  qemu_plugin_register_vcpu_tb_trans_cb(id, on_translation);
  qemu_plugin_register_vcpu_syscall_cb(id, on_call);
  qemu_plugin_register_vcpu_syscall_ret_cb(id, on_return);
  return 0;
}
