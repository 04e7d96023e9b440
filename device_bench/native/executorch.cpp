// .pte files on ExecuTorch with its portable, optimised and quantised kernels and the XNNPACK backend, from the C++
// libraries and headers that the executorch wheel carries.
#include <executorch/extension/module/module.h>
#include <executorch/extension/tensor/tensor.h>

#include <cstring>

#include "runner.h"

// The wheel exports the thread pool but not its header.
namespace executorch::extension::threadpool {
class ThreadPool {
 public:
  bool _unsafe_reset_threadpool(unsigned threads);
  size_t get_thread_count() const;
};
ThreadPool* get_threadpool();
}  // namespace executorch::extension::threadpool

namespace phonefit {
namespace {

using executorch::aten::ScalarType;
using executorch::extension::Module;
using executorch::extension::TensorPtr;
using executorch::runtime::Error;
using executorch::runtime::EValue;
using executorch::runtime::Result;
using executorch::runtime::TensorInfo;

const char* dtype_of(ScalarType type) {
  switch (type) {
    case ScalarType::Bool:
      return "bool";
    case ScalarType::Byte:
      return "uint8";
    case ScalarType::Char:
      return "int8";
    case ScalarType::Short:
      return "int16";
    case ScalarType::Int:
      return "int32";
    case ScalarType::Long:
      return "int64";
    case ScalarType::Half:
      return "float16";
    case ScalarType::Float:
      return "float32";
    case ScalarType::Double:
      return "float64";
    case ScalarType::UInt16:
      return "uint16";
    case ScalarType::UInt32:
      return "uint32";
    case ScalarType::UInt64:
      return "uint64";
    default:
      return nullptr;
  }
}

void require_ok(Error error, const std::string& what) {
  if (error != Error::Ok) throw Failed(what + ": " + executorch::runtime::to_string(error));
}

class Executorch : public Runtime {
 public:
  std::string name() const override { return "executorch"; }
  std::string version() const override { return PHONEFIT_RUNTIME_VERSION; }

  void start(int threads) override {
    auto* pool = executorch::extension::threadpool::get_threadpool();
    if (!pool->_unsafe_reset_threadpool(static_cast<unsigned>(threads)) ||
        pool->get_thread_count() != static_cast<size_t>(threads))
      throw Failed(std::to_string(threads) + " thread(s) were asked for, ExecuTorch gives " +
                   std::to_string(pool->get_thread_count()));
  }

  void load(const std::string& path) override {
    // How ExecuTorch's Android library loads by default: segments are read, used and freed.
    module_ = std::make_unique<Module>(path, Module::LoadMode::File);
    const Error read = module_->load(executorch::runtime::Program::Verification::InternalConsistency);
    if (read != Error::Ok) throw Refused(path + ": not a .pte program: " + executorch::runtime::to_string(read));
    const auto program = module_->program();
    if (program->num_methods() == 0) throw Refused(path + ": the program has no method to run");
    method_ = *program->get_method_name(0);
    for (size_t i = 0; i < program->num_methods(); ++i)
      if (std::strcmp(*program->get_method_name(i), "forward") == 0) method_ = "forward";
    require_ok(module_->load_method(method_), path + ": '" + method_ + "' cannot be prepared");
    const auto meta = module_->method_meta(method_);
    require_ok(meta.error(), path + ": '" + method_ + "'");
    for (size_t i = 0; i < meta->num_inputs(); ++i) {
      const Result<TensorInfo> info = meta->input_tensor_meta(i);
      inputs_.push_back(describe("input", i, info));
      const auto order = info->dim_order();
      dim_orders_.emplace_back(order.begin(), order.end());
      types_.push_back(info->scalar_type());
    }
    for (size_t i = 0; i < meta->num_outputs(); ++i)
      outputs_.push_back(describe("output", i, meta->output_tensor_meta(i)));
  }

  const std::vector<Tensor>& inputs() const override { return inputs_; }
  const std::vector<Tensor>& outputs() const override { return outputs_; }

  void run(const std::vector<Bytes>& inputs, std::vector<Bytes>& outputs) override {
    std::vector<TensorPtr> tensors;
    std::vector<EValue> values;
    for (size_t i = 0; i < inputs.size(); ++i) {
      std::vector<executorch::aten::SizesType> sizes(inputs_[i].shape.begin(), inputs_[i].shape.end());
      // execute copies it, or reads it where it lies; it is never written to
      auto* data = const_cast<unsigned char*>(inputs[i].data());
      tensors.push_back(executorch::extension::make_tensor_ptr(std::move(sizes), data, dim_orders_[i], {}, types_[i]));
      values.emplace_back(tensors.back());
    }
    const auto results = module_->execute(method_, values);
    require_ok(results.error(), "'" + method_ + "' failed");
    for (size_t i = 0; i < outputs.size(); ++i) {
      const auto tensor = results->at(i).toTensor();
      const auto* data = static_cast<const unsigned char*>(tensor.const_data_ptr());
      outputs[i].assign(data, data + tensor.nbytes());
      outputs_[i].shape.assign(tensor.sizes().begin(), tensor.sizes().end());
    }
  }

 private:
  // A .pte keeps no names of inputs and outputs.
  Tensor describe(const std::string& side, size_t place, const Result<TensorInfo>& info) {
    Tensor tensor;
    tensor.name = side + "_" + std::to_string(place);
    if (!info.ok()) throw Refused(tensor.name + " of '" + method_ + "' is no tensor");
    const char* dtype = dtype_of(info->scalar_type());
    if (!dtype) throw Refused(tensor.name + " of '" + method_ + "' has a number format that raw bytes cannot carry");
    tensor.dtype = dtype;
    tensor.shape.assign(info->sizes().begin(), info->sizes().end());
    return tensor;
  }

  std::unique_ptr<Module> module_;
  std::string method_;
  std::vector<Tensor> inputs_, outputs_;
  std::vector<std::vector<executorch::aten::DimOrderType>> dim_orders_;
  std::vector<ScalarType> types_;
};

}  // namespace
}  // namespace phonefit

int main(int count, char** arguments) {
  return phonefit::run_main(count, arguments, std::make_unique<phonefit::Executorch>());
}
