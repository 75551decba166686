// Convolutions of oneDNN as one handler for XLA's CPU programs. onednn.py compiles this file and registers the handler.
//
// oneDNN is opened by its path, and of its interface only what is declared here is used, so that its headers are not
// needed. Values are those of oneDNN 3: dnnl_types.h.
//
// Work is split over the batch and given to XLA's own threads; inside a part oneDNN runs on one thread. Two pools of
// threads on the same cores would wait for each other, and parts of a fixed size give the same sums on every run.

#include <dlfcn.h>

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "xla/ffi/api/ffi.h"

namespace ffi = xla::ffi;

namespace {

// ---- oneDNN's interface ----

using Handle = void*;
using Dims = int64_t[12];
struct Argument {
  int what;
  Handle memory;
};
constexpr int kOk = 0, kCpu = 1, kInOrder = 1, kTraining = 64, kDirect = 1, kAnyLayout = 1, kUserScratchpad = 1;
constexpr int kFloat32 = 3;
constexpr int kQueryWeights = 131, kQueryWeightsGradient = 132, kQueryScratchpad = 136;
constexpr int kSource = 1, kResult = 17, kWeights = 33, kScratchpad = 80;
constexpr int kSourceGradient = 129, kResultGradient = 145, kWeightsGradient = 161;

#define ONEDNN_FUNCTIONS(f)                                                                                         \
  f(engine_create, int, (Handle*, int, size_t))                                                                     \
  f(stream_create, int, (Handle*, Handle, unsigned))                                                                \
  f(memory_desc_create_with_strides, int, (Handle*, int, const int64_t*, int, const int64_t*))                      \
  f(memory_desc_create_with_tag, int, (Handle*, int, const int64_t*, int, int))                                     \
  f(memory_desc_clone, int, (Handle*, const void*))                                                                 \
  f(memory_desc_get_size, size_t, (const void*))                                                                    \
  f(memory_desc_equal, int, (const void*, const void*))                                                             \
  f(memory_create, int, (Handle*, const void*, Handle, void*))                                                      \
  f(memory_destroy, int, (Handle))                                                                                  \
  f(primitive_attr_create, int, (Handle*))                                                                          \
  f(primitive_attr_set_scratchpad_mode, int, (Handle, int))                                                         \
  f(primitive_desc_query_md, const void*, (const void*, int, int))                                                  \
  f(primitive_desc_destroy, int, (Handle))                                                                          \
  f(primitive_create, int, (Handle*, const void*))                                                                  \
  f(primitive_execute, int, (const void*, Handle, int, const Argument*))                                            \
  f(reorder_primitive_desc_create, int, (Handle*, const void*, Handle, const void*, Handle, const void*))           \
  f(convolution_forward_primitive_desc_create, int,                                                                 \
    (Handle*, Handle, int, int, const void*, const void*, const void*, const void*, const int64_t*, const int64_t*, \
     const int64_t*, const int64_t*, const void*))                                                                  \
  f(convolution_backward_data_primitive_desc_create, int,                                                           \
    (Handle*, Handle, int, const void*, const void*, const void*, const int64_t*, const int64_t*, const int64_t*,   \
     const int64_t*, const void*, const void*))                                                                     \
  f(convolution_backward_weights_primitive_desc_create, int,                                                        \
    (Handle*, Handle, int, const void*, const void*, const void*, const void*, const int64_t*, const int64_t*,      \
     const int64_t*, const int64_t*, const void*, const void*))

struct Library {
#define DECLARE(name, result, arguments) result(*name) arguments;
  ONEDNN_FUNCTIONS(DECLARE)
#undef DECLARE
  int (*get_threads)();
  void (*set_threads)(int);
  Handle engine, attributes;
} dnnl;

// Throws what went wrong; the handler returns it as an error of the program.
void Check(int status, const char* what) {
  if (status != kOk) throw std::string("oneDNN could not ") + what + ": status " + std::to_string(status);
}

// ---- one thread inside of oneDNN, many of XLA around it ----

// oneDNN asks OpenMP for the number of threads of the calling thread, which may be one of the user's own.
struct OneThread {
  int before = dnnl.get_threads();
  OneThread() { dnnl.set_threads(1); }
  ~OneThread() { dnnl.set_threads(before); }
};

// Calls task(0) to task(count - 1) on XLA's threads and this one. This thread takes what nobody else has begun, and
// waits for nothing but tasks that are running: so a pool in which all threads wait cannot come about.
void Parallel(ffi::ThreadPool& pool, int count, std::function<void(int)> task) {
  struct Work {
    std::function<void(int)> task;
    int count;
    std::atomic<int> next{0}, done{0};
    std::mutex mutex;
    std::condition_variable all_done;
    std::string error;

    void Run() {
      for (int i; (i = next.fetch_add(1)) < count;) {
        try {
          OneThread one;
          task(i);
        } catch (const std::string& what) {
          std::lock_guard<std::mutex> lock(mutex);
          error = what;
        } catch (const std::exception& what) {  // of the standard library: no memory
          std::lock_guard<std::mutex> lock(mutex);
          error = what.what();
        }
        if (done.fetch_add(1) + 1 == count) {
          std::lock_guard<std::mutex> lock(mutex);
          all_done.notify_all();
        }
      }
    }
  };
  auto work = std::make_shared<Work>();
  work->task = std::move(task);
  work->count = count;
  for (int i = 1; i < count; ++i) pool.Schedule([work] { work->Run(); });
  work->Run();
  for (int turn = 0; turn < 20000 && work->done.load() < count; ++turn) __builtin_ia32_pause();
  std::unique_lock<std::mutex> lock(work->mutex);
  work->all_done.wait(lock, [&] { return work->done.load() == count; });
  if (!work->error.empty()) throw work->error;
}

// Memory of a thread that is kept from call to call, and grows: fresh pages would cost more than many a convolution.
class Buffer {
 public:
  void* Get(size_t size) {
    if (size > size_) {
      std::free(data_);
      size_ = (size + 4095) / 4096 * 4096;
      data_ = std::aligned_alloc(4096, size_);
      if (!data_) {
        size_ = 0;
        throw std::string("no memory for a convolution of oneDNN");
      }
    }
    return data_;
  }
  ~Buffer() { std::free(data_); }

 private:
  void* data_ = nullptr;
  size_t size_ = 0;
};

struct Placed {
  int what;
  const void* description;
  void* data;
};

// ---- primitives, made once for each shape ----

constexpr int64_t kFewMultiplyAdds = 1 << 18;  // less is not worth a second thread
constexpr int64_t kMostBytes = 1 << 28;        // of the gradients of a kernel that are then summed

enum Kind : int64_t { kForward = 0, kImages = 1, kKernel = 2 };

struct Shape {
  int64_t kind, type, batch, groups;
  int64_t in[3], out[3], kernel[2];  // height, width, channels
  int64_t strides[2], dilation[2], padding[4];
  std::vector<int64_t> Key() const {
    auto* first = reinterpret_cast<const int64_t*>(this);
    return {first, first + sizeof(Shape) / sizeof(int64_t)};
  }
};

struct Primitive {
  Handle run, reorder = nullptr;  // reorder: the kernel into oneDNN's own order, or its gradient out of it
  Handle images, kernel, own_kernel, result, scratchpad;  // descriptions
  size_t own_kernel_size, scratchpad_size;
};

Handle Strided(int rank, const int64_t* dims, int type, const int64_t* strides) {
  Handle made;
  Check(dnnl.memory_desc_create_with_strides(&made, rank, dims, type, strides), "describe an array");
  return made;
}

Primitive Make(const Shape& s) {
  Primitive p;
  int type = static_cast<int>(s.type);
  auto nhwc = [&](const int64_t* size) {
    Dims dims = {s.batch, size[2], size[0], size[1]};
    Dims strides = {size[0] * size[1] * size[2], 1, size[1] * size[2], size[2]};
    return Strided(4, dims, type, strides);
  };
  p.images = nhwc(s.in);
  p.result = nhwc(s.out);
  int64_t ins = s.in[2] / s.groups, outs = s.out[2] / s.groups, all = s.out[2];
  Dims dims = {s.groups, outs, ins, s.kernel[0], s.kernel[1]};
  Dims hwio = {outs, 1, all, s.kernel[1] * ins * all, ins * all};
  int rank = s.groups > 1 ? 5 : 4;  // without groups their axis is left out
  p.kernel = Strided(rank, dims + 5 - rank, type, hwio + 5 - rank);
  Handle any;
  Check(dnnl.memory_desc_create_with_tag(&any, rank, dims + 5 - rank, type, kAnyLayout), "describe a kernel");

  Dims strides = {s.strides[0], s.strides[1]}, dilation = {s.dilation[0] - 1, s.dilation[1] - 1};
  Dims before = {s.padding[0], s.padding[2]}, after = {s.padding[1], s.padding[3]};
  Handle forward, description;
  Check(dnnl.convolution_forward_primitive_desc_create(&forward, dnnl.engine, kTraining, kDirect, p.images, any,
                                                       nullptr, p.result, strides, dilation, before, after,
                                                       dnnl.attributes),
        "plan a convolution");
  if (s.kind == kForward) {
    description = forward;
  } else if (s.kind == kImages) {
    Check(dnnl.convolution_backward_data_primitive_desc_create(&description, dnnl.engine, kDirect, p.images, any,
                                                               p.result, strides, dilation, before, after, forward,
                                                               dnnl.attributes),
          "plan the gradient of a convolution's images");
  } else {
    Check(dnnl.convolution_backward_weights_primitive_desc_create(&description, dnnl.engine, kDirect, p.images, any,
                                                                  nullptr, p.result, strides, dilation, before, after,
                                                                  forward, dnnl.attributes),
          "plan the gradient of a convolution's kernel");
  }
  const void* own =
      dnnl.primitive_desc_query_md(description, s.kind == kKernel ? kQueryWeightsGradient : kQueryWeights, 0);
  Check(dnnl.memory_desc_clone(&p.own_kernel, own), "copy a description");
  p.own_kernel_size = dnnl.memory_desc_get_size(p.own_kernel);
  const void* scratchpad = dnnl.primitive_desc_query_md(description, kQueryScratchpad, 0);
  Check(dnnl.memory_desc_clone(&p.scratchpad, scratchpad), "copy a description");
  p.scratchpad_size = dnnl.memory_desc_get_size(scratchpad);
  Check(dnnl.primitive_create(&p.run, description), "make a convolution");
  if (!dnnl.memory_desc_equal(p.own_kernel, p.kernel)) {
    Handle from = s.kind == kKernel ? p.own_kernel : p.kernel, to = s.kind == kKernel ? p.kernel : p.own_kernel, plan;
    Check(dnnl.reorder_primitive_desc_create(&plan, from, dnnl.engine, to, dnnl.engine, nullptr), "plan a reordering");
    Check(dnnl.primitive_create(&p.reorder, plan), "make a reordering");
    dnnl.primitive_desc_destroy(plan);
  }
  if (s.kind != kForward) dnnl.primitive_desc_destroy(forward);
  dnnl.primitive_desc_destroy(description);
  return p;
}

const Primitive& Find(const Shape& shape) {
  static std::mutex mutex;
  static auto* made = new std::map<std::vector<int64_t>, Primitive>;  // lives as long as the process
  std::lock_guard<std::mutex> lock(mutex);
  auto key = shape.Key();
  auto found = made->find(key);
  if (found == made->end()) found = made->emplace(key, Make(shape)).first;
  return found->second;
}

void Run(Handle primitive, std::vector<Placed> arrays) {
  thread_local Handle stream = nullptr;
  if (!stream) Check(dnnl.stream_create(&stream, dnnl.engine, kInOrder), "open a stream");
  std::vector<Argument> arguments;
  int status = kOk;
  for (const Placed& array : arrays) {
    Handle memory;
    status = dnnl.memory_create(&memory, array.description, dnnl.engine, array.data);
    if (status != kOk) break;
    arguments.push_back({array.what, memory});
  }
  if (status == kOk) {
    status = dnnl.primitive_execute(primitive, stream, static_cast<int>(arguments.size()), arguments.data());
  }
  for (const Argument& argument : arguments) dnnl.memory_destroy(argument.memory);
  Check(status, "run a convolution");
}

// ---- the handler ----

struct Array {
  char* data;
  int64_t members, member_size, item_size;  // in bytes; an array of rank 4 serves all members
  char* At(int64_t member, int64_t item = 0) const { return data + member * member_size + item * item_size; }
};

template <typename AnyBuffer>
Array Split(AnyBuffer& buffer) {
  auto dims = buffer.dimensions();
  int64_t size = 1, members = 1, rank = dims.size(), first = rank - 4;
  for (int64_t i = rank - 3; i < rank; ++i) size *= dims[i];
  for (int64_t i = 0; i < first; ++i) members *= dims[i];
  size *= ffi::ByteWidth(buffer.element_type());
  return {static_cast<char*>(buffer.untyped_data()), members, first ? size * dims[first] : 0, size};
}

void Convolve(ffi::ThreadPool& pool, Shape shape, const Array& images, const Array& kernel, const Array& result) {
  const bool is_gradient = shape.kind == kKernel;
  const int64_t members = std::max({images.members, kernel.members, result.members});
  const int64_t threads = std::max<int64_t>(pool.num_threads(), 1);
  const int64_t multiply_adds = shape.batch * shape.out[0] * shape.out[1] * shape.out[2] * shape.kernel[0] *
                                shape.kernel[1] * (shape.in[2] / shape.groups);
  const int64_t useful = std::min(shape.batch, std::max<int64_t>(multiply_adds / kFewMultiplyAdds, 1));
  int64_t parts = std::min(useful, (threads + members - 1) / members);
  if (is_gradient) parts = std::min(parts, std::max<int64_t>(kMostBytes / kernel.item_size / shape.kernel[0], 1));
  const int64_t each = (shape.batch + parts - 1) / parts;

  // Primitives are made before the work is shared, so that no part waits for another.
  std::vector<const Primitive*> primitives;
  for (int64_t first = 0; first < shape.batch; first += each) {
    Shape part = shape;
    part.batch = std::min(each, shape.batch - first);
    OneThread one;
    primitives.push_back(&Find(part));
  }
  const int64_t count = primitives.size();
  const Primitive& first = *primitives[0];
  const size_t own_size = (first.own_kernel_size + 63) / 64 * 64;

  // oneDNN's own order of the kernel, for all parts of a member; of a gradient, one for each part.
  thread_local Buffer reordered;
  const bool is_reordered = first.reorder && !is_gradient;
  const int64_t kernels = kernel.member_size ? members : 1;
  const bool is_summed = is_gradient && count > 1;
  char* own = nullptr;
  if (is_reordered) {
    own = static_cast<char*>(reordered.Get(kernels * own_size));
    Parallel(pool, kernels, [&](int i) {
      Run(first.reorder, {{kSource, first.kernel, kernel.At(i)}, {kResult, first.own_kernel, own + i * own_size}});
    });
  } else if (is_summed) {
    own = static_cast<char*>(reordered.Get(members * count * own_size));
  }

  Parallel(pool, members * count, [&](int task) {
    thread_local Buffer scratchpad, alone;
    const int64_t member = task / count, part = task % count;
    const Primitive& p = *primitives[part];
    char* here = kernel.At(member);
    if (is_reordered) here = own + (kernels > 1 ? member : 0) * own_size;
    if (is_summed) here = own + task * own_size;
    if (is_gradient && !is_summed && p.reorder) here = static_cast<char*>(alone.Get(own_size));
    const int roles[][3] = {{kSource, kWeights, kResult},
                            {kSourceGradient, kWeights, kResultGradient},
                            {kSource, kWeightsGradient, kResultGradient}};
    const int* role = roles[shape.kind];
    Run(p.run, {{role[0], p.images, images.At(member, part * each)},
                {role[1], p.own_kernel, here},
                {role[2], p.result, result.At(member, part * each)},
                {kScratchpad, p.scratchpad, scratchpad.Get(p.scratchpad_size)}});
    if (is_gradient && !is_summed && p.reorder) {
      Run(p.reorder, {{kSource, p.own_kernel, here}, {kResult, p.kernel, kernel.At(member)}});
    }
  });
  if (!is_summed) return;

  const int64_t length = first.own_kernel_size / sizeof(float), slices = length < 65536 ? 1 : threads;
  Parallel(pool, members * slices, [&](int task) {
    auto* total = reinterpret_cast<float*>(own + task / slices * count * own_size);
    const int64_t slice = task % slices, begin = slice * length / slices, end = (slice + 1) * length / slices;
    for (int64_t part = 1; part < count; ++part) {
      auto* one = reinterpret_cast<float*>(own + (task / slices * count + part) * own_size);
      for (int64_t i = begin; i < end; ++i) total[i] += one[i];
    }
  });
  Parallel(pool, members, [&](int member) {
    char* total = own + member * count * own_size;
    if (first.reorder) {
      Run(first.reorder, {{kSource, first.own_kernel, total}, {kResult, first.kernel, kernel.At(member)}});
    } else {
      std::memcpy(kernel.At(member), total, first.own_kernel_size);
    }
  });
}

ffi::Error Handler(ffi::ThreadPool pool, ffi::AnyBuffer a, ffi::AnyBuffer b, ffi::Result<ffi::AnyBuffer> made,
                   int64_t kind, int64_t groups, ffi::Span<const int64_t> strides, ffi::Span<const int64_t> dilation,
                   ffi::Span<const int64_t> padding) {
  ffi::AnyBuffer& c = *made;
  ffi::AnyBuffer& images = kind == kImages ? c : a;
  ffi::AnyBuffer& kernel = kind == kKernel ? c : b;
  ffi::AnyBuffer& result = kind == kForward ? c : kind == kImages ? a : b;
  Shape s{};
  s.kind = kind, s.type = kFloat32, s.groups = groups;
  auto from = images.dimensions().end() - 4, to = result.dimensions().end() - 4, size = kernel.dimensions().end() - 4;
  s.batch = from[0];
  std::copy(from + 1, from + 4, s.in);
  std::copy(to + 1, to + 4, s.out);
  std::copy(size, size + 2, s.kernel);
  std::copy(strides.begin(), strides.end(), s.strides);
  std::copy(dilation.begin(), dilation.end(), s.dilation);
  std::copy(padding.begin(), padding.end(), s.padding);
  try {
    Convolve(pool, s, Split(images), Split(kernel), Split(result));
  } catch (const std::string& what) {
    return ffi::Error::Internal(what);
  } catch (const std::exception& what) {
    return ffi::Error::Internal(what.what());
  }
  return ffi::Error::Success();
}

}  // namespace

XLA_FFI_DEFINE_HANDLER_SYMBOL(jaxcnn_onednn_convolution, Handler,
                              ffi::Ffi::Bind()
                                  .Ctx<ffi::ThreadPool>()
                                  .Arg<ffi::AnyBuffer>()
                                  .Arg<ffi::AnyBuffer>()
                                  .Ret<ffi::AnyBuffer>()
                                  .Attr<int64_t>("kind")
                                  .Attr<int64_t>("groups")
                                  .Attr<ffi::Span<const int64_t>>("strides")
                                  .Attr<ffi::Span<const int64_t>>("dilation")
                                  .Attr<ffi::Span<const int64_t>>("padding"));

// Opens oneDNN; returns what is wrong, or null.
extern "C" const char* jaxcnn_onednn_open(const char* path) {
  static std::string error;
  Handle library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
  if (!library) return (error = dlerror()).c_str();
  auto find = [&](const char* name) {
    Handle found = dlsym(library, name);
    if (!found && error.empty()) error = std::string(name) + " is missing";
    return found;
  };
#define FIND(name, result, arguments) dnnl.name = reinterpret_cast<result(*) arguments>(find("dnnl_" #name));
  ONEDNN_FUNCTIONS(FIND)
#undef FIND
  dnnl.get_threads = reinterpret_cast<int (*)()>(find("omp_get_max_threads"));
  dnnl.set_threads = reinterpret_cast<void (*)(int)>(find("omp_set_num_threads"));
  if (!error.empty()) return error.c_str();
  try {
    Check(dnnl.engine_create(&dnnl.engine, kCpu, 0), "start");
    Check(dnnl.primitive_attr_create(&dnnl.attributes), "start");
    Check(dnnl.primitive_attr_set_scratchpad_mode(dnnl.attributes, kUserScratchpad), "start");
  } catch (const std::string& what) {
    return (error = what).c_str();
  }
  return nullptr;
}
