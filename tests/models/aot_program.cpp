// Runs a model that AOTInductor compiled, without Python: aot_program LIBRARY MODEL BATCH LENGTH prints its first output.
// Text b is the tokens 1, 2, ... of a vocabulary of 90, of which 3 (b + 1) are live.
#include <dlfcn.h>
#include <torch/csrc/inductor/aoti_package/model_package_loader.h>
#include <torch/torch.h>

#include <cstdio>
#include <cstdlib>

int main(int count, char** arguments) {
  if (count != 5) return 2;
  // Defines the ops and their kernels; linking the library does the same.
  if (!dlopen(arguments[1], RTLD_NOW | RTLD_GLOBAL)) {
    std::fprintf(stderr, "%s\n", dlerror());
    return 1;
  }
  const int64_t batch = std::atoll(arguments[3]), length = std::atoll(arguments[4]);
  c10::InferenceMode inference;
  torch::inductor::AOTIModelPackageLoader model(arguments[2]);
  const auto ids = torch::arange(batch * length, torch::kInt64).reshape({batch, length}).remainder(90).add(1);
  const auto lengths = torch::arange(1, batch + 1, torch::kInt64).mul(3).unsqueeze(1);
  const auto mask = torch::arange(length, torch::kInt64).unsqueeze(0).lt(lengths).to(torch::kInt64);
  const auto logits = model.run({ids, mask}).at(0).flatten();
  for (int64_t i = 0; i < logits.numel(); ++i) std::printf("%.9g\n", logits[i].item<float>());
  return 0;
}
