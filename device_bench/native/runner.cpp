#include "runner.h"

#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "process.h"

namespace phonefit {
namespace {

constexpr const char* kUsage =
    "--model FILE --result RESULT.json [--input FILE]... [--output FILE]... [--threads N] [--warmups N] "
    "[--repeats N] [--seconds S] [--seed N] [--reference N] [--parent PID] [--marks]";

// System calls that no kernel has: they change nothing, and a counting plugin sees them.
constexpr long kMarks = 20000;
constexpr long kBeforeLoad = 0, kAfterLoad = 1, kBeforeFirst = 2, kAfterFirst = 10;

constexpr long kReserved = 1 << 16;

struct Options {
  std::string model, result;
  std::vector<std::string> inputs, outputs;
  int threads = 1;
  long warmups = 5, repeats = 50, reference = 0;
  long parent = 0;  // 0: whoever it is, it may end first
  double seconds = 0;
  uint64_t seed = 0;
  bool marks = false;
};

struct Measured {
  int64_t load_ns = 0;
  std::vector<int64_t> warmup_ns, sample_ns;
  std::vector<int64_t> reference_before_ns, reference_after_ns;
  int64_t timed_from_ns = 0, timed_until_ns = 0;  // CLOCK_BOOTTIME
  long baseline_bytes = 0, peak_bytes = 0;
};

long whole_number(const std::string& option, const char* text, long smallest) {
  char* end = nullptr;
  errno = 0;
  const long value = std::strtol(text, &end, 10);
  if (errno || end == text || *end || value < smallest)
    throw Refused(option + " " + text + ": takes a whole number of at least " + std::to_string(smallest));
  return value;
}

double positive_number(const std::string& option, const char* text) {
  char* end = nullptr;
  const double value = std::strtod(text, &end);
  if (end == text || *end || !(value > 0) || value > 1e9)
    throw Refused(option + " " + text + ": takes a positive number");
  return value;
}

Options parse(int count, char** arguments) {
  Options options;
  for (int i = 1; i < count; ++i) {
    const std::string option = arguments[i];
    if (option == "--marks") {
      options.marks = true;
      continue;
    }
    if (i + 1 == count) throw Refused(option + " needs a value, or is unknown; usage: " + kUsage);
    const char* value = arguments[++i];
    if (option == "--model")
      options.model = value;
    else if (option == "--result")
      options.result = value;
    else if (option == "--input")
      options.inputs.emplace_back(value);
    else if (option == "--output")
      options.outputs.emplace_back(value);
    else if (option == "--threads")
      options.threads = static_cast<int>(whole_number(option, value, 1));
    else if (option == "--warmups")
      options.warmups = whole_number(option, value, 0);
    else if (option == "--repeats")
      options.repeats = whole_number(option, value, 0);
    else if (option == "--seconds")
      options.seconds = positive_number(option, value);
    else if (option == "--seed")
      options.seed = static_cast<uint64_t>(whole_number(option, value, 0));
    else if (option == "--reference")
      options.reference = whole_number(option, value, 0);
    else if (option == "--parent")
      options.parent = whole_number(option, value, 1);
    else
      throw Refused(option + " is unknown; usage: " + kUsage);
  }
  if (options.model.empty() || options.result.empty()) throw Refused(std::string("usage: ") + kUsage);
  if (!options.outputs.empty() && options.warmups + options.repeats == 0)
    throw Refused("--output needs an inference: ask for at least one of --warmups or --repeats");
  return options;
}

Bytes read_file(const std::string& path) {
  FILE* file = std::fopen(path.c_str(), "rb");
  if (!file) throw Refused(path + ": " + std::strerror(errno));
  Bytes content;
  unsigned char block[1 << 16];
  for (size_t got; (got = std::fread(block, 1, sizeof block, file)) > 0;)
    content.insert(content.end(), block, block + got);
  const bool broken = std::ferror(file);
  std::fclose(file);
  if (broken) throw Refused(path + ": cannot be read");
  return content;
}

// Under another name first, so that a reader never sees half of it.
void write_file(const std::string& path, const void* data, size_t size) {
  const std::string temporary = path + ".tmp";
  FILE* file = std::fopen(temporary.c_str(), "wb");
  if (!file) throw Failed(temporary + ": " + std::strerror(errno));
  const bool written = std::fwrite(data, 1, size, file) == size;
  if (std::fclose(file) != 0 || !written || std::rename(temporary.c_str(), path.c_str()) != 0) {
    const std::string reason = std::strerror(errno);
    std::remove(temporary.c_str());
    throw Failed(path + ": cannot be written: " + reason);
  }
}

// Steele, Lea and Flood: Fast splittable pseudorandom number generators, OOPSLA 2014 (SplitMix64).
uint64_t draw(uint64_t& state) {
  uint64_t z = state += 0x9e3779b97f4a7c15;
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
  z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
  return z ^ (z >> 31);
}

// Nearly normal, mean 0, variance 1: twelve 16-bit uniform numbers less their mean, from three draws, lowest bits
// first. All in whole numbers and then exact in 32-bit floats, so that every machine gets the same.
float draw_normal(uint64_t& state) {
  int sum = -6 * 65535;
  for (int i = 0; i < 3; ++i)
    for (uint64_t bits = draw(state), part = 0; part < 4; ++part, bits >>= 16) sum += static_cast<int>(bits & 0xffff);
  return static_cast<float>(sum) / 65536.0f;
}

// A finite float to half precision, rounded towards zero; below the smallest normal half it becomes 0.
uint16_t to_half(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof bits);
  const uint32_t sign = (bits >> 16) & 0x8000, exponent = (bits >> 23) & 0xff, mantissa = (bits >> 13) & 0x3ff;
  if (exponent < 113) return static_cast<uint16_t>(sign);
  return static_cast<uint16_t>(sign | ((exponent - 112) << 10) | mantissa);
}

// Floats: nearly normal. 8-bit integers: the lowest byte of a draw. Wider ones and bool: its lowest bit, since they are
// mostly indices into a table of which only the first rows surely exist.
Bytes random_input(const Tensor& tensor, uint64_t& state) {
  const size_t width = element_bytes(tensor.dtype);
  Bytes data(tensor.bytes());
  for (size_t at = 0; at < data.size(); at += width) {
    if (tensor.dtype.compare(0, 5, "float") == 0) {
      const float value = draw_normal(state);
      const double wide = value;
      const uint16_t half = to_half(value);
      std::memcpy(&data[at],
                  width == 4   ? static_cast<const void*>(&value)
                  : width == 8 ? static_cast<const void*>(&wide)
                               : &half,
                  width);
    } else {
      const bool whole_byte = tensor.dtype == "int8" || tensor.dtype == "uint8";
      data[at] = static_cast<unsigned char>(draw(state) & (whole_byte ? 0xff : 1));  // little-endian
    }
  }
  return data;
}

std::vector<Bytes> make_inputs(const Options& options, const std::vector<Tensor>& tensors) {
  if (options.inputs.size() > tensors.size())
    throw Refused(std::to_string(options.inputs.size()) + " --input files, but the model takes " +
                  std::to_string(tensors.size()));
  std::vector<Bytes> inputs;
  uint64_t state = options.seed;
  for (size_t i = 0; i < tensors.size(); ++i) {
    inputs.push_back(i < options.inputs.size() ? read_file(options.inputs[i]) : random_input(tensors[i], state));
    if (inputs[i].size() != tensors[i].bytes())
      throw Refused(options.inputs[i] + ": " + std::to_string(inputs[i].size()) + " bytes, but input '" +
                    tensors[i].name + "' takes " + std::to_string(tensors[i].bytes()));
  }
  return inputs;
}

void append_text(std::string& json, const std::string& text) {
  json += '"';
  for (const unsigned char c : text) {
    char escaped[8];
    if (c == '"' || c == '\\')
      json += '\\', json += static_cast<char>(c);
    else if (c < 0x20)
      std::snprintf(escaped, sizeof escaped, "\\u%04x", c), json += escaped;
    else
      json += static_cast<char>(c);
  }
  json += '"';
}

template <class Number>
void append_numbers(std::string& json, const std::vector<Number>& numbers) {
  json += '[';
  for (size_t i = 0; i < numbers.size(); ++i) json += (i ? ", " : "") + std::to_string(numbers[i]);
  json += ']';
}

void append_tensors(std::string& json, const std::vector<Tensor>& tensors) {
  json += '[';
  for (size_t i = 0; i < tensors.size(); ++i) {
    json += i ? ", {\"name\": " : "{\"name\": ";
    append_text(json, tensors[i].name);
    json += ", \"dtype\": \"" + tensors[i].dtype + "\", \"shape\": ";
    append_numbers(json, tensors[i].shape);
    if (tensors[i].quantised) {
      char scale[32];
      std::snprintf(scale, sizeof scale, "%.17g", tensors[i].scale);
      json += std::string(", \"scale\": ") + scale + ", \"zero_point\": " + std::to_string(tensors[i].zero_point);
    }
    json += '}';
  }
  json += ']';
}

std::string to_json(const Options& options, const Runtime& runtime, const Measured& measured) {
  std::string json = "{\"schema\": 1, \"runtime\": \"" + runtime.name() + "\", \"version\": ";
  append_text(json, runtime.version());
  json += ", \"threads\": " + std::to_string(options.threads) + ", \"load_ns\": " + std::to_string(measured.load_ns);
  json += ", \"warmup_ns\": ";
  append_numbers(json, measured.warmup_ns);
  json += ", \"sample_ns\": ";
  append_numbers(json, measured.sample_ns);
  json += ", \"reference_before_ns\": ";
  append_numbers(json, measured.reference_before_ns);
  json += ", \"reference_after_ns\": ";
  append_numbers(json, measured.reference_after_ns);
  if (!measured.sample_ns.empty())
    json += ", \"timed_from_ns\": " + std::to_string(measured.timed_from_ns) +
            ", \"timed_until_ns\": " + std::to_string(measured.timed_until_ns);
  json += ", \"baseline_bytes\": " + std::to_string(measured.baseline_bytes);
  json += ", \"peak_bytes\": " + std::to_string(measured.peak_bytes) + ", \"inputs\": ";
  append_tensors(json, runtime.inputs());
  json += ", \"outputs\": ";
  append_tensors(json, runtime.outputs());
  return json + "}\n";
}

void measure(const Options& options, Runtime& runtime) {
  const auto mark = [&options](long moment) {
    if (options.marks) syscall(kMarks + moment);
  };
  Measured measured;
  runtime.start(options.threads);
  restart_peak();
  measured.baseline_bytes = peak_resident_bytes();

  mark(kBeforeLoad);
  const int64_t start = now_ns();
  runtime.load(options.model);
  measured.load_ns = now_ns() - start;
  mark(kAfterLoad);

  const std::vector<Bytes> inputs = make_inputs(options, runtime.inputs());
  std::vector<Bytes> outputs(runtime.outputs().size());
  if (options.outputs.size() > outputs.size())
    throw Refused(std::to_string(options.outputs.size()) + " --output files, but the model gives " +
                  std::to_string(outputs.size()));

  long done = 0;
  const auto sample = [&] {
    const int64_t before = now_ns();
    runtime.run(inputs, outputs);
    const int64_t taken = now_ns() - before;
    mark(kAfterFirst + done++);
    return taken;
  };
  // so that no sample waits for memory; of what is asked for, no more than any run reaches
  measured.warmup_ns.reserve(std::min(options.warmups, kReserved));
  measured.sample_ns.reserve(std::min(options.repeats, kReserved));
  measured.reference_before_ns = reference_loops(options.reference);
  // the clocks differ by the time that the device slept, which it does not while it measures
  const int64_t boot_ahead = now_ns(CLOCK_BOOTTIME) - now_ns();
  mark(kBeforeFirst);
  for (long i = 0; i < options.warmups; ++i) measured.warmup_ns.push_back(sample());
  const int64_t begin = now_ns(), end = begin + static_cast<int64_t>(options.seconds * 1e9);
  while (static_cast<long>(measured.sample_ns.size()) < options.repeats || (options.seconds > 0 && now_ns() < end))
    measured.sample_ns.push_back(sample());
  measured.timed_from_ns = begin + boot_ahead;
  measured.timed_until_ns = now_ns() + boot_ahead;
  measured.reference_after_ns = reference_loops(options.reference);

  measured.peak_bytes = peak_resident_bytes();
  for (size_t i = 0; i < options.outputs.size(); ++i)
    write_file(options.outputs[i], outputs[i].data(), outputs[i].size());
  const std::string json = to_json(options, runtime, measured);
  write_file(options.result, json.data(), json.size());
}

void require_file(const std::string& path) {
  struct stat facts;
  if (stat(path.c_str(), &facts) != 0) throw Refused(path + ": " + std::strerror(errno));
  if (!S_ISREG(facts.st_mode)) throw Refused(path + ": not a file");
  if (facts.st_size == 0) throw Refused(path + ": the file is empty");
}

}  // namespace

size_t element_bytes(const std::string& dtype) {
  if (dtype == "bool" || dtype == "int8" || dtype == "uint8") return 1;
  if (dtype == "float16" || dtype == "int16" || dtype == "uint16") return 2;
  if (dtype == "float32" || dtype == "int32" || dtype == "uint32") return 4;
  if (dtype == "float64" || dtype == "int64" || dtype == "uint64") return 8;
  return 0;
}

size_t Tensor::bytes() const {
  size_t count = element_bytes(dtype);
  for (const int64_t size : shape) count *= static_cast<size_t>(size);
  return count;
}

std::vector<int64_t> fixed_shape(const std::string& name, std::vector<int64_t> shape) {
  for (size_t i = 0; i < shape.size(); ++i) {
    if (shape[i] > 0) continue;
    if (i > 0)
      throw Refused("size " + std::to_string(i) + " of input '" + name +
                    "' is free; only the batch size may be: export the model with a fixed input size");
    shape[i] = 1;
  }
  return shape;
}

int run_main(int count, char** arguments, std::unique_ptr<Runtime> runtime) {
  const std::string program = "phonefit_" + runtime->name() + ": ";
  int status = 0;
  try {
    const Options options = parse(count, arguments);
    if (options.parent) end_with_parent(options.parent);
    require_file(options.model);
    measure(options, *runtime);
  } catch (const Refused& error) {
    std::fprintf(stderr, "%s%s\n", program.c_str(), error.what());
    status = 2;
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s%s\n", program.c_str(), error.what());
    status = 3;
  }
  std::fflush(nullptr);
  // The result is written: nothing is gained by the runtimes' global destructors, and some of them crash.
  _exit(status);
}

}  // namespace phonefit
