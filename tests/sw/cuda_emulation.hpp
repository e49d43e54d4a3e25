// The GPU of the CUDA kernels on a processor, in place of device.cuh: each thread is a fibre, and every barrier and warp
// operation really waits for the threads it needs. Which fibre goes on is drawn at random, so that a missing barrier
// shows; threads that wait for each other for ever end the launch with an error.

#include <ucontext.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <memory>
#include <random>
#include <utility>
#include <vector>

#define __device__
#define DEVICE inline
#define KERNEL(threads, blocks) extern "C" void
#define SHARED(name) unsigned char* name = emulation::current->block->shared.data()

using std::min;

constexpr int LANES = 32;

struct alignas(16) int4 { int x, y, z, w; };
struct alignas(16) uint4 { unsigned x, y, z, w; };
struct alignas(8) short4 { short x, y, z, w; };

namespace emulation {

struct Index { unsigned x, y; };

struct Barrier {  // passed when all have come; `passed` counts how often it was
    unsigned expected, arrived = 0, passed = 0;
};

struct Warp {
    Barrier barrier{LANES};
    unsigned long long values[2][LANES][6];
};

struct Block {
    Index index;
    Barrier barrier;
    std::vector<unsigned char> shared;
    std::vector<Warp> warps;
};

struct Fibre {
    Block* block;
    Index thread;
    ucontext_t context;
    std::vector<char> stack;
    const unsigned* awaited = nullptr;  // goes on when this has reached `least`
    unsigned least = 0, exchanges = 0;
    bool done = false;

    bool ready() const { return !done && (!awaited || *awaited >= least); }
};

inline Fibre* current;
inline ucontext_t scheduler;
inline Index block_size, grid_size;

inline void await(const unsigned* counter, unsigned least) {
    if (*counter >= least) return;
    current->awaited = counter, current->least = least;
    swapcontext(&current->context, &scheduler);
    current->awaited = nullptr;
}

inline void meet(Barrier& barrier) {
    const unsigned next = barrier.passed + 1;
    if (++barrier.arrived == barrier.expected) {
        barrier.arrived = 0;
        barrier.passed = next;
    }
    await(&barrier.passed, next);
}

// Gives the values of all lanes of the warp to each of them.
template <int N>
auto& exchange(const unsigned long long (&values)[N]) {
    Fibre& self = *current;
    Warp& warp = self.block->warps[self.thread.x / LANES];
    auto& slot = warp.values[self.exchanges++ % 2];  // the other one may still be read
    std::copy(values, values + N, slot[self.thread.x % LANES]);
    meet(warp.barrier);
    return slot;
}

}  // namespace emulation

#define threadIdx (emulation::current->thread)
#define blockIdx (emulation::current->block->index)
#define blockDim (emulation::block_size)

inline void __syncthreads() { emulation::meet(emulation::current->block->barrier); }
inline void __syncwarp() { emulation::meet(emulation::current->block->warps[threadIdx.x / LANES].barrier); }
inline void __threadfence() {}
template <class T, class V> T atomicAdd(T* target, V value) { return std::exchange(*target, T(*target + value)); }
template <class T, class V> T atomicMax(T* target, V value) { return std::exchange(*target, std::max(*target, T(value))); }
template <class T, class V> T atomicExch(T* target, V value) { return std::exchange(*target, T(value)); }

inline int leading_zeros(unsigned long long value) { return value ? __builtin_clzll(value) : 64; }
inline unsigned long long multiply_high(unsigned long long a, unsigned long long b) {
    return (unsigned long long)((unsigned __int128)a * b >> 64);
}
inline float square_root(float value) { return std::sqrt(value); }

inline long long multiply_add(int a, int b, long long c) { return (long long)a * b + c; }
inline unsigned pack_bytes(int a, int b, int c, int d) {
    return (a & 0xff) | (b & 0xff) << 8 | (c & 0xff) << 16 | unsigned(d) << 24;
}
inline int dot(unsigned digits, unsigned q, int acc) {
    for (int byte = 0; byte < 4; byte++) acc += int(digits >> 8 * byte & 0xff) * (signed char)(q >> 8 * byte);
    return acc;
}

inline unsigned long long warp_sum(unsigned long long value) {
    unsigned long long total = 0;
    for (auto& lane : emulation::exchange({value})) total += lane[0];
    return total;
}
inline int warp_sum(int value) { return int(warp_sum((unsigned long long)(long long)value)); }
inline unsigned long long warp_max(unsigned long long value) {
    unsigned long long largest = 0;
    for (auto& lane : emulation::exchange({value})) largest = std::max(largest, lane[0]);
    return largest;
}

inline uint4 load_weights(const uint4* address) { return *address; }
inline uint4 load_shared_by_many(const uint4* address) { return *address; }

// The fragments as the PTX manual gives them for mma.m16n8k32: four bytes to a register, rows and columns of the
// operands by the lane's group of four and by the lane in it.
inline void matrix_multiply(int (&acc)[4], unsigned a0, unsigned a1, unsigned a2, unsigned a3, unsigned b0, unsigned b1) {
    auto& lanes = emulation::exchange({a0, a1, a2, a3, b0, b1});
    const int lane = threadIdx.x % LANES;
    for (int index = 0; index < 4; index++) {
        const int row = lane / 4 + 8 * (index / 2), column = lane % 4 * 2 + index % 2;
        for (int k = 0; k < 32; k++) {
            const int in_group = k % 16 / 4, byte = k % 4;
            const unsigned a = unsigned(lanes[row % 8 * 4 + in_group][row / 8 + 2 * (k / 16)]);
            const unsigned b = unsigned(lanes[column * 4 + in_group][4 + k / 16]);
            acc[index] += int(a >> 8 * byte & 0xff) * (signed char)(b >> 8 * byte);
        }
    }
}

inline void signal(unsigned* arrivals) {
    __syncwarp();
    if (threadIdx.x % LANES == 0) ++*arrivals;
}
inline void await_signals(const unsigned* arrivals, unsigned least) { emulation::await(arrivals, least); }

namespace emulation {

using Kernel = void (*)(long long, long long, long long, long long, long long, long long);
inline Kernel kernel;
inline const long long* arguments;

inline void enter() {
    kernel(arguments[0], arguments[1], arguments[2], arguments[3], arguments[4], arguments[5]);
    current->done = true;
}

inline bool run(std::vector<Fibre*> waiting, std::mt19937& random) {
    while (!waiting.empty()) {
        std::shuffle(waiting.begin(), waiting.end(), random);
        bool moved = false;
        for (Fibre* fibre : waiting) {
            if (!fibre->ready()) continue;
            current = fibre;
            swapcontext(&scheduler, &fibre->context);
            moved = true;
        }
        if (!moved) return false;
        waiting.erase(std::remove_if(waiting.begin(), waiting.end(), [](Fibre* f) { return f->done; }), waiting.end());
    }
    return true;
}

}  // namespace emulation

// Runs a kernel with six arguments, integers or addresses; cooperative: all blocks at once. False where it hangs.
extern "C" int emulate(void* function, int grid_x, int grid_y, int block, int shared, int cooperative,
                       const long long* arguments, unsigned seed) {
    using namespace emulation;
    constexpr int STACK = 1 << 16;
    kernel = reinterpret_cast<Kernel>(function);
    emulation::arguments = arguments;
    block_size = {unsigned(block), 1}, grid_size = {unsigned(grid_x), unsigned(grid_y)};
    std::mt19937 random(seed);
    std::vector<std::unique_ptr<Block>> blocks;
    std::vector<std::unique_ptr<Fibre>> fibres;
    std::vector<Fibre*> waiting;
    for (int index = 0; index < grid_x * grid_y; index++) {
        auto& made = *blocks.emplace_back(new Block{{unsigned(index % grid_x), unsigned(index / grid_x)}, {unsigned(block)}});
        made.shared.assign(shared, 0xa5);
        made.warps.resize((block + LANES - 1) / LANES);
        for (int thread = 0; thread < block; thread++) {
            auto& fibre = *fibres.emplace_back(new Fibre{&made, {unsigned(thread), 0}});
            fibre.stack.resize(STACK);
            getcontext(&fibre.context);
            fibre.context.uc_stack.ss_sp = fibre.stack.data();
            fibre.context.uc_stack.ss_size = STACK;
            fibre.context.uc_link = &scheduler;
            makecontext(&fibre.context, enter, 0);
            waiting.push_back(&fibre);
        }
        if (cooperative && index + 1 < grid_x * grid_y) continue;
        if (!run(std::move(waiting), random)) return 0;
        waiting.clear(), fibres.clear(), blocks.clear();
    }
    return 1;
}
