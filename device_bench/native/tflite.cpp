// .tflite files on LiteRT, with XNNPACK where it takes an operator, from the library that the ai-edge-litert wheel
// carries.
#include <algorithm>
#include <cstdlib>
#include <cstring>

#include "litert_c_api.h"
#include "runner.h"

namespace phonefit {
namespace {

constexpr size_t kFirstSignature = 0;
constexpr int kPerTensor = 1;

const char* dtype_of(int element_type) {
  switch (element_type) {
    case 1:
      return "float32";
    case 2:
      return "int32";
    case 3:
      return "uint8";
    case 4:
      return "int64";
    case 6:
      return "bool";
    case 7:
      return "int16";
    case 9:
      return "int8";
    case 10:
      return "float16";
    case 11:
      return "float64";
    case 13:
      return "uint64";
    case 16:
      return "uint32";
    case 17:
      return "uint16";
    default:
      return nullptr;
  }
}

void require_ok(LiteRtStatus status, const std::string& what) {
  if (status != kLiteRtOk) throw Failed(what + " (LiteRT status " + std::to_string(status) + ")");
}

using Count = LiteRtStatus (*)(LiteRtHandle, size_t*);
using Get = LiteRtStatus (*)(LiteRtHandle, size_t, LiteRtHandle*);

std::vector<LiteRtHandle> tensors_of(LiteRtHandle owner, Count count_of, Get get) {
  size_t count = 0;
  require_ok(count_of(owner, &count), "the model's tensors cannot be counted");
  std::vector<LiteRtHandle> tensors(count);
  for (size_t i = 0; i < count; ++i) require_ok(get(owner, i, &tensors[i]), "a tensor of the model cannot be found");
  return tensors;
}

// All inputs or all outputs. Files are given in the graph's order, as by LiteRT's interpreter; the compiled model takes
// the signature's.
struct Side {
  std::vector<Tensor> tensors;  // the graph's order
  std::vector<LiteRtRankedTensorType> types;
  std::vector<size_t> places;         // place in the signature
  std::vector<LiteRtHandle> buffers;  // the signature's order
};

class Tflite : public Runtime {
 public:
  std::string name() const override { return "tflite"; }
  std::string version() const override { return PHONEFIT_RUNTIME_VERSION; }

  void start(int threads) override {
    require_ok(LiteRtCreateEnvironment(0, nullptr, &environment_), "LiteRT does not start");
    require_ok(LiteRtCreateOptions(&options_), "options");
    require_ok(LiteRtSetOptionsHardwareAccelerators(options_, kLiteRtCpu), "accelerators");
    // The options of the CPU accelerator are TOML under the name "xnnpack".
    char* payload = strdup(("num_threads = " + std::to_string(threads) + "\n").c_str());
    if (!payload) throw Failed("out of memory");
    LiteRtHandle cpu = nullptr;
    require_ok(LiteRtCreateOpaqueOptions("xnnpack", payload, std::free, &cpu), "threads");
    require_ok(LiteRtAddOpaqueOptions(options_, cpu), "threads");
  }

  void load(const std::string& path) override {
    LiteRtHandle model = nullptr;
    const LiteRtStatus read = LiteRtCreateModelFromFile(environment_, path.c_str(), &model);
    if (read == kLiteRtInvalidFlatbuffer || read == kLiteRtFileIo)
      throw Refused(path + ": not a .tflite model (LiteRT status " + std::to_string(read) + ")");
    require_ok(read, path + ": LiteRT cannot read it");
    size_t signatures = 0;
    require_ok(LiteRtGetNumModelSignatures(model, &signatures), path + ": signatures");
    if (signatures == 0) throw Refused(path + ": the model has nothing to run");
    LiteRtHandle signature = nullptr, graph = nullptr;
    require_ok(LiteRtGetModelSignature(model, kFirstSignature, &signature), path + ": signature");
    require_ok(LiteRtGetSignatureSubgraph(signature, &graph), path + ": graph");
    describe(inputs_, tensors_of(graph, LiteRtGetNumSubgraphInputs, LiteRtGetSubgraphInput),
             tensors_of(signature, LiteRtGetNumSignatureInputs, LiteRtGetSignatureInputTensorByIndex));
    describe(outputs_, tensors_of(graph, LiteRtGetNumSubgraphOutputs, LiteRtGetSubgraphOutput),
             tensors_of(signature, LiteRtGetNumSignatureOutputs, LiteRtGetSignatureOutputTensorByIndex));
    require_ok(LiteRtCreateCompiledModel(environment_, model, options_, &compiled_),
               path + ": LiteRT cannot prepare it");
    fix_shapes();
    make_buffers(inputs_, LiteRtGetCompiledModelInputBufferRequirements);
    make_buffers(outputs_, LiteRtGetCompiledModelOutputBufferRequirements);
  }

  const std::vector<Tensor>& inputs() const override { return inputs_.tensors; }
  const std::vector<Tensor>& outputs() const override { return outputs_.tensors; }

  void run(const std::vector<Bytes>& inputs, std::vector<Bytes>& outputs) override {
    void* memory = nullptr;
    for (size_t i = 0; i < inputs.size(); ++i) {
      LiteRtHandle buffer = inputs_.buffers[inputs_.places[i]];
      require_ok(LiteRtLockTensorBuffer(buffer, &memory, kLiteRtWrite), "input '" + inputs_.tensors[i].name + "'");
      std::memcpy(memory, inputs[i].data(), inputs[i].size());
      require_ok(LiteRtUnlockTensorBuffer(buffer), "input '" + inputs_.tensors[i].name + "'");
    }
    require_ok(LiteRtRunCompiledModel(compiled_, kFirstSignature, inputs_.buffers.size(), inputs_.buffers.data(),
                                      outputs_.buffers.size(), outputs_.buffers.data()),
               "running failed");
    for (size_t i = 0; i < outputs.size(); ++i) {
      LiteRtHandle buffer = outputs_.buffers[outputs_.places[i]];
      require_ok(LiteRtLockTensorBuffer(buffer, &memory, kLiteRtRead), "output '" + outputs_.tensors[i].name + "'");
      const auto* bytes = static_cast<const unsigned char*>(memory);
      outputs[i].assign(bytes, bytes + outputs_.tensors[i].bytes());
      require_ok(LiteRtUnlockTensorBuffer(buffer), "output '" + outputs_.tensors[i].name + "'");
    }
  }

 private:
  static void describe(Side& side, const std::vector<LiteRtHandle>& graph, const std::vector<LiteRtHandle>& signature) {
    for (LiteRtHandle handle : graph) {
      Tensor tensor;
      const char* name = nullptr;
      require_ok(LiteRtGetTensorName(handle, &name), "a tensor has no name");
      tensor.name = name;
      LiteRtRankedTensorType type = {};
      require_ok(LiteRtGetRankedTensorType(handle, &type), "'" + tensor.name + "' has no fixed rank");
      const char* dtype = dtype_of(type.element_type);
      if (!dtype) throw Refused("'" + tensor.name + "' has a number format that raw bytes cannot carry");
      tensor.dtype = dtype;
      tensor.shape.assign(type.layout.dimensions, type.layout.dimensions + type.layout.rank);
      int kind = 0;
      LiteRtQuantizationPerTensor quantization = {};
      require_ok(LiteRtGetQuantizationTypeId(handle, &kind), "'" + tensor.name + "'");
      if (kind == kPerTensor) {
        require_ok(LiteRtGetPerTensorQuantization(handle, &quantization), "'" + tensor.name + "'");
        tensor.quantised = true;
        tensor.scale = quantization.scale;
        tensor.zero_point = quantization.zero_point;
      }
      const auto place = std::find(signature.begin(), signature.end(), handle);
      if (place == signature.end()) throw Refused("'" + tensor.name + "' is not part of the model's signature");
      side.tensors.push_back(tensor);
      side.types.push_back(type);
      side.places.push_back(place - signature.begin());
    }
  }

  // A free batch size becomes 1, in the inputs and then, through LiteRT, in the outputs.
  void fix_shapes() {
    bool changed = false;
    for (size_t i = 0; i < inputs_.tensors.size(); ++i) {
      Tensor& tensor = inputs_.tensors[i];
      const std::vector<int64_t> fixed = fixed_shape(tensor.name, tensor.shape);
      if (fixed == tensor.shape) continue;
      tensor.shape = fixed;
      const std::vector<int> sizes(fixed.begin(), fixed.end());
      std::copy(sizes.begin(), sizes.end(), inputs_.types[i].layout.dimensions);
      require_ok(LiteRtCompiledModelResizeInputTensorNonStrict(compiled_, kFirstSignature, inputs_.places[i],
                                                               sizes.data(), sizes.size()),
                 "the batch size of '" + tensor.name + "' cannot be set to 1");
      changed = true;
    }
    if (!changed) return;
    std::vector<LiteRtLayout> layouts(outputs_.tensors.size());
    require_ok(
        LiteRtGetCompiledModelOutputTensorLayouts(compiled_, kFirstSignature, layouts.size(), layouts.data(), true),
        "the shapes of the outputs cannot be found");
    for (size_t i = 0; i < outputs_.tensors.size(); ++i) {
      const LiteRtLayout& layout = layouts[outputs_.places[i]];
      outputs_.types[i].layout = layout;
      outputs_.tensors[i].shape.assign(layout.dimensions, layout.dimensions + layout.rank);
    }
  }

  void make_buffers(Side& side, LiteRtStatus (*get_requirements)(LiteRtHandle, size_t, size_t, LiteRtHandle*)) {
    side.buffers.resize(side.tensors.size());
    for (size_t i = 0; i < side.tensors.size(); ++i) {
      const std::string what = "a buffer for '" + side.tensors[i].name + "'";
      LiteRtHandle requirements = nullptr, &buffer = side.buffers[side.places[i]];
      require_ok(get_requirements(compiled_, kFirstSignature, side.places[i], &requirements), what);
      require_ok(LiteRtCreateManagedTensorBufferFromRequirements(environment_, &side.types[i], requirements, &buffer),
                 what);
      size_t bytes = 0;
      require_ok(LiteRtGetTensorBufferPackedSize(buffer, &bytes), what);
      if (bytes != side.tensors[i].bytes())
        throw Failed(what + " has " + std::to_string(bytes) + " bytes, not " + std::to_string(side.tensors[i].bytes()));
    }
  }

  LiteRtHandle environment_ = nullptr, options_ = nullptr, compiled_ = nullptr;
  Side inputs_, outputs_;
};

}  // namespace
}  // namespace phonefit

int main(int count, char** arguments) {
  return phonefit::run_main(count, arguments, std::make_unique<phonefit::Tflite>());
}
