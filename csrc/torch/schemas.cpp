// Defines the ops where this library is loaded, with Python or without it. Python reads the same file.
#include <torch/csrc/inductor/aoti_torch/c/shim.h>

#include <algorithm>
#include <string>
#include <string_view>

// Of torch 2.12 and newer; null in older ones, where ops can have no tags from here. This binary is built for torch 2.10.
extern "C" {
__attribute__((weak)) AOTITorchError torch_library_def_with_tags(TorchLibraryHandle library, const char* schema,
                                                                 const int32_t* tags, int32_t tag_count);
__attribute__((weak)) int32_t torch_tag_pt2_compliant_tag();
}

namespace tokprune::torch_binding {
namespace {

// A string literal.
constexpr std::string_view kSchemas =
#include "../../tokprune_kernels/ops/schemas.txt"
    ;

// Whether torch took it; otherwise it has said why.
bool define(TorchLibraryHandle library, const std::string& schema) {
  if (!torch_library_def_with_tags || !torch_tag_pt2_compliant_tag) return aoti_torch_library_def(library, schema.c_str()) == 0;
  const int32_t tag = torch_tag_pt2_compliant_tag();
  return torch_library_def_with_tags(library, schema.c_str(), &tag, 1) == 0;
}

// As long as the library is loaded. Nothing is thrown: it would end the process that loads it.
class Definitions {
 public:
  Definitions() {
    // A fragment: Python adds to the namespace, and either may come first.
    if (aoti_torch_library_init_fragment("tokprune", __FILE__, __LINE__, &library_) != 0) return;
    // Schemas are separated by empty lines; to torch a line break within one could be its end.
    constexpr std::string_view kBetween = "\n\n";
    for (size_t begin = 0; begin < kSchemas.size();) {
      const size_t end = std::min(kSchemas.find(kBetween, begin), kSchemas.size());
      // The ops may be there already: of another copy of this library, or of Python, which did without it.
      std::string schema(kSchemas.substr(begin, end - begin));
      std::replace(schema.begin(), schema.end(), '\n', ' ');
      if (!define(library_, schema)) return;
      begin = end + kBetween.size();
    }
  }
  ~Definitions() {
    if (library_) aoti_torch_delete_library_object(library_);
  }
  Definitions(const Definitions&) = delete;
  Definitions& operator=(const Definitions&) = delete;

 private:
  TorchLibraryHandle library_ = nullptr;
};

const Definitions definitions;

}  // namespace
}  // namespace tokprune::torch_binding
