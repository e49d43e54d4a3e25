// What a block does in every phase of a token (decode.cuh): it waits for the others, quantises the input of the phase and
// multiplies its share of the rows, and measures what it makes of them for the next phase.
//
// A tile is what one warp multiplies at a time: one load of 16 bytes a lane, which is 16 columns of a quad (quads.cuh).

constexpr int STATES = LAYERS * HIDDEN_PADDED;  // elements of a half

// The part of a matrix, or of MATRICES matrices of the same shape with their quads in turn, that this block multiplies.
template <int COLUMNS_, int MATRICES_, int QUADS>
struct Share {
    static constexpr int COLUMNS = COLUMNS_, MATRICES = MATRICES_;
    static constexpr int SEGMENTS = Width<COLUMNS>::SEGMENTS, SLICES = divide_up(SEGMENTS, LANES);
    const uint4* weights;
    const Projection* projections;  // with their input's norm

    DEVICE static int first() { return int(i64(blockIdx.x) * QUADS / BLOCKS); }  // quad of each matrix
    DEVICE static int quads() { return int(i64(blockIdx.x + 1) * QUADS / BLOCKS) - first(); }
    DEVICE static int tiles() { return quads() * MATRICES * SLICES; }
    DEVICE static int first_tile(int warp) { return warp * tiles() / WARPS; }
    DEVICE static bool inside(int segment) { return SEGMENTS % LANES == 0 || segment < SEGMENTS; }

    DEVICE uint4 fetch(int tile) const {
        const int segment = tile % SLICES * LANES + threadIdx.x % LANES;
        if (!inside(segment)) return uint4{0, 0, 0, 0};
        return load_weights(weights + i64(first() * MATRICES + tile / SLICES) * SEGMENTS + segment);
    }
};
using GateShare = Share<HIDDEN, 3, HIDDEN_QUADS>;
using OutShare = Share<HIDDEN, 1, HIDDEN_QUADS>;
using GluShare = Share<HIDDEN, 1, GLU_QUADS>;
using DownShare = Share<INNER, 1, HIDDEN_QUADS>;
using HeadShare = Share<HIDDEN, 1, HEAD_QUADS>;

DEVICE constexpr int larger(int a, int b) { return a > b ? a : b; }
DEVICE constexpr int most_rows(int quads) { return divide_up(quads, BLOCKS) * QUAD; }
constexpr int ROWS = larger(larger(3 * most_rows(HIDDEN_QUADS), most_rows(GLU_QUADS)), most_rows(HEAD_QUADS));

struct Shared {
    uint4 q[larger(3 * HIDDEN_PADDED, INNER_PADDED) / SEGMENT];
    Model model;
    Layer layers[LAYERS];
    u64 s1, s2, top[3];  // of the input
    Scalars scalars[3];
    int activations[3];  // their sums
    u64 best[WARPS];
    int clamped[WARPS];
    u32 sigma[SIGMA_SEGMENTS];
    int sums[ROWS];  // of the digits
};
static_assert(sizeof(Shared) <= SHARED_BYTES, "source.py reserves too little shared memory");

DEVICE void copy_words(void* target, const void* source, int bytes) {
    for (int word = threadIdx.x; word < bytes / 4; word += THREADS)
        static_cast<u32*>(target)[word] = static_cast<const u32*>(source)[word];
}

struct NextInput {  // of one projection or three
    const short* norm;  // of the block, none where it is null
    const Projection* projections;
    int count;
};

// Measures the rows that a lane makes of the next input: n, then n + LANES and so on. The norms of the first row are
// read when it is made, early.
class Measurer : public Measures<3> {
   public:
    const NextInput next;

    DEVICE Measurer(const NextInput& next, int first) : next(next), first(first) { read(threadIdx.x % LANES); }

    DEVICE void add(int n, int value, int normalised) {
        Measures<3>::add(value, normalised, norm, c);
        read(n + LANES);
    }

   private:
    const int first;
    int norm, c[3];

    DEVICE void read(int n) {  // vectors are padded and rows beyond the last one are not added
        norm = UNIT_NORM, c[0] = c[1] = c[2] = 0;
        if (n >= ROWS) return;
        if (next.norm) norm = next.norm[first + n];
#pragma unroll
        for (int m = 0; m < 3; m++)
            if (m < next.count) c[m] = next.projections[m].weight_norm[first + n];
    }
};

class Block {
   public:
    Shared& s;
    const int warp = threadIdx.x / LANES, lane = threadIdx.x % LANES;

    DEVICE explicit Block(Shared& shared) : s(shared) {}

    // A barrier of the grid before the phase with this share.
    template <class S>
    DEVICE void meet(const S& share) {
        unsigned* arrivals = s.model.arrivals;
        round++;
        parity ^= 1;
        if (warp == 0) signal(arrivals);
        fetch(share);
        if (threadIdx.x == 0) await_signals(arrivals, round * BLOCKS);
        __syncthreads();
    }

    // QUANT of a vector for the projections of a share: activations and their sums, and scalars, the scale of which is
    // ready after the next barrier of the block. The last warps have the least to multiply, so they make the scalars.
    template <class S>
    DEVICE void quantise(const S& share, const int* vector) {
        using W = Width<S::COLUMNS>;
        Elements w[W::TURNS];
#pragma unroll
        for (int turn = 0; turn < W::TURNS; turn++) {
            const int word = turn * THREADS + threadIdx.x;
            if (W::inside(turn)) w[turn] = elements<S::COLUMNS>(vector, word);
        }
        for (int row = threadIdx.x; row < S::tiles() / S::SLICES * QUAD; row += THREADS) s.sums[row] = 0;
        for (int m = WARPS - 1 - warp; m < S::MATRICES; m += WARPS) {
            u64 top = 0;
            for_measures(2 + m, [&](u64 largest) { top = largest > top ? largest : top; });
            top = warp_max(top);
            if (lane == 0) {
                s.top[m] = top, s.activations[m] = 0;
                normaliser_scalars(top, s.scalars[m]);
            }
        }
        if (warp == 0) {
            u64 s1 = 0, s2 = 0;
            for_measures(0, [&](u64 sum) { s1 += sum; });
            for_measures(1, [&](u64 sum) { s2 += sum; });
            s1 = warp_sum(s1), s2 = warp_sum(s2);
            if (lane == 0) s.s1 = s1, s.s2 = s2;
        }
        __syncthreads();
#pragma unroll
        for (int m = 0; m < S::MATRICES; m++) {
            const Scalars scalars = s.scalars[m];
            int sum = 0;
#pragma unroll
            for (int turn = 0; turn < W::TURNS; turn++) {
                const int word = turn * THREADS + threadIdx.x;
                if (!W::inside(turn)) break;
                const short4 four = norms[turn * S::MATRICES + m];
                const int c[4] = {four.x, four.y, four.z, four.w};
                reinterpret_cast<u32*>(s.q)[m * W::WORDS + word] = quantise_word(w[turn].at, c, scalars, sum);
            }
            sum = warp_sum(sum);
            if (lane == 0) atomicAdd(&s.activations[m], sum);
        }
        __syncthreads();
        for (int m = WARPS - 1 - warp; m < S::MATRICES; m += WARPS)
            if (lane == 0) scale_scalars(s.top[m], s.s1, s.s2, share.projections[m], s.scalars[m]);
    }

    // MATMUL of a share whose first tiles have been fetched: the sums of digits of its rows, ready after it.
    template <class S>
    DEVICE void multiply_share(const S& share) {
        const int last = share.first_tile(warp + 1);
        int acc[QUAD] = {};
        for (int start = share.first_tile(warp); start < last; start += AHEAD) {
#pragma unroll
            for (int slot = 0; slot < AHEAD; slot++) {
                const int tile = start + slot;
                if (tile >= last) break;
                const uint4 weights = ahead[slot];
                if (tile + AHEAD < last) ahead[slot] = share.fetch(tile + AHEAD);
                const int quad = tile / S::SLICES, segment = tile % S::SLICES * LANES + lane;
                if (share.inside(segment)) {
                    const uint4 q = s.q[quad % S::MATRICES * S::SEGMENTS + segment];
                    add_word(weights.x, q.x, acc);
                    add_word(weights.y, q.y, acc);
                    add_word(weights.z, q.z, acc);
                    add_word(weights.w, q.w, acc);
                }
                if (tile + 1 == last || (tile + 1) % S::SLICES == 0) add_rows(quad, acc);
            }
        }
        __syncthreads();
    }

    // Scaled row of the matrix with this place among the projections; `row` counts rows of the block's share.
    DEVICE Row result(int row, int matrix) const {
        const Scalars& scalars = s.scalars[matrix];
        return scale_row(row_sum(s.sums[row], row % QUAD, s.activations[matrix]), scalars.mantissa, scalars.shift);
    }

    // What all lanes have measured, for all blocks.
    DEVICE void hand_on(const Measurer& measurer) {
        const u64 s1 = warp_sum(measurer.s1), s2 = warp_sum(measurer.s2);
        u64* target = measures(1 - parity);
        if (lane == 0) target[0] = s1, target[BLOCKS] = s2;
#pragma unroll
        for (int m = 0; m < 3; m++) {
            if (m >= measurer.next.count) break;
            const u64 top = warp_max(measurer.top[m]);
            if (lane == 0) target[(2 + m) * BLOCKS] = top;
        }
    }

   private:
    int parity = 0;
    unsigned round = 0;
    uint4 ahead[AHEAD] = {};
    short4 norms[larger(3 * Width<HIDDEN>::TURNS, Width<INNER>::TURNS)] = {};

    // The norms and the first tiles of a phase.
    template <class S>
    DEVICE void fetch(const S& share) {
        using W = Width<S::COLUMNS>;
#pragma unroll
        for (int turn = 0; turn < W::TURNS; turn++) {
            const int word = turn * THREADS + threadIdx.x;
            if (!W::inside(turn)) break;
#pragma unroll
            for (int m = 0; m < S::MATRICES; m++)
                norms[turn * S::MATRICES + m] = reinterpret_cast<const short4*>(share.projections[m].weight_norm)[word];
        }
        const int first = share.first_tile(warp), last = share.first_tile(warp + 1);
#pragma unroll
        for (int slot = 0; slot < AHEAD; slot++)
            if (first + slot < last) ahead[slot] = share.fetch(first + slot);
    }

    // Of the input of this phase, or the next: [s1, s2, top of each projection][BLOCKS], from this block on.
    DEVICE u64* measures(int parity) const { return s.model.measures + parity * 5 * BLOCKS + blockIdx.x; }

    // What each block has measured of the input of this phase, spread over the lanes.
    template <class F>
    DEVICE void for_measures(int index, const F& take) const {
        const u64* all = measures(parity) - blockIdx.x + index * BLOCKS;
#pragma unroll
        for (int block = 0; block < BLOCKS; block += LANES)
            if (block + LANES <= BLOCKS || block + lane < BLOCKS) take(all[block + lane]);
    }

    DEVICE static void add_word(u32 weights, u32 q, int (&acc)[QUAD]) {
#pragma unroll
        for (int row = 0; row < QUAD; row++) acc[row] = dot(digits(weights, row), q, acc[row]);
    }

    // Adds what the lanes have of the rows of a quad, and clears it.
    DEVICE void add_rows(int quad, int (&acc)[QUAD]) {
        int total = 0;  // of row `lane`
#pragma unroll
        for (int row = 0; row < QUAD; row++) {
            const int sum = warp_sum(acc[row]);
            total = lane == row ? sum : total;
            acc[row] = 0;
        }
        if (lane < QUAD) atomicAdd(&s.sums[quad * QUAD + lane], total);
    }
};
