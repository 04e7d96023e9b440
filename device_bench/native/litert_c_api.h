// The part of LiteRT's C interface that the runner uses. The ai-edge-litert wheel carries the library without headers;
// these declarations are for the version that the project pins (its interface has changed between minor versions).
// Reference: https://ai.google.dev/edge/litert (litert/c/*.h of the LiteRT project).
#pragma once

#include <cstddef>
#include <cstdint>

extern "C" {

using LiteRtStatus = int;  // 0 is success
using LiteRtHandle = void*;

constexpr LiteRtStatus kLiteRtOk = 0, kLiteRtFileIo = 500, kLiteRtInvalidFlatbuffer = 501;
constexpr int kLiteRtCpu = 1;                     // a set of hardware accelerators
constexpr int kLiteRtRead = 0, kLiteRtWrite = 1;  // how a buffer is locked
constexpr size_t kLiteRtLargestRank = 8;

struct LiteRtLayout {
  unsigned int rank : 7;
  bool has_strides : 1;
  int32_t dimensions[kLiteRtLargestRank];
  uint32_t strides[kLiteRtLargestRank];
};

struct LiteRtRankedTensorType {
  int element_type;
  LiteRtLayout layout;
};
static_assert(sizeof(LiteRtRankedTensorType) == 72, "the layout of LiteRT's structures is fixed");

struct LiteRtQuantizationPerTensor {
  float scale;
  int64_t zero_point;
};

LiteRtStatus LiteRtCreateEnvironment(int option_count, const void* options, LiteRtHandle* environment);
LiteRtStatus LiteRtCreateModelFromFile(LiteRtHandle environment, const char* path, LiteRtHandle* model);

LiteRtStatus LiteRtCreateOptions(LiteRtHandle* options);
LiteRtStatus LiteRtSetOptionsHardwareAccelerators(LiteRtHandle options, int accelerators);
LiteRtStatus LiteRtAddOpaqueOptions(LiteRtHandle options, LiteRtHandle opaque);  // takes over `opaque`
LiteRtStatus LiteRtCreateOpaqueOptions(const char* identifier, void* payload, void (*destroy)(void*),
                                       LiteRtHandle* opaque);

LiteRtStatus LiteRtGetNumModelSignatures(LiteRtHandle model, size_t* count);
LiteRtStatus LiteRtGetModelSignature(LiteRtHandle model, size_t place, LiteRtHandle* signature);
LiteRtStatus LiteRtGetSignatureSubgraph(LiteRtHandle signature, LiteRtHandle* subgraph);
LiteRtStatus LiteRtGetNumSignatureInputs(LiteRtHandle signature, size_t* count);
LiteRtStatus LiteRtGetNumSignatureOutputs(LiteRtHandle signature, size_t* count);
LiteRtStatus LiteRtGetSignatureInputTensorByIndex(LiteRtHandle signature, size_t place, LiteRtHandle* tensor);
LiteRtStatus LiteRtGetSignatureOutputTensorByIndex(LiteRtHandle signature, size_t place, LiteRtHandle* tensor);
LiteRtStatus LiteRtGetNumSubgraphInputs(LiteRtHandle subgraph, size_t* count);
LiteRtStatus LiteRtGetNumSubgraphOutputs(LiteRtHandle subgraph, size_t* count);
LiteRtStatus LiteRtGetSubgraphInput(LiteRtHandle subgraph, size_t place, LiteRtHandle* tensor);
LiteRtStatus LiteRtGetSubgraphOutput(LiteRtHandle subgraph, size_t place, LiteRtHandle* tensor);
LiteRtStatus LiteRtGetTensorName(LiteRtHandle tensor, const char** name);
LiteRtStatus LiteRtGetRankedTensorType(LiteRtHandle tensor, LiteRtRankedTensorType* type);
LiteRtStatus LiteRtGetPerTensorQuantization(LiteRtHandle tensor, LiteRtQuantizationPerTensor* quantization);
LiteRtStatus LiteRtGetQuantizationTypeId(LiteRtHandle tensor, int* kind);

LiteRtStatus LiteRtCreateCompiledModel(LiteRtHandle environment, LiteRtHandle model, LiteRtHandle options,
                                       LiteRtHandle* compiled);
LiteRtStatus LiteRtCompiledModelResizeInputTensorNonStrict(LiteRtHandle compiled, size_t signature, size_t input,
                                                           const int* sizes, size_t rank);
LiteRtStatus LiteRtGetCompiledModelOutputTensorLayouts(LiteRtHandle compiled, size_t signature, size_t count,
                                                       LiteRtLayout* layouts, bool allocate);
LiteRtStatus LiteRtGetCompiledModelInputBufferRequirements(LiteRtHandle compiled, size_t signature, size_t input,
                                                           LiteRtHandle* requirements);
LiteRtStatus LiteRtGetCompiledModelOutputBufferRequirements(LiteRtHandle compiled, size_t signature, size_t output,
                                                            LiteRtHandle* requirements);
LiteRtStatus LiteRtRunCompiledModel(LiteRtHandle compiled, size_t signature, size_t input_count, LiteRtHandle* inputs,
                                    size_t output_count, LiteRtHandle* outputs);

LiteRtStatus LiteRtCreateManagedTensorBufferFromRequirements(LiteRtHandle environment,
                                                             const LiteRtRankedTensorType* type,
                                                             LiteRtHandle requirements, LiteRtHandle* buffer);
LiteRtStatus LiteRtGetTensorBufferPackedSize(LiteRtHandle buffer, size_t* bytes);
LiteRtStatus LiteRtLockTensorBuffer(LiteRtHandle buffer, void** memory, int mode);
LiteRtStatus LiteRtUnlockTensorBuffer(LiteRtHandle buffer);

}  // extern "C"
