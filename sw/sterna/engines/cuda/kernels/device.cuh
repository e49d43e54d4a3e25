// What the hardware offers, by the names the kernels use. The tests put processor code in its place.
#define DEVICE __device__ __forceinline__
#define KERNEL(threads, blocks) extern "C" __global__ void __launch_bounds__(threads, blocks)  // blocks on a processor
#define SHARED(name) extern __shared__ __align__(16) unsigned char name[]

constexpr int LANES = 32;
constexpr unsigned ALL_LANES = 0xffffffff;

DEVICE int leading_zeros(unsigned long long value) { return __clzll(value); }
DEVICE unsigned long long multiply_high(unsigned long long a, unsigned long long b) { return __umul64hi(a, b); }
DEVICE float square_root(float value) { return __fsqrt_rn(value); }

// a * b + c in one instruction.
DEVICE long long multiply_add(int a, int b, long long c) {
    long long result;
    asm("mad.wide.s32 %0, %1, %2, %3;" : "=l"(result) : "r"(a), "r"(b), "l"(c));
    return result;
}

// The lowest bytes of four integers, a in the lowest byte.
DEVICE unsigned pack_bytes(int a, int b, int c, int d) {
    return __byte_perm(__byte_perm(a, b, 0x0040), __byte_perm(c, d, 0x0040), 0x5410);
}

// Four unsigned bytes times four signed bytes, added to acc.
DEVICE int dot(unsigned digits, unsigned q, int acc) {
    int result;
    asm("dp4a.u32.s32 %0, %1, %2, %3;" : "=r"(result) : "r"(digits), "r"(q), "r"(acc));
    return result;
}

// acc[16 x 8] += a[16 x 32] * b[32 x 8]: unsigned bytes times signed bytes, in the fragments of mma.m16n8k32.
DEVICE void matrix_multiply(int (&acc)[4], unsigned a0, unsigned a1, unsigned a2, unsigned a3, unsigned b0, unsigned b1) {
    asm("mma.sync.aligned.m16n8k32.row.col.s32.u8.s8.s32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
        : "+r"(acc[0]), "+r"(acc[1]), "+r"(acc[2]), "+r"(acc[3])
        : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
}

DEVICE int warp_sum(int value) { return __reduce_add_sync(ALL_LANES, value); }

// In limbs of 24 bits: 32 of them fit the 32-bit reduction of the hardware. The sum is below 2**63.
DEVICE unsigned long long warp_sum(unsigned long long value) {
    const unsigned limb = (1u << 24) - 1;
    const unsigned long long low = __reduce_add_sync(ALL_LANES, unsigned(value) & limb);
    const unsigned long long middle = __reduce_add_sync(ALL_LANES, unsigned(value >> 24) & limb);
    const unsigned long long high = __reduce_add_sync(ALL_LANES, unsigned(value >> 48));
    return low + (middle << 24) + (high << 48);
}

DEVICE unsigned long long warp_max(unsigned long long value) {
    const unsigned high = __reduce_max_sync(ALL_LANES, unsigned(value >> 32));
    const unsigned low = __reduce_max_sync(ALL_LANES, unsigned(value >> 32) == high ? unsigned(value) : 0);
    return (unsigned long long)high << 32 | low;
}

// Weights are read once a token: they pass through the level 2 cache first out, so that what is small stays in it.
// Volatile, so that a read that is placed before a barrier is issued before it.
DEVICE uint4 load_weights(const uint4* address) {
    uint4 value;
    unsigned long long policy;
    asm("createpolicy.fractional.L2::evict_first.b64 %0;" : "=l"(policy));
    asm volatile("ld.global.nc.L1::no_allocate.L2::cache_hint.v4.u32 {%0,%1,%2,%3}, [%4], %5;"
                 : "=r"(value.x), "=r"(value.y), "=r"(value.z), "=r"(value.w)
                 : "l"(address), "l"(policy));
    return value;
}

// What no thread writes while the kernel runs, and other threads read too.
DEVICE uint4 load_shared_by_many(const uint4* address) { return __ldg(address); }

// Signals between blocks, all on one counter: a word for each block took a sixth longer. What the calling warp wrote before
// it gives one is seen by a thread that has awaited it, and by those that meet that thread later.
DEVICE void signal(unsigned* arrivals) {
    __syncwarp();
    if (threadIdx.x % LANES == 0) asm volatile("red.release.gpu.global.add.u32 [%0], 1;" ::"l"(arrivals) : "memory");
}

DEVICE void await_signals(const unsigned* arrivals, unsigned least) {
    unsigned value;
    do {
        asm volatile("ld.acquire.gpu.global.u32 %0, [%1];" : "=r"(value) : "l"(arrivals) : "memory");
    } while (value < least);
}
