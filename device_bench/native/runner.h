// What the three runners share: command line, inputs, timing, peak memory, marks, and the result file.
//
// A runner is a Runtime (one file per runtime beside this one) handed to run_main.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

namespace phonefit {

// Wrong use, or a file that is no model of this runtime: one line on stderr, exit status 2.
struct Refused : std::runtime_error {
  using std::runtime_error::runtime_error;
};

// Anything else that goes wrong: one line on stderr, exit status 3.
struct Failed : std::runtime_error {
  using std::runtime_error::runtime_error;
};

using Bytes = std::vector<unsigned char>;

// One input or output. A quantised one says real = scale * (stored - zero_point).
struct Tensor {
  std::string name;
  std::string dtype;  // numpy's name: "float32", "int8", ...
  std::vector<int64_t> shape;
  bool quantised = false;
  double scale = 0;
  int64_t zero_point = 0;

  size_t bytes() const;  // of all elements; every size must be known
};

// Bytes of one element of a dtype; 0 when it is none that raw bytes can carry.
size_t element_bytes(const std::string& dtype);

class Runtime {
 public:
  virtual ~Runtime() = default;
  virtual std::string name() const = 0;
  virtual std::string version() const = 0;

  // What belongs to the process and not to a model: done once, before load is timed.
  virtual void start(int threads) = 0;

  // From the file to ready for the first input. Throws Refused when it is no model, Failed otherwise.
  virtual void load(const std::string& path) = 0;

  // In the model's order; known after load.
  virtual const std::vector<Tensor>& inputs() const = 0;

  // In the model's order. A size that is known only after running is -1 until then.
  virtual const std::vector<Tensor>& outputs() const = 0;

  // One inference, copying inputs in and outputs out.
  virtual void run(const std::vector<Bytes>& inputs, std::vector<Bytes>& outputs) = 0;
};

// Shape with a free batch size (any size below 1 in front) set to 1. Throws Refused when another size is free.
std::vector<int64_t> fixed_shape(const std::string& name, std::vector<int64_t> shape);

// The whole program.
int run_main(int count, char** arguments, std::unique_ptr<Runtime> runtime);

}  // namespace phonefit
