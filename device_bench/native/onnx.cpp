// .onnx files on ONNX Runtime's CPU provider, from the library that the onnxruntime wheel carries.
#include <onnxruntime_c_api.h>

#include <cstdlib>

#include "runner.h"

namespace phonefit {
namespace {

const char* dtype_of(ONNXTensorElementDataType type) {
  switch (type) {
    case ONNX_TENSOR_ELEMENT_DATA_TYPE_BOOL:
      return "bool";
    case ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT8:
      return "uint8";
    case ONNX_TENSOR_ELEMENT_DATA_TYPE_INT8:
      return "int8";
    case ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT16:
      return "uint16";
    case ONNX_TENSOR_ELEMENT_DATA_TYPE_INT16:
      return "int16";
    case ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT32:
      return "uint32";
    case ONNX_TENSOR_ELEMENT_DATA_TYPE_INT32:
      return "int32";
    case ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT64:
      return "uint64";
    case ONNX_TENSOR_ELEMENT_DATA_TYPE_INT64:
      return "int64";
    case ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT16:
      return "float16";
    case ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT:
      return "float32";
    case ONNX_TENSOR_ELEMENT_DATA_TYPE_DOUBLE:
      return "float64";
    default:
      return nullptr;
  }
}

class Onnx : public Runtime {
 public:
  std::string name() const override { return "onnx"; }
  std::string version() const override { return OrtGetApiBase()->GetVersionString(); }

  void start(int threads) override {
    // Since 1.29 ONNX Runtime reports what it runs to its maker, from a thread and a data base of its own: no person
    // was asked, and it would be measured with the model.
    setenv("ORT_DISABLE_TELEMETRY", "1", 1);
    // The header may be older than the library: an old interface stays available.
    api_ = OrtGetApiBase()->GetApi(ORT_API_VERSION);
    if (!api_) throw Failed("this ONNX Runtime lacks interface version " + std::to_string(ORT_API_VERSION));
    require_ok(api_->CreateEnv(ORT_LOGGING_LEVEL_ERROR, "phonefit", &environment_), "environment");
    require_ok(api_->CreateSessionOptions(&options_), "options");
    require_ok(api_->SetIntraOpNumThreads(options_, threads), "threads");
    require_ok(api_->SetInterOpNumThreads(options_, 1), "threads");
    require_ok(api_->SetSessionExecutionMode(options_, ORT_SEQUENTIAL), "execution mode");
    require_ok(api_->GetAllocatorWithDefaultOptions(&allocator_), "allocator");
    require_ok(api_->CreateCpuMemoryInfo(OrtArenaAllocator, OrtMemTypeDefault, &memory_), "memory");
  }

  void load(const std::string& path) override {
    if (OrtStatus* status = api_->CreateSession(environment_, path.c_str(), options_, &session_)) {
      const OrtErrorCode code = api_->GetErrorCode(status);
      const std::string message = path + ": ONNX Runtime cannot read it: " + api_->GetErrorMessage(status);
      if (code == ORT_INVALID_PROTOBUF || code == ORT_INVALID_GRAPH) throw Refused(message);
      throw Failed(message);
    }
    size_t count = 0;
    require_ok(api_->SessionGetInputCount(session_, &count), "inputs");
    for (size_t i = 0; i < count; ++i) {
      inputs_.push_back(describe(i, api_->SessionGetInputName, api_->SessionGetInputTypeInfo));
      inputs_[i].shape = fixed_shape(inputs_[i].name, inputs_[i].shape);
    }
    require_ok(api_->SessionGetOutputCount(session_, &count), "outputs");
    for (size_t i = 0; i < count; ++i)
      outputs_.push_back(describe(i, api_->SessionGetOutputName, api_->SessionGetOutputTypeInfo));
    for (const Tensor& tensor : inputs_) input_names_.push_back(tensor.name.c_str());
    for (const Tensor& tensor : outputs_) output_names_.push_back(tensor.name.c_str());
  }

  const std::vector<Tensor>& inputs() const override { return inputs_; }
  const std::vector<Tensor>& outputs() const override { return outputs_; }

  void run(const std::vector<Bytes>& inputs, std::vector<Bytes>& outputs) override {
    std::vector<OrtValue*> sources(inputs.size()), targets(outputs.size());
    for (size_t i = 0; i < inputs.size(); ++i)
      require_ok(api_->CreateTensorWithDataAsOrtValue(memory_, const_cast<unsigned char*>(inputs[i].data()),
                                                      inputs[i].size(), inputs_[i].shape.data(),
                                                      inputs_[i].shape.size(), types_[i], &sources[i]),
                 "input '" + inputs_[i].name + "'");
    require_ok(api_->Run(session_, nullptr, input_names_.data(), sources.data(), sources.size(), output_names_.data(),
                         targets.size(), targets.data()),
               "running failed");
    for (size_t i = 0; i < outputs.size(); ++i) {
      OrtTensorTypeAndShapeInfo* info = nullptr;
      require_ok(api_->GetTensorTypeAndShape(targets[i], &info), "output '" + outputs_[i].name + "'");
      outputs_[i].shape = shape_of(info);
      api_->ReleaseTensorTypeAndShapeInfo(info);
      void* data = nullptr;
      require_ok(api_->GetTensorMutableData(targets[i], &data), "output '" + outputs_[i].name + "'");
      const auto* bytes = static_cast<const unsigned char*>(data);
      outputs[i].assign(bytes, bytes + outputs_[i].bytes());
      api_->ReleaseValue(targets[i]);
    }
    for (OrtValue* source : sources) api_->ReleaseValue(source);
  }

 private:
  void require_ok(OrtStatus* status, const std::string& what) const {
    if (status) throw Failed(what + ": " + api_->GetErrorMessage(status));
  }

  std::vector<int64_t> shape_of(const OrtTensorTypeAndShapeInfo* info) const {
    size_t rank = 0;
    require_ok(api_->GetDimensionsCount(info, &rank), "shape");
    std::vector<int64_t> shape(rank);
    require_ok(api_->GetDimensions(info, shape.data(), rank), "shape");
    return shape;
  }

  Tensor describe(size_t place, decltype(OrtApi::SessionGetInputName) get_name,
                  decltype(OrtApi::SessionGetInputTypeInfo) get_type) {
    Tensor tensor;
    char* name = nullptr;
    require_ok(get_name(session_, place, allocator_, &name), "name");
    tensor.name = name;
    require_ok(api_->AllocatorFree(allocator_, name), "name");
    OrtTypeInfo* type = nullptr;
    require_ok(get_type(session_, place, &type), "'" + tensor.name + "'");
    const OrtTensorTypeAndShapeInfo* info = nullptr;
    require_ok(api_->CastTypeInfoToTensorInfo(type, &info), "'" + tensor.name + "'");
    if (!info) throw Refused("'" + tensor.name + "' is no tensor");
    ONNXTensorElementDataType element;
    require_ok(api_->GetTensorElementType(info, &element), "'" + tensor.name + "'");
    const char* dtype = dtype_of(element);
    if (!dtype) throw Refused("'" + tensor.name + "' has a number format that raw bytes cannot carry");
    tensor.dtype = dtype;
    tensor.shape = shape_of(info);
    if (get_name == api_->SessionGetInputName) types_.push_back(element);
    api_->ReleaseTypeInfo(type);
    return tensor;
  }

  const OrtApi* api_ = nullptr;
  OrtEnv* environment_ = nullptr;
  OrtSessionOptions* options_ = nullptr;
  OrtSession* session_ = nullptr;
  OrtAllocator* allocator_ = nullptr;
  OrtMemoryInfo* memory_ = nullptr;
  std::vector<Tensor> inputs_, outputs_;
  std::vector<ONNXTensorElementDataType> types_;
  std::vector<const char*> input_names_, output_names_;
};

}  // namespace
}  // namespace phonefit

int main(int count, char** arguments) {
  return phonefit::run_main(count, arguments, std::make_unique<phonefit::Onnx>());
}
