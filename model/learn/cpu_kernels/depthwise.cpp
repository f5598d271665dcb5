// Depthwise convolution of channels-last maps in float32, and its two gradients.
//
// All three go along the rows of a map, some positions at a time. For each tap of the kernel they
// know what the first of these positions reads; the others read at equal distances behind it. The
// channels of a position lie side by side, so they are computed vector by vector.
//
// Maps are (images, height, width, channels), weights (taps, channels) with taps row by row.

#include <algorithm>
#include <cstring>
#include <thread>
#include <vector>

namespace {

constexpr int kBlock = 4;  // positions at a time; their sums stay in registers
constexpr int kWide = 16;  // channels of a vector; the compiler splits it for a smaller CPU

typedef float Wide __attribute__((vector_size(kWide * sizeof(float))));

// A row of channels may begin at any float, so vectors are copied, which costs nothing.
template <class T> T load(const float *from) {
  T value;
  std::memcpy(&value, from, sizeof value);
  return value;
}
template <class T> void store(float *to, T value) { std::memcpy(to, &value, sizeof value); }

// Calls work with each vector of channels, and then with each channel that is left over.
template <class Work> void over_channels(int channels, Work work) {
  int c = 0;
  for (; c + kWide <= channels; c += kWide) work(c, Wide{});
  for (; c < channels; c++) work(c, 0.0f);
}

// Calls work(image) for all images, on some threads.
template <class Work> void over_images(int images, int threads, Work work) {
  threads = std::min(threads, images);
  auto share = [&](int first) {
    for (int image = first; image < images; image += threads) work(image);
  };
  std::vector<std::thread> others;
  for (int i = 1; i < threads; i++) others.emplace_back(share, i);
  share(0);
  for (auto &other : others) other.join();
}

int inside(int at, int size) { return at >= 0 && at < size ? at : -1; }

// A tap of the kernel, and what it reads for the first position of a block.
struct Tap {
  int index;
  const float *source;
};

// The block of positions x, x + step, … of row y, and the taps that read something there.
struct Block {
  int y, x, step, count;
  std::vector<Tap> taps;
};

// How a side of one map reads the same side of another one.
struct Side {
  int size, source_size, stride, before;
  bool back;  // from the output of the convolution to its input

  // Where a tap reads for a position, or -1: nowhere.
  int read(int position, int tap) const {
    if (!back) return inside(position * stride - before + tap, source_size);
    const int at = position + before - tap;
    return at % stride == 0 ? inside(at / stride, source_size) : -1;
  }
};

// Calls work(block) until all positions of a map were in one.
template <class Work>
void over_blocks(const Side &rows, const Side &columns, int kernel, int channels,
                 const float *source, Work work) {
  Block block;
  // Positions that lie a stride apart are read by the same taps on the way back.
  block.step = columns.back ? columns.stride : 1;
  // What is read a whole row of the block later, beside the first position's.
  const int last = (kBlock - 1) * block.step;
  for (block.y = 0; block.y < rows.size; block.y++) {
    for (int first = 0; first < block.step; first++) {
      for (block.x = first; block.x < columns.size; block.x += block.count * block.step) {
        block.count = block.x + last < columns.size ? kBlock : 1;
        for (int kx = 0; kx < kernel && block.count > 1; kx++) {
          // At the edges some positions of a block would read beside the map.
          if ((columns.read(block.x, kx) < 0) != (columns.read(block.x + last, kx) < 0))
            block.count = 1;
        }
        block.taps.clear();
        for (int ky = 0; ky < kernel; ky++) {
          const int y = rows.read(block.y, ky);
          for (int kx = 0; kx < kernel && y >= 0; kx++) {
            const int x = columns.read(block.x, kx);
            if (x >= 0)
              block.taps.push_back(
                  {ky * kernel + kx, source + (long(y) * columns.source_size + x) * channels});
          }
        }
        work(block);
      }
    }
  }
}

// Weighted sums of what the taps read, to N positions.
template <int N>
void gather(const std::vector<Tap> &taps, long source_step, const float *weights, int channels,
            float *out, long step) {
  over_channels(channels, [&](int c, auto sum_type) {
    using T = decltype(sum_type);
    T sum[N] = {};
    for (const Tap &tap : taps) {
      const T weight = load<T>(weights + tap.index * channels + c);
      for (int i = 0; i < N; i++) sum[i] += weight * load<T>(tap.source + i * source_step + c);
    }
    for (int i = 0; i < N; i++) store(out + i * step + c, sum[i]);
  });
}

// Adds to the gradients of the weights what N positions say.
template <int N>
void add_products(const std::vector<Tap> &taps, long source_step, const float *grad, int channels,
                  float *out) {
  over_channels(channels, [&](int c, auto sum_type) {
    using T = decltype(sum_type);
    T here[N];
    for (int i = 0; i < N; i++) here[i] = load<T>(grad + i * channels + c);
    for (const Tap &tap : taps) {
      float *at = out + tap.index * channels + c;
      T sum = load<T>(at);
      for (int i = 0; i < N; i++) sum += here[i] * load<T>(tap.source + i * source_step + c);
      store(at, sum);
    }
  });
}

}  // namespace

struct Sizes {
  int images, channels, height, width, out_height, out_width, kernel, stride, top, left;
};

extern "C" {

void depthwise_forward(const Sizes *s, int threads, const float *in, const float *weights,
                       float *out) {
  const Side rows{s->out_height, s->height, s->stride, s->top, false};
  const Side columns{s->out_width, s->width, s->stride, s->left, false};
  const int c = s->channels;
  const long in_size = long(s->height) * s->width * c;
  const long out_size = long(s->out_height) * s->out_width * c;
  over_images(s->images, threads, [&](int image) {
    over_blocks(rows, columns, s->kernel, c, in + image * in_size, [&](const Block &b) {
      float *to = out + image * out_size + (long(b.y) * s->out_width + b.x) * c;
      const long step = s->stride * c;
      if (b.count == 1) gather<1>(b.taps, step, weights, c, to, c);
      else gather<kBlock>(b.taps, step, weights, c, to, c);
    });
  });
}

void depthwise_grad_input(const Sizes *s, int threads, const float *grad, const float *weights,
                          float *out) {
  const Side rows{s->height, s->out_height, s->stride, s->top, true};
  const Side columns{s->width, s->out_width, s->stride, s->left, true};
  const int c = s->channels;
  const long in_size = long(s->height) * s->width * c;
  const long out_size = long(s->out_height) * s->out_width * c;
  over_images(s->images, threads, [&](int image) {
    over_blocks(rows, columns, s->kernel, c, grad + image * out_size, [&](const Block &b) {
      float *to = out + image * in_size + (long(b.y) * s->width + b.x) * c;
      const long step = b.step * c;
      if (b.count == 1) gather<1>(b.taps, c, weights, c, to, step);
      else gather<kBlock>(b.taps, c, weights, c, to, step);
    });
  });
}

// out: (images, taps, channels), filled with zeros by the caller.
void depthwise_grad_weight(const Sizes *s, int threads, const float *in, const float *grad,
                           float *out) {
  const Side rows{s->out_height, s->height, s->stride, s->top, false};
  const Side columns{s->out_width, s->width, s->stride, s->left, false};
  const int c = s->channels;
  const long in_size = long(s->height) * s->width * c;
  const long out_size = long(s->out_height) * s->out_width * c;
  over_images(s->images, threads, [&](int image) {
    float *sums = out + long(image) * s->kernel * s->kernel * c;
    over_blocks(rows, columns, s->kernel, c, in + image * in_size, [&](const Block &b) {
      const float *here = grad + image * out_size + (long(b.y) * s->out_width + b.x) * c;
      const long step = s->stride * c;
      if (b.count == 1) add_products<1>(b.taps, step, here, c, sums);
      else add_products<kBlock>(b.taps, step, here, c, sums);
    });
  });
}
}
